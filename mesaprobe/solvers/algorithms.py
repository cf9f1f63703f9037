"""The reference library: every algorithm by name, with what it is (DESIGN section 2)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from jaxtyping import Int32, Int64, Real

from mesaprobe.errors import UserError
from mesaprobe.problems import Problem
from mesaprobe.registry import Registry
from mesaprobe.solvers import constructive
from mesaprobe.solvers.beam import beam_completions, beam_tours
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.exact.reduced_cost_search import reduced_cost_search
from mesaprobe.solvers.fixed_horizon import (
    horizon_beam_completions,
    horizon_beam_tours,
    horizon_completions,
    horizon_tours,
    walk_completions,
    walk_tours,
)
from mesaprobe.solvers.improvement.annealing import anneal
from mesaprobe.solvers.improvement.local_search import NEIGHBOURHOODS, Neighbourhood, Rule, local_search
from mesaprobe.solvers.improvement.routing import routing
from mesaprobe.solvers.lookahead import lookahead_completions, lookahead_tours
from mesaprobe.solvers.random_streams import instance_seeds
from mesaprobe.solvers.weights import checked_weights

Completions: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(weights [batch, n, n], prefixes [batch, n], lengths [batch]) -> tours [batch, n] that keep the prefixes."""


@dataclass(frozen=True)
class Algorithm:
    """One algorithm; calling it gives tours."""

    name: str
    degree: int
    """0 memory, 1 one-step rule, 2 constructive rule, 3 look-ahead or beam, 4 local search over whole tours,
    5 dynamic programming or exhaustive."""
    rule: Callable[..., np.ndarray]
    """Called with the weights, then the coordinates if `planar`, then one seed per instance if `randomised`."""
    completions: Completions | None = None
    """What it would do at any state, where that is defined."""
    planar: bool = False
    """Looks at the coordinates of the cities."""
    randomised: bool = False
    """Draws random numbers."""
    symmetric_only: bool = False
    """Refuses asymmetric weights."""
    exact: bool = False
    """Its tours are optimal."""
    walking: bool = False
    """Names the cities in the order of the visit, so that the direction of its tours carries meaning."""

    def __call__(
        self,
        weights: Int32[np.ndarray, "batch n n"],
        coordinates: Real[np.ndarray, "batch n 2"] | None = None,
        seed: int = 0,
    ) -> Int64[np.ndarray, "batch n"]:
        """Tours from city 0. The tour of an instance depends on it and the seed, not on the rest of the batch.

        Raises UserError for weights that are no batch of square matrices of whole numbers >= 0 with n >= 2.

        >>> ALGORITHMS["savings"](np.array([[[0, 5, 1], [5, 0, 2], [1, 2, 0]]], dtype=np.int32))
        array([[0, 1, 2]])
        """
        arguments = [weights := checked_weights(weights)]
        if self.planar:
            if coordinates is None:
                raise UserError(f"{self.name} needs the coordinates of the cities, which these instances do not have")
            arguments.append(coordinates)
        if self.randomised:
            arguments.append(instance_seeds(weights, seed))
        return self.rule(*arguments)

    def applies_to(self, problem: Problem) -> bool:
        """Whether it takes the instances of a problem."""
        return (problem.planar or not self.planar) and (problem.symmetric or not self.symmetric_only)


ALGORITHMS: Registry[Algorithm] = Registry("algorithm")

HEUR_V1 = (
    "nearest_neighbour",
    "greedy_edge",
    "cheapest_insertion",
    "farthest_insertion",
    "savings",
    "mst_preorder",
)
"""What "heuristic" means in every filter: rules of degree <= 2, each with completions. `mst_preorder` drops out on
asymmetric problems."""


_SUFFIXES: dict[str, Rule] = {"": "best", "_first": "first"}


def _descend(weights: np.ndarray, neighbourhood: Neighbourhood, rule: Rule) -> np.ndarray:
    return local_search(weights, constructive.nearest_neighbour(weights), neighbourhood, rule)


