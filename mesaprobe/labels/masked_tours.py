"""The best way to fill in a tour of which some cities are masked: exact, by dynamic programming over free cities.

What a network is asked that edits tours (method.md section 8, arms A1 and A2): some positions of a tour are known,
the others free. The cheapest of all tours that agree with what is known are the right answers, and where several are
equally cheap each counts the same. Known cities need not lie on an optimal tour, so every tour can be asked about.
"""

import numba
import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from mesaprobe.solvers.weights import checked_weights

_NEVER = np.int64(2**60)


def cheapest_fillings(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    masked: Bool[np.ndarray, "batch n"],
) -> Float32[np.ndarray, "batch n n"]:
    """For every masked position (row) the share of the cheapest agreeing tours that have each city there.

    Rows of known positions are zero. Position 0 holds city 0 and is never masked (ValueError). With nothing known
    but city 0 this is the distribution over optimal tours, each direction of a symmetric problem counted.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> cheapest_fillings(square, np.array([[0, 2, 1, 3]]), np.array([[False, True, True, True]]))[0, 1:]
    array([[0. , 0.5, 0. , 0.5],
           [0. , 0. , 1. , 0. ],
           [0. , 0.5, 0. , 0.5]], dtype=float32)
    """
    weights, tours = checked_weights(weights), np.ascontiguousarray(tours, dtype=np.int64)
    masked = np.ascontiguousarray(masked, dtype=np.bool_)
    if masked[:, 0].any():
        raise ValueError("position 0 of a tour holds city 0 and cannot be masked")
    shares = np.zeros((*tours.shape, tours.shape[1]), dtype=np.float32)
    free = tours.shape[1] - 1
    table = np.empty((1 << free, free), dtype=np.int64)
    _fill_batch(weights, tours, masked, table, table.copy(), np.empty(table.shape), shares)
    return shares


@numba.njit(cache=True, nogil=True)
def _fill_batch(weights, tours, masked, costs, counts, mass, shares):  # type: ignore[no-untyped-def]
    for b in range(len(tours)):
        slots = np.flatnonzero(masked[b])
        if len(slots) == 0:
            continue
        cities = tours[b][slots]
        _cheapest_rest(weights[b], tours[b], slots, cities, costs, counts)
        _share_out(weights[b], tours[b], slots, cities, costs, counts, mass, shares[b])


@numba.njit(cache=True, nogil=True)
def _passage(weights, tour, before, slot, a, b):  # type: ignore[no-untyped-def]
    """Cost from city a at position `before` to city b at position `slot`, through the known cities between (slot n is
    city 0 again)."""
    cost = np.int64(0)
    here = a
    for position in range(before + 1, slot):
        cost += weights[here, tour[position]]
        here = tour[position]
    return cost + weights[here, b]


@numba.njit(cache=True, nogil=True)
def _cheapest_rest(weights, tour, slots, cities, costs, counts):  # type: ignore[no-untyped-def]
    """costs[S, j]: least cost from free city j home, when the set S of free cities, j among them, stands in the first
    |S| slots; counts[S, j]: how many ways reach it."""
    k, n = len(slots), len(tour)
    everything = (1 << k) - 1
    for used in range(everything, 0, -1):
        depth = 0
        for i in range(k):
            depth += used >> i & 1
        for j in range(k):
            if used >> j & 1 == 0:
                continue
            if used == everything:
                costs[used, j] = _passage(weights, tour, slots[k - 1], n, cities[j], 0)
                counts[used, j] = 1
                continue
            best, ways = _NEVER, np.int64(0)
            for i in range(k):
                if used >> i & 1 == 0:
                    arc = _passage(weights, tour, slots[depth - 1], slots[depth], cities[j], cities[i])
                    value = arc + costs[used | 1 << i, i]
                    if value < best:
                        best, ways = value, counts[used | 1 << i, i]
                    elif value == best:
                        ways += counts[used | 1 << i, i]
            costs[used, j], counts[used, j] = best, ways


@numba.njit(cache=True, nogil=True)
def _share_out(weights, tour, slots, cities, costs, counts, mass, shares):  # type: ignore[no-untyped-def]
    """mass[S, j]: share of the cheapest fillings that go through that state; added up by slot and city."""
    k = len(slots)
    everything = (1 << k) - 1
    mass[: everything + 1, :k] = 0.0
    start, least, ways = slots[0] - 1, _NEVER, np.int64(0)
    for j in range(k):
        value = _passage(weights, tour, start, slots[0], tour[start], cities[j]) + costs[1 << j, j]
        if value < least:
            least, ways = value, counts[1 << j, j]
        elif value == least:
            ways += counts[1 << j, j]
    for j in range(k):
        value = _passage(weights, tour, start, slots[0], tour[start], cities[j]) + costs[1 << j, j]
        if value == least:
            mass[1 << j, j] = counts[1 << j, j] / ways
    for used in range(1, everything + 1):
        depth = 0
        for i in range(k):
            depth += used >> i & 1
        for j in range(k):
            if used >> j & 1 == 0 or mass[used, j] == 0.0:
                continue
            shares[slots[depth - 1], cities[j]] += mass[used, j]
            for i in range(k):
                if used >> i & 1 == 0:
                    arc = _passage(weights, tour, slots[depth - 1], slots[depth], cities[j], cities[i])
                    if arc + costs[used | 1 << i, i] == costs[used, j]:
                        mass[used | 1 << i, i] += mass[used, j] * counts[used | 1 << i, i] / counts[used, j]
