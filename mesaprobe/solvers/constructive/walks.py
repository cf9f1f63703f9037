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


def sequential_savings(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Clarke and Wright's savings, one route at a time: from the current city c always go to the unvisited city a
    with the largest saving w[c, 0] + w[0, a] - w[c, a] against two trips from city 0 (the lowest index among
    equals, so that the first step is to city 1 whatever the weights).

    >>> sequential_savings(np.array([[[0, 5, 4], [5, 0, 9], [4, 9, 0]]], dtype=np.int32))
    array([[0, 1, 2]])
    """
    return sequential_savings_completions(weights, *city_zero(weights))


def sequential_savings_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then go on as `sequential_savings` does."""
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    wide = checked_weights(weights).astype(np.int64)
    keys = wide - wide[:, None, 0, :]
    keys[:, 0] = 0  # from city 0 every saving is 0
    walk_by_keys(keys, tours, lengths)
    return tours


def penalty_neighbour(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """From city 0, always go to the city that it would cost most to leave out now: the unvisited a with the largest
    min_b w[a, b] - w[c, a], b the other unvisited cities (or city 0 behind the last), after the penalties of
    Vogel's method (Reinfeld and Vogel 1958). The lowest index among equals.

    >>> penalty_neighbour(np.array([[[0, 3, 2, 4], [3, 0, 9, 2], [2, 9, 0, 8], [4, 2, 8, 0]]], dtype=np.int32))
    array([[0, 2, 3, 1]])
    """
    return penalty_neighbour_completions(weights, *city_zero(weights))


def penalty_neighbour_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then go on as `penalty_neighbour` does."""
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    wide = checked_weights(weights).astype(np.int64)
    (batch, n), rows = tours.shape, np.arange(len(tours))
    never = np.int64(2**40)
    free = np.ones((batch, n), dtype=bool)
    for step in range(n):
        if step > 0:
            others = free[:, None, :] & ~np.eye(n, dtype=bool)
            alternative = np.where(others, wide, never).min(axis=2)
            alternative = np.where(alternative == never, wide[:, :, 0], alternative)
            keys = np.where(free, wide[rows, tours[:, step - 1]] - alternative, never)
            tours[:, step] = np.where(step < lengths, tours[:, step], keys.argmin(axis=1))
        free[rows, tours[:, step]] = False
    return tours


def radial_order(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Cities in the order of their distance from city 0 (the lowest index among equals).

    >>> radial_order(np.array([[[0, 5, 1], [5, 0, 2], [1, 2, 0]]], dtype=np.int32))
    array([[0, 2, 1]])
    """
    return radial_order_completions(weights, *city_zero(weights))


def radial_order_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then take the others as `radial_order` does."""
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    wide = checked_weights(weights).astype(np.int64)
    walk_by_keys(np.repeat(wide[:, :1], wide.shape[1], axis=1), tours, lengths)
    return tours
