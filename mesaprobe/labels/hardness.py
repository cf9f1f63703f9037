"""Which instances are hard: the filter "greedy fails"."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from mesaprobe.errors import UserError
from mesaprobe.problems import Instances, Problem
from mesaprobe.solvers.constructive import greedy_edge, nearest_neighbour
from mesaprobe.solvers.exact.held_karp import held_karp

MAX_DRAWS_PER_INSTANCE = 10_000
"""Rejection sampling gives up below this acceptance rate (one in ten thousand)."""


@dataclass(frozen=True)
class GreedyFails:
    """Both greedy rules miss the optimum by more than a threshold.

    The filter says that two simple heuristics failed, no more: see DESIGN section 2 for tiers and d*.
    """

    nearest_gap: float = 0.10
    """Nearest neighbour must be more than this fraction above the optimum."""
    greedy_edge_gap: float = 0.05
    """Greedy edge must be more than this fraction above the optimum."""

    def __call__(self, instances: Instances) -> Bool[np.ndarray, " batch"]:
        """Which of the instances pass."""
        optimum = held_karp(instances.weights).costs
        nearest = optimality_gaps(instances, nearest_neighbour(instances.weights), optimum)
        edge = optimality_gaps(instances, greedy_edge(instances.weights), optimum)
        return (nearest > self.nearest_gap) & (edge > self.greedy_edge_gap)


@dataclass(frozen=True, eq=False)
class FilteredDraw:
    """Instances that passed a filter, and how many had to be drawn for them."""

    instances: Instances
    accepted: int
    """How many of the drawn instances passed (at least as many as are returned)."""
    drawn: int

    @property
    def acceptance_rate(self) -> float:
        """Share of drawn instances that passed."""
        return self.accepted / self.drawn


def optimality_gaps(
    instances: Instances, tours: Int64[np.ndarray, "batch n"], optimum: Int64[np.ndarray, " batch"]
) -> np.ndarray:
    """Tour cost / optimal cost - 1, as a fraction, one per instance."""
    return instances.tour_costs(tours) / optimum - 1.0


def draw_filtered(
    problem: Problem, count: int, rng: np.random.Generator, keep: Callable[[Instances], np.ndarray]
) -> FilteredDraw:
    """Draw instances until `count` of them satisfy `keep` (rejection sampling).

    Raises UserError when almost nothing passes, e.g. thresholds that no instance can reach.
    """
    parts: list[Instances] = []
    accepted = drawn = 0
    while accepted < count:
        candidates = problem.draw(max(count, 64), rng)
        passing = candidates[keep(candidates)]
        parts.append(passing)
        accepted += len(passing)
        drawn += len(candidates)
        if drawn > MAX_DRAWS_PER_INSTANCE * max(accepted, 1):
            raise UserError(
                f"the instance filter accepts almost nothing ({accepted} of {drawn} drawn {problem.family} "
                f"instances with n = {problem.n}); lower its thresholds"
            )
    return FilteredDraw(Instances.concatenate(parts)[:count], accepted, drawn)
