"""Depth-k look-ahead: enumerate k steps, complete each by nearest neighbour, keep the best (method.md section 2)."""

import numba
import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.weights import checked_weights

UNREACHABLE = np.iinfo(np.int64).max
"""Value of a city that is already visited."""


def lookahead_values(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"], depth: int
) -> Int64[np.ndarray, "batch decision n"]:
    """For every decision along the tours and every free city a: cost of the best route back to city 0 that goes
    to a first, enumerates `depth` >= 1 cities in all (a among them) and finishes by nearest neighbour.

    With depth 1 each city is judged by its nearest-neighbour completion; with depth n - 1 the value is Q*.
    Visited cities get `UNREACHABLE`.
    """
    _check_depth(depth)
    batch, n = tours.shape
    values = np.full((batch, n - 1, n), UNREACHABLE, dtype=np.int64)
    _values_along(np.ascontiguousarray(weights, dtype=np.int32), np.ascontiguousarray(tours), depth, values)
    return values


def lookahead_tours(weights: Int32[np.ndarray, "batch n n"], depth: int) -> Int64[np.ndarray, "batch n"]:
    """Tours from city 0 that look `depth` >= 1 cities ahead before every step.

    At every step the city with the least look-ahead value is taken (the lowest index among equals), and the
    values are computed anew from there. A tour never costs more than the least value at its first step, which
    in turn never exceeds the cost of the nearest-neighbour tour.

    >>> weights = np.array([[[0, 1, 2, 9], [1, 0, 2, 9], [2, 2, 0, 1], [9, 9, 1, 0]]], dtype=np.int32)
    >>> lookahead_tours(weights, 1), lookahead_tours(weights, 3)
    (array([[0, 1, 2, 3]]), array([[0, 1, 2, 3]]))
    """
    return lookahead_completions(weights, *city_zero(weights), depth)


def lookahead_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    depth: int,
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then go on as `lookahead_tours` does."""
    _check_depth(depth)
    weights = checked_weights(weights)
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    _build(weights, tours, lengths, depth)
    return tours


def _check_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")


@numba.njit(cache=True, nogil=True)
def nearest_completion_cost(weights, current, free):  # type: ignore[no-untyped-def]
    """Cost of the nearest-neighbour walk from `current` through `free` and back to city 0; empties `free`."""
    n, total = weights.shape[0], np.int64(0)
    while True:
        best = -1
        for city in range(n):
            if free[city] and (best < 0 or weights[current, city] < weights[current, best]):
                best = city
        if best < 0:
            return total + weights[current, 0]
        total += weights[current, best]
        free[best] = False
        current = best


@numba.njit(cache=True, nogil=True)
def _value(weights, city, free, depth):  # type: ignore[no-untyped-def]
    """Best cost from `city` on (itself no longer free), enumerating `depth` more steps."""
    left = free.sum()
    if depth == 0 or left == 0:
        return nearest_completion_cost(weights, city, free.copy())
    best = UNREACHABLE
    for following in range(weights.shape[0]):
        if free[following]:
            free[following] = False
            best = min(best, weights[city, following] + _value(weights, following, free, depth - 1))
            free[following] = True
    return best


@numba.njit(cache=True, nogil=True)
def _values_at(weights, current, free, depth, values):  # type: ignore[no-untyped-def]
    """Write the value of each free city at the state at `current`; return the city with the least."""
    best = -1
    for city in range(len(free)):
        if free[city]:
            free[city] = False
            values[city] = weights[current, city] + _value(weights, city, free, depth - 1)
            free[city] = True
            if best < 0 or values[city] < values[best]:
                best = city
    return best


@numba.njit(cache=True, nogil=True)
def _values_along(weights, tours, depth, values):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    for b in range(batch):
        free = np.ones(n, dtype=np.bool_)
        for t in range(n - 1):
            free[tours[b, t]] = False
            _values_at(weights[b], tours[b, t], free, depth, values[b, t])


@numba.njit(cache=True, nogil=True)
def _build(weights, tours, lengths, depth):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    values = np.empty(n, dtype=np.int64)
    for b in range(batch):
        free = np.ones(n, dtype=np.bool_)
        for t in range(n):
            if t >= lengths[b]:
                tours[b, t] = _values_at(weights[b], tours[b, t - 1], free, depth, values)
            free[tours[b, t]] = False
