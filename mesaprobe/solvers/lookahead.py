"""Depth-k look-ahead: enumerate k steps, complete each by nearest neighbour, keep the best (method.md section 2)."""

import numba
import numpy as np
from jaxtyping import Int32, Int64

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
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    batch, n = tours.shape
    values = np.full((batch, n - 1, n), UNREACHABLE, dtype=np.int64)
    _values_along(np.ascontiguousarray(weights, dtype=np.int32), np.ascontiguousarray(tours), depth, values)
    return values


@numba.njit(cache=True, nogil=True)
def _nearest_completion(weights, current, free):  # type: ignore[no-untyped-def]
    """Cost of the nearest-neighbour walk from `current` through `free` and back to city 0."""
    n, total = weights.shape[0], 0
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
        return _nearest_completion(weights, city, free.copy())
    best = UNREACHABLE
    for following in range(weights.shape[0]):
        if free[following]:
            free[following] = False
            best = min(best, weights[city, following] + _value(weights, following, free, depth - 1))
            free[following] = True
    return best


@numba.njit(cache=True, nogil=True)
def _values_along(weights, tours, depth, values):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    for b in range(batch):
        free = np.ones(n, dtype=np.bool_)
        for t in range(n - 1):
            current = tours[b, t]
            free[current] = False
            for city in range(n):
                if free[city]:
                    free[city] = False
                    onward = _value(weights[b], city, free, depth - 1)
                    values[b, t, city] = weights[b, current, city] + onward
                    free[city] = True
