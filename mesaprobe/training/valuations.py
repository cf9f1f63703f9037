"""What a searcher computes of every free city before it picks the least: values and the policy that follows them.

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
"""(weights [batch, n, n], tours [batch, n]) -> values [batch, n - 1, n] of every free city along the tours."""


@dataclass(frozen=True)
class Valuation:
    """A search whose answer is the free city of least value; equals are equally right."""

    values: Values
    mechanism: str
    """What the value of a city is, in one clause."""
    degree: int
    """3 look-ahead, 5 exhaustive or dynamic programming (DESIGN section 2)."""

    def __call__(
        self, weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
    ) -> Float64[np.ndarray, "batch decision n"]:
        """Values at every decision along the tours; infinite where a city is visited."""
        found = self.values(weights, tours).astype(np.float64)
        return np.where(unvisited(tours), found, np.inf)

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
            chosen = draw_least(self(weights, tours)[:, step], rng)
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


VALUATIONS: Registry[Valuation] = Registry("valuation")
VALUATIONS.add(
    "open_completions",
    Valuation(_open_completions, "the cheapest completion through it, not counting the way home", 5),
)
for _arcs, _word in ((2, "two"), (3, "three")):
    VALUATIONS.add(
        f"{_word}_arcs",
        Valuation(partial(horizon_values, arcs=_arcs), f"the cheapest {_word} next arcs that begin with it", 3),
    )
for _steps, _word in ((1, "one"), (2, "two")):
    VALUATIONS.add(
        f"walks_{_word}",
        Valuation(
            partial(walk_values, iterations=_steps),
            f"the cheapest walk home through it and unvisited cities, {_word} iteration(s) deep",
            5,
        ),
    )