def _anneal(weights: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    return anneal(weights, constructive.nearest_neighbour(weights), seeds)


def _beam(width: int) -> Algorithm:
    """Beam search that judges a prefix by its cost plus the spanning-tree bound on the rest."""
    tours, completions = (partial(search, width=width, bound="mst") for search in (beam_tours, beam_completions))
    return Algorithm(f"beam_{width}", 3, tours, completions, walking=True)


def _fixed_horizons() -> list[Algorithm]:
    """Rules that judge a few arcs without completing the tour (`fixed_horizon.py`); none of them is exact, not even the
    dynamic programs, whose walks may come back to a city."""
    rules: dict[str, tuple[int, Callable[..., np.ndarray], Callable[..., np.ndarray], dict[str, int]]] = {
        "horizon_2": (3, horizon_tours, horizon_completions, {"arcs": 2}),
        "horizon_3": (3, horizon_tours, horizon_completions, {"arcs": 3}),
        "horizon_beam_4": (3, horizon_beam_tours, horizon_beam_completions, {"width": 4, "arcs": 4}),
        "walk_values_4": (5, walk_tours, walk_completions, {"iterations": 4}),
        "walk_values_3_no_two_cycles": (5, walk_tours, walk_completions, {"iterations": 3, "two_cycles": False}),
    }
    return [
        Algorithm(name, degree, partial(tours, **sizes), partial(completions, **sizes), walking=True)
        for name, (degree, tours, completions, sizes) in rules.items()
    ]


def _members() -> list[Algorithm]:
    c = constructive
    return [
        Algorithm("nearest_neighbour", 1, c.nearest_neighbour, c.nearest_neighbour_completions, walking=True),
        Algorithm("randomised_nearest_neighbour", 1, c.randomised_nearest_neighbour, randomised=True, walking=True),
        Algorithm("farthest_neighbour", 1, c.farthest_neighbour, c.farthest_neighbour_completions, walking=True),
        Algorithm("remotest_neighbour", 1, c.remotest_neighbour, c.remotest_neighbour_completions, walking=True),
        Algorithm("radial_order", 1, c.radial_order, c.radial_order_completions, walking=True),
        Algorithm("penalty_neighbour", 2, c.penalty_neighbour, c.penalty_neighbour_completions, walking=True),
        Algorithm("sequential_savings", 1, c.sequential_savings, c.sequential_savings_completions, walking=True),
        Algorithm("gated_neighbour", 2, c.gated_neighbour, c.gated_neighbour_completions, walking=True),
        Algorithm("greedy_edge", 2, c.greedy_edge, c.greedy_edge_completions),
        Algorithm("cheapest_insertion", 2, c.cheapest_insertion, c.cheapest_insertion_completions),
        Algorithm("nearest_insertion", 2, c.nearest_insertion, c.nearest_insertion_completions),
        Algorithm("farthest_insertion", 2, c.farthest_insertion, c.farthest_insertion_completions),
        Algorithm("random_insertion", 2, c.random_insertion, randomised=True),
        Algorithm("savings", 2, c.savings, c.savings_completions),
        Algorithm("mst_preorder", 2, c.mst_preorder, c.mst_preorder_completions, symmetric_only=True, walking=True),
        Algorithm("hull_insertion", 2, c.hull_insertion, planar=True),
        Algorithm("sweep", 2, lambda _, points: c.sweep(points), planar=True, walking=True),
        Algorithm("space_filling_curve", 2, lambda _, points: c.space_filling_curve(points), planar=True, walking=True),
        *[
            Algorithm(
                f"lookahead_{depth}",
                3,
                partial(lookahead_tours, depth=depth),
                partial(lookahead_completions, depth=depth),
                walking=True,
            )
            for depth in (2, 3)
        ],
        *[_beam(width) for width in (4, 16)],
        *_fixed_horizons(),
        *[
            Algorithm(f"{name}{suffix}", 4, partial(_descend, neighbourhood=neighbourhood, rule=rule))
            for name, neighbourhood in NEIGHBOURHOODS.items()
            for suffix, rule in _SUFFIXES.items()
        ],
        Algorithm("annealing", 4, _anneal, randomised=True),
        Algorithm("routing", 4, routing),
        Algorithm("held_karp", 5, lambda weights: held_karp(weights).tours, exact=True),
        Algorithm("branch_and_bound", 5, lambda weights: branch_and_bound(weights).tours, exact=True),
        Algorithm(
            "reduced_cost_search",
            5,
            lambda weights: reduced_cost_search(weights).tours,
            symmetric_only=True,
            exact=True,
        ),
    ]


for _member in _members():
    ALGORITHMS.add(_member.name, _member)
