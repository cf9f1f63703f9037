"""The k cheapest distinct tours, or completions of a prefix, exactly.

Depth-first enumeration with a perfect bound: the table of Held and Karp's dynamic program knows the best completion
of every prefix, so no prefix is followed that does not lead to a tour among the best k met so far.
"""

from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.exact.held_karp import MAX_CITIES
from mesaprobe.solvers.exact.held_karp import _fill as fill_table
from mesaprobe.solvers.exact.held_karp import _workspace as make_table
from mesaprobe.solvers.weights import checked_weights

_UNREACHED = np.iinfo(np.int64).max


class BestTours(NamedTuple):
    """The k best tours of each instance in ascending order of cost."""

    tours: Int64[np.ndarray, "batch k n"]
    costs: Int64[np.ndarray, "batch k"]


def k_best_tours(weights: Int32[np.ndarray, "batch n n"], k: int) -> BestTours:
    """The k cheapest tours of each instance; n <= 20.

    On symmetric instances the two directions of a tour are one tour, given with `tour[1] < tour[-1]`. Which tours
    of equal cost are given follows from the enumeration. Raises UserError if there are fewer than k tours.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> k_best_tours(square, 2)
    BestTours(tours=array([[[0, 1, 2, 3],
            [0, 1, 3, 2]]]), costs=array([[4, 6]]))
    """
    return k_best_completions(weights, *city_zero(weights), k)


def k_best_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    k: int,
) -> BestTours:
    """The k cheapest tours that begin with the first `lengths[b]` >= 1 cities of each prefix; costs of whole tours.

    A prefix of at least two cities fixes the direction, so all its completions are distinct undirected tours; with
    one city this is `k_best_tours`.
    """
    weights = checked_weights(weights)
    batch, n = weights.shape[:2]
    if n > MAX_CITIES:
        raise UserError(f"the k best tours are found for at most {MAX_CITIES} cities, got {n}")
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    prefixes, lengths = checked_prefixes(weights, prefixes, lengths)
    tours = np.repeat(prefixes[:, None], k, axis=1)
    costs = np.full((batch, k), _UNREACHED, dtype=np.int64)
    _enumerate_all(weights, lengths, tours, costs, *make_table(weights))
    short = np.flatnonzero(costs[:, -1] == _UNREACHED)
    if len(short):
        there = int((costs[short[0]] < _UNREACHED).sum())
        raise UserError(f"instance {short[0]} has {there} such tours, fewer than the {k} asked for")
    return BestTours(tours, costs)


@numba.njit(cache=True, nogil=True)
def _enumerate_all(weights, lengths, tours, costs, table, into, width):  # type: ignore[no-untyped-def]
    n = weights.shape[1]
    values = np.empty((n + 1, n), dtype=np.int64)
    tried = np.empty((n + 1, n), dtype=np.bool_)
    for b in range(len(weights)):
        fill_table(weights[b], table, into, width)
        undirected = lengths[b] == 1 and n > 2 and np.array_equal(weights[b], weights[b].T)
        _enumerate(weights[b], lengths[b], undirected, tours[b], costs[b], table, width, values, tried)


@numba.njit(cache=True, nogil=True)
def _enumerate(weights, start, undirected, tours, costs, table, width, values, tried):  # type: ignore[no-untyped-def]
    """Visit prefixes depth first, the one with the best completion first; keep the best tours sorted in place.

    `values[d]` holds, for every next city after d cities, the cost of the best whole tour that goes there.
    """
    n = len(weights)
    prefix = tours[0].copy()
    free, spent = (1 << (n - 1)) - 1, np.zeros(n, dtype=np.int64)
    for t in range(1, start):
        spent[t] = spent[t - 1] + weights[prefix[t - 1], prefix[t]]
        free ^= 1 << (prefix[t] - 1)
    depth = start
    _value_children(weights, prefix, depth, free, spent, table, width, values, tried)
    while depth >= start:
        if depth == n:
            if not (undirected and prefix[1] > prefix[n - 1]):
                _insert(prefix, spent[n - 1] + weights[prefix[n - 1], 0], tours, costs)
            best = -1
        else:
            best = _best_untried(values[depth], tried[depth], costs[-1])
        if best < 0:
            depth -= 1
            if depth >= start:
                free ^= 1 << (prefix[depth] - 1)
            continue
        tried[depth, best] = True
        prefix[depth] = best
        spent[depth] = spent[depth - 1] + weights[prefix[depth - 1], best]
        free ^= 1 << (best - 1)
        depth += 1
        if depth < n:
            _value_children(weights, prefix, depth, free, spent, table, width, values, tried)


@numba.njit(cache=True, nogil=True)
def _value_children(weights, prefix, depth, free, spent, table, width, values, tried):  # type: ignore[no-untyped-def]
    current = prefix[depth - 1]
    for city in range(len(weights)):
        inside = city > 0 and free >> (city - 1) & 1 == 1
        tried[depth, city] = not inside
        if inside:
            onward = np.int64(table[(free ^ (1 << (city - 1))) * width + city - 1])
            values[depth, city] = spent[depth - 1] + weights[current, city] + onward


@numba.njit(cache=True, nogil=True)
def _best_untried(values, tried, limit):  # type: ignore[no-untyped-def]
    """The untried city with the least value below `limit`, or -1."""
    best = -1
    for city in range(len(values)):
        if not tried[city] and values[city] < limit and (best < 0 or values[city] < values[best]):
            best = city
    return best


@numba.njit(cache=True, nogil=True)
def _insert(tour, cost, tours, costs):  # type: ignore[no-untyped-def]
    """Put the tour in its place among the best ones; the worst drops out."""
    place = len(costs)
    while place > 0 and costs[place - 1] > cost:
        place -= 1
    if place == len(costs):
        return
    for i in range(len(costs) - 1, place, -1):
        costs[i], tours[i] = costs[i - 1], tours[i - 1]
    costs[place], tours[place] = cost, tour
