"""What a searcher computes of every option before it picks the least: values and the policy that follows them.

These are the inner variables that a network is trained to hold, and that its certificate exchanges (no torch here).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from mesaprobe.registry import Registry
from mesaprobe.solvers.constructive import unvisited
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.solvers.fixed_horizon import horizon_values, walk_values

Values = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(weights [batch, n, n], tours [batch, n]) -> values [batch, n - 1, option] of every option along the tours."""
Options = Callable[[np.ndarray], np.ndarray]
"""tours [batch, n] -> the city [batch, n - 1, option] that an option goes to next."""


def every_city(tours: Int64[np.ndarray, "batch n"]) -> Int64[np.ndarray, "batch decision n"]:
    """An option for each city: to go there."""
    batch, n = tours.shape
    return np.broadcast_to(np.arange(n), (batch, n - 1, n))


@dataclass(frozen=True)
class Valuation:
    """A search over options, whose answer is the next city of the option of least value; equals are equally right."""

    values: Values
    mechanism: str
    """What it compares, in one clause."""
    degree: int
    """3 look-ahead, 5 exhaustive or dynamic programming (DESIGN section 2)."""
    options: Options = every_city

    def __call__(
        self, weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
    ) -> Float64[np.ndarray, "batch decision option"]:
        """Values at every decision along the tours; infinite for options that go to visited cities."""
        found = self.values(weights, tours).astype(np.float64)
        return np.where(np.take_along_axis(unvisited(tours), self.options(tours), axis=2), found, np.inf)

    def allowed(
        self, values: Float64[np.ndarray, "batch decision option"], tours: Int64[np.ndarray, "batch n"]
    ) -> Bool[np.ndarray, "batch decision n"]:
        """The next cities of the options of least value."""
        return cities_of(least(values), self.options(tours), tours.shape[1])

    def rollouts(
        self,
        weights: Int32[np.ndarray, "batch n n"],
        prefixes: Int64[np.ndarray, "batch n"],
        lengths: Int64[np.ndarray, " batch"],
        rng: np.random.Generator,
    ) -> Int64[np.ndarray, "batch n"]:
        """Keep the first `lengths[b]` cities of each prefix, then go on to cities of least value, equals at random."""
        tours = prefixes.copy()
        n = tours.shape[1]
        for step in range(n - 1):
            option = draw_least(self(weights, tours)[:, step], rng)
            chosen = np.take_along_axis(self.options(tours)[:, step], option[:, None], axis=1)[:, 0]
            goes_on = lengths <= step + 1
            moved = np.where(goes_on, chosen, tours[:, step + 1])
            _exchange(tours, step + 1, moved)
        return tours


def least(values: Float64[np.ndarray, "*batch n"]) -> Bool[np.ndarray, "*batch n"]:
    """The cities of least value, ties included.

    >>> least(np.array([np.inf, 3.0, 2.0, 2.0])).tolist()
    [False, False, True, True]
    """
    return values == values.min(axis=-1, keepdims=True)


def cities_of(
    chosen: Bool[np.ndarray, "*batch option"], options: Int64[np.ndarray, "*batch option"], n: int
) -> Bool[np.ndarray, "*batch n"]:
    """The cities that the chosen options go to.

    >>> cities_of(np.array([[True, False, True]]), np.array([[2, 1, 2]]), 4).tolist()
    [[False, False, True, False]]
    """
    found: Bool[np.ndarray, "*batch n"] = ((options[..., None] == np.arange(n)) & chosen[..., None]).any(axis=-2)
    return found


def draw_least(values: Float64[np.ndarray, "batch n"], rng: np.random.Generator) -> Int64[np.ndarray, " batch"]:
    """One city of least value in each row, drawn uniformly."""
    return np.argmax(least(values) * rng.random(values.shape), axis=1)


def _exchange(tours: np.ndarray, position: int, cities: np.ndarray) -> None:
    """Put a city at a position of each tour, in place; the one that stood there takes its place."""
    rows = np.arange(len(tours))
    where = np.argmax(tours == cities[:, None], axis=1)
    tours[rows, where] = tours[:, position]
    tours[rows, position] = cities


