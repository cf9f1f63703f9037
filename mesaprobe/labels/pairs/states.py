"""The decision states that the members of a pair share: what is far from them, and how decided they are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, Real

from mesaprobe.problems import Instances
from mesaprobe.solvers.exact.held_karp import optimal_rollouts

RANK_CLASSES = 3
"""Entries fall into the shortest, the middle and the longest third of their instance."""


class StateOptimum(NamedTuple):
    """The best next cities at one state per instance, and how much better they are than the others."""

    optimal: Bool[np.ndarray, "batch n"]
    margins: Float64[np.ndarray, " batch"]
    """(Q* of the best city outside the optimal set - V*) / cost of the best tour that keeps the prefix;
    infinite where every free city is optimal."""


class States(NamedTuple):
    """One decision state per instance, with what the miner asks of it."""

    instances: Instances
    prefixes: Int64[np.ndarray, "batch n"]
    """The path so far: the first `lengths[b]` cities count, zeros follow."""
    lengths: Int64[np.ndarray, " batch"]
    far: Bool[np.ndarray, "batch n"]
    """The cities that edits may touch (see `far_cities`)."""
    optimum: StateOptimum

    def pick(self, index: np.ndarray) -> "States":
        """The selected states, in the order of an index array or mask."""
        optimum = StateOptimum(self.optimum.optimal[index], self.optimum.margins[index])
        return States(self.instances[index], self.prefixes[index], self.lengths[index], self.far[index], optimum)

    def optimum_on(self, weights: Int32[np.ndarray, "batch n n"]) -> StateOptimum:
        """The optimum after the same prefixes on other weights."""
        return state_optimum(weights, self.prefixes, self.lengths)


def state_optimum(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> StateOptimum:
    """Exact optimum after the first `lengths[b]` >= 1 cities of each prefix, by dynamic programming."""
    rollouts = optimal_rollouts(weights, prefixes, lengths, np.zeros(prefixes.shape))
    values = rollouts.action_values[np.arange(len(weights)), lengths - 1]
    return optimum_of(values, prefix_costs(weights, prefixes, lengths))


def optimum_of(values: Float64[np.ndarray, "batch n"], spent: Int64[np.ndarray, " batch"]) -> StateOptimum:
    """The optimum at states with Q* `values` (infinite for visited cities), after prefixes of cost `spent`.

    >>> optimum_of(np.array([[np.inf, 30.0, 20.0, 20.0]]), np.array([80])).margins
    array([0.1])
    """
    best = values.min(axis=1)
    optimal = values == best[:, None]
    others = np.where(optimal, np.inf, values).min(axis=1)
    return StateOptimum(optimal, (others - best) / (spent + best))


def prefix_costs(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, " batch"]:
    """Cost of the path through the first `lengths[b]` cities of each prefix."""
    steps = weights[np.arange(len(weights))[:, None], prefixes[:, :-1], prefixes[:, 1:]]
    inside = np.arange(1, prefixes.shape[1]) < lengths[:, None]
    return np.where(inside, steps, 0).sum(axis=1, dtype=np.int64)


def free_cities(
    prefixes: Int64[np.ndarray, "batch n"], lengths: Int64[np.ndarray, " batch"]
) -> Bool[np.ndarray, "batch n"]:
    """Which cities are not among the first `lengths[b]` of each prefix."""
    n = prefixes.shape[1]
    inside = np.arange(n) < lengths[:, None]
    return ~((prefixes[:, :, None] == np.arange(n)) & inside[:, :, None]).any(axis=1)


def far_cities(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    protected: int,
) -> Bool[np.ndarray, "batch n"]:
    """The free cities farther from the current city than its `protected` >= 1 nearest free ones.

    All cities at the distance of the last protected one are protected too, so that no tie is broken by index.
    """
    free = free_cities(prefixes, lengths)
    distances = np.where(free, distances_from_current(weights, prefixes, lengths), np.iinfo(np.int32).max)
    reach = np.sort(distances, axis=1)[:, protected - 1, None]
    return free & (distances > reach)


def distances_from_current(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int32[np.ndarray, "batch n"]:
    """Weight from the last city of each prefix to every city."""
    rows = np.arange(len(weights))
    return weights[rows, prefixes[rows, lengths - 1]]


def rank_classes(
    weights: Int32[np.ndarray, "batch n n"], values: Real[np.ndarray, "batch k"]
) -> Int64[np.ndarray, "batch k"]:
    """Into which third of the off-diagonal entries of its instance each value falls: 0 short, 1 middle, 2 long.

    Class floor(3 r) for a value above the fraction r of the entries (2 if it is above all of them).

    >>> rank_classes(np.array([[[0, 1, 2], [1, 0, 3], [2, 3, 0]]]), np.array([[1, 2, 3, 4]]))
    array([[0, 1, 2, 2]])
    """
    n = weights.shape[1]
    entries = weights[:, ~np.eye(n, dtype=np.bool_)]
    below = (entries[:, None, :] < values[:, :, None]).sum(axis=2)
    return np.minimum(RANK_CLASSES * below // entries.shape[1], RANK_CLASSES - 1)
