"""Walking rules besides nearest neighbour: each step goes to the free city with the least key, a number per arc."""

import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.solvers.constructive.nearest import walk_by_keys
from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.weights import checked_weights


def farthest_neighbour(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """From city 0, always go to the farthest unvisited city (the lowest index among equals).

    >>> farthest_neighbour(np.array([[[0, 5, 1], [5, 0, 2], [1, 2, 0]]], dtype=np.int32))
    array([[0, 1, 2]])
    """
    return farthest_neighbour_completions(weights, *city_zero(weights))


def farthest_neighbour_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then go on to the farthest unvisited city."""
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    walk_by_keys(-checked_weights(weights).astype(np.int64), tours, lengths)
    return tours


def remotest_neighbour(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """From city 0, always go to the city whose arc is shortest compared with its mean arc to the other cities:
    the least w[c, a] - mean_b w[a, b], so that cities far from all others are taken when they are close by.

    >>> remotest_neighbour(np.array([[[0, 5, 4], [5, 0, 9], [4, 9, 0]]], dtype=np.int32))
    array([[0, 2, 1]])
    """
    return remotest_neighbour_completions(weights, *city_zero(weights))


def remotest_neighbour_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then go on as `remotest_neighbour` does."""
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    wide = checked_weights(weights).astype(np.int64)
    means = wide.sum(axis=2)  # times n - 1; the diagonal is 0
    walk_by_keys((wide.shape[1] - 1) * wide - means[:, None, :], tours, lengths)
    return tours
