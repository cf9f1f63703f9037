"""Nearest neighbour, and its randomised form."""

import numba
import numpy as np
from jaxtyping import Int32, Int64, UInt64

from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.random_streams import next_uniform
from mesaprobe.solvers.weights import checked_weights


def nearest_neighbour(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """From city 0, always go to the nearest unvisited city (the lowest index among equals).

    >>> nearest_neighbour(np.array([[[0, 5, 1], [5, 0, 2], [1, 2, 0]]], dtype=np.int32))
    array([[0, 2, 1]])
    """
    return nearest_neighbour_completions(weights, *city_zero(weights))


def nearest_neighbour_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then go on to the nearest unvisited city."""
    weights = checked_weights(weights)
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    walk_by_keys(weights, tours, lengths)
    return tours


def randomised_nearest_neighbour(
    weights: Int32[np.ndarray, "batch n n"], seeds: UInt64[np.ndarray, " batch"], k: int = 2
) -> Int64[np.ndarray, "batch n"]:
    """From city 0, always go to one of the k nearest unvisited cities, each with equal probability.

    Equal distances are ranked by index; fewer than k cities at the end are all candidates. With k = 1 this is
    `nearest_neighbour`, with k >= n - 1 a random tour. `seeds` holds one seed per instance.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    weights = checked_weights(weights)
    tours = np.zeros(weights.shape[:2], dtype=np.int64)
    _random_nearest(weights, np.asarray(seeds, dtype=np.uint64), k, tours)
    return tours


@numba.njit(cache=True, nogil=True)
def walk_by_keys(keys, tours, lengths):  # type: ignore[no-untyped-def]
    """Complete each tour in place: from the current city to the free one with the least key, the lowest index first."""
    batch, n = tours.shape
    free = np.empty(n, dtype=np.bool_)
    for b in range(batch):
        free[:] = True
        for t in range(lengths[b]):
            free[tours[b, t]] = False
        for t in range(lengths[b], n):
            current, best = tours[b, t - 1], -1
            for city in range(n):
                if free[city] and (best < 0 or keys[b, current, city] < keys[b, current, best]):
                    best = city
            tours[b, t] = best
            free[best] = False


@numba.njit(cache=True, nogil=True)
def _random_nearest(weights, seeds, k, tours):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    free = np.empty(n, dtype=np.bool_)
    ranked = np.empty(n, dtype=np.int64)
    for b in range(batch):
        state = seeds[b]
        free[:] = True
        free[0] = False
        for t in range(1, n):
            current, count = tours[b, t - 1], 0
            for city in range(n):
                if free[city]:
                    place = count
                    while place > 0 and weights[b, current, city] < weights[b, current, ranked[place - 1]]:
                        ranked[place] = ranked[place - 1]
                        place -= 1
                    ranked[place] = city
                    count += 1
            state, uniform = next_uniform(state)
            tours[b, t] = ranked[int(uniform * min(k, count))]
            free[tours[b, t]] = False