def _open_completions(weights: np.ndarray, tours: np.ndarray) -> np.ndarray:
    """The cost of the cheapest completion without its last arc, home to city 0."""
    free_return = weights.copy()
    free_return[:, :, 0] = 0
    return action_values(free_return, tours)


ORDERS = 4


def _in_orders(tours: np.ndarray) -> np.ndarray:
    """Whole tours that complete each prefix by the free cities in each of `ORDERS` fixed orders, [batch, n - 1, order,
    n + 1], home again at the end; the current city stands in front of them, what was visited before is left out."""
    batch, n = tours.shape
    ranks = np.stack([np.random.default_rng([0x0D3, n, k]).permutation(n) for k in range(ORDERS)])
    free = unvisited(tours)[:, :, None]
    order = np.argsort(np.where(free, ranks[:, :], n), axis=3, kind="stable")  # free cities first, by rank
    count = free.sum(axis=3, keepdims=True)
    completed = np.where(np.arange(n) < count, order, 0)
    current = np.broadcast_to(tours[:, :-1, None, None], (batch, n - 1, ORDERS, 1))
    return np.concatenate([current, completed], axis=3)


def _ordered_completions(weights: np.ndarray, tours: np.ndarray) -> np.ndarray:
    """The cost of each of the completions, from the current city home."""
    paths = _in_orders(tours)
    rows = np.arange(len(tours))[:, None, None, None]
    return weights[rows, paths[..., :-1], paths[..., 1:]].sum(axis=3)


def _ordered_options(tours: np.ndarray) -> np.ndarray:
    return _in_orders(tours)[..., 1]


def _listed_completions(weights: np.ndarray, tours: np.ndarray) -> np.ndarray:
    """The cost, from the current city home, of one completion through each city: to the city, then through the other
    free cities in a fixed order of that city's own. No two completions of a state share an order, so that no cost can
    be had from another's."""
    batch, n = tours.shape
    ranks = np.stack([np.random.default_rng([0x715, n, a]).permutation(n) for a in range(n)])
    decisions = np.arange(batch)[:, None, None]
    free = np.repeat(unvisited(tours)[:, :, None], n, axis=2)
    free[..., np.arange(n), np.arange(n)] = False  # the city itself stands in front
    order = np.argsort(np.where(free, ranks, n), axis=3, kind="stable")
    rest = np.where(np.arange(n) < free.sum(axis=3, keepdims=True), order, 0)  # then home, and home is free
    first = np.broadcast_to(np.arange(n)[:, None], (batch, n - 1, n, 1))
    paths = np.concatenate([first, rest], axis=3)
    arcs = np.where(
        paths[..., :-1] != paths[..., 1:], weights[decisions[..., None], paths[..., :-1], paths[..., 1:]], 0
    )
    cost: np.ndarray = weights[decisions, tours[:, :-1, None], np.arange(n)] + arcs.sum(axis=3)
    return cost


VALUATIONS: Registry[Valuation] = Registry("valuation")
VALUATIONS.add(
    "listed_completions",
    Valuation(
        _listed_completions,
        "the cost of one whole completion through every free city, the others in a fixed order of that city's own",
        3,
    ),
)
VALUATIONS.add(
    "open_completions",
    Valuation(
        _open_completions, "the cost of the cheapest completion through every free city, not counting the way home", 5
    ),
)
VALUATIONS.add(
    "ordered_completions",
    Valuation(
        _ordered_completions,
        f"the cost of {ORDERS} whole completions, each through the free cities in a fixed order",
        3,
        _ordered_options,
    ),
)
for _arcs, _word in ((2, "two"), (3, "three")):
    VALUATIONS.add(
        f"{_word}_arcs",
        Valuation(
            partial(horizon_values, arcs=_arcs),
            f"the cost of the cheapest {_word} next arcs through every free city",
            3,
        ),
    )
for _steps, _word in ((1, "one"), (2, "two")):
    VALUATIONS.add(
        f"walks_{_word}",
        Valuation(
            partial(walk_values, iterations=_steps),
            f"the cost of the cheapest walk home through every free city, by {_word} iteration(s) over free cities",
            5,
        ),
    )
