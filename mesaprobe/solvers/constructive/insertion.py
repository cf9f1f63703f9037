"""Insertion rules: grow a closed tour by one city at a time (Rosenkrantz, Stearns and Lewis 1977).

All start from city 0 alone and insert the chosen city where the tour grows least. They differ in which city
comes next. Asymmetric weights are allowed: growth is that of the directed tour, and the distance from the tour
to a city is the smallest weight of an arc from a city of the tour to it. Among equals the lowest city is taken,
and the place behind the lowest city. On symmetric weights the direction of the result carries no meaning.

At a state, the prefix is part of the tour: the rule starts from the closed tour through the cities of the prefix,
never inserts between two consecutive ones, and so only on the way from the current city back to city 0.
"""

import numba
import numpy as np
from jaxtyping import Int32, Int64, UInt64

from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.random_streams import next_uniform
from mesaprobe.solvers.weights import checked_weights

_CHEAPEST, _NEAREST, _FARTHEST, _RANDOM = range(4)


def cheapest_insertion(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Next comes the city whose best insertion makes the tour grow least.

    >>> cheapest_insertion(np.array([[[0, 5, 1, 4], [5, 0, 2, 3], [1, 2, 0, 9], [4, 3, 9, 0]]], dtype=np.int32))
    array([[0, 3, 1, 2]])
    """
    return _completions(weights, *city_zero(weights), _CHEAPEST)


def nearest_insertion(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Next comes the city nearest to the tour."""
    return _completions(weights, *city_zero(weights), _NEAREST)


def farthest_insertion(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Next comes the city farthest from the tour, i.e. from the city of the tour that is nearest to it."""
    return _completions(weights, *city_zero(weights), _FARTHEST)


def random_insertion(
    weights: Int32[np.ndarray, "batch n n"], seeds: UInt64[np.ndarray, " batch"]
) -> Int64[np.ndarray, "batch n"]:
    """Next comes any city, each with equal probability. `seeds` holds one seed per instance."""
    return _completions(weights, *city_zero(weights), _RANDOM, seeds)


def cheapest_insertion_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Cheapest insertion into the closed tour through the first `lengths[b]` >= 1 cities, whose edges all stay
    except the one back to city 0."""
    return _completions(weights, prefixes, lengths, _CHEAPEST)


def nearest_insertion_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Nearest insertion into the closed tour through the first `lengths[b]` >= 1 cities, whose edges all stay
    except the one back to city 0. Distances are to all cities of that tour, those inside the prefix too."""
    return _completions(weights, prefixes, lengths, _NEAREST)


def farthest_insertion_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Farthest insertion into the closed tour through the first `lengths[b]` >= 1 cities, whose edges all stay
    except the one back to city 0. Distances are to all cities of that tour, those inside the prefix too."""
    return _completions(weights, prefixes, lengths, _FARTHEST)


def insert_cheapest(
    weights: Int32[np.ndarray, "batch n n"],
    cycles: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Cheapest insertion into given closed tours through the first `lengths[b]` >= 1 cities, all edges open.

    The result starts at `cycles[b, 0]`.
    """
    tours, none = cycles.copy(), np.zeros(len(cycles), dtype=np.int64)
    _insert(checked_weights(weights), _CHEAPEST, tours, lengths, none, none.astype(np.uint64))
    return tours


def _completions(
    weights: np.ndarray, prefixes: np.ndarray, lengths: np.ndarray, rule: int, seeds: np.ndarray | None = None
) -> np.ndarray:
    weights = checked_weights(weights)
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    seeds = np.zeros(len(tours), dtype=np.uint64) if seeds is None else np.asarray(seeds, dtype=np.uint64)
    _insert(weights, rule, tours, lengths, lengths - 1, seeds)
    return tours


@numba.njit(cache=True, nogil=True)
def _insert(weights, rule, tours, lengths, opens, seeds):  # type: ignore[no-untyped-def]
    """Insert all free cities behind position `opens[b]` of the closed tour through the first `lengths[b]` cities.

    `following[u]` is the next city on the tour, `distance[c]` the distance from the tour to the free city c. The
    cheapest rule keeps for every free city where it is best inserted (`place`) and by how much the tour then grows.
    """
    batch, n = tours.shape
    following, place = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    distance, growth = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    free = np.empty(n, dtype=np.bool_)
    for b in range(batch):
        first, begin, state = tours[b, 0], tours[b, opens[b]], seeds[b]
        free[:] = True
        distance[:] = np.iinfo(np.int64).max
        for t in range(lengths[b]):
            following[tours[b, t]] = tours[b, (t + 1) % lengths[b]]
            _join(weights[b], tours[b, t], free, distance)
        if rule == _CHEAPEST:
            for city in range(n):
                if free[city]:
                    place[city], growth[city] = _best_place(weights[b], city, following, begin, first)
        for left in range(n - lengths[b], 0, -1):
            if rule == _RANDOM:
                state, uniform = next_uniform(state)
                city = _nth(free, int(uniform * left))
            elif rule == _CHEAPEST:
                city = _extreme(free, growth, 1)
            else:
                city = _extreme(free, distance, -1 if rule == _FARTHEST else 1)
            if rule != _CHEAPEST:
                place[city], _ = _best_place(weights[b], city, following, begin, first)
            following[city] = following[place[city]]
            following[place[city]] = city
            _join(weights[b], city, free, distance)
            if rule == _CHEAPEST:
                _update_places(weights[b], city, free, following, begin, first, place, growth)
        for t in range(1, n):
            tours[b, t] = following[tours[b, t - 1]]


@numba.njit(cache=True, nogil=True)
def _join(weights, city, free, distance):  # type: ignore[no-untyped-def]
    free[city] = False
    for other in range(len(free)):
        distance[other] = min(distance[other], weights[city, other])


@numba.njit(cache=True, nogil=True)
def _best_place(weights, city, following, begin, first):  # type: ignore[no-untyped-def]
    """The city behind which `city` is cheapest to insert, from `begin` on to the way back to `first`, and by how
    much the tour grows."""
    best, place, u = np.iinfo(np.int64).max, begin, begin
    while True:
        growth = _growth(weights, u, city, following[u])
        if growth < best or (growth == best and u < place):
            best, place = growth, u
        u = following[u]
        if u == first:
            return place, best


@numba.njit(cache=True, nogil=True)
def _growth(weights, u, city, v):  # type: ignore[no-untyped-def]
    # a tour of one city has no edge u -> u that insertion would remove
    return np.int64(weights[u, city]) + weights[city, v] - (weights[u, v] if u != v else 0)


@numba.njit(cache=True, nogil=True)
def _update_places(weights, added, free, following, begin, first, place, growth):  # type: ignore[no-untyped-def]
    """Two edges are new, to `added` and from it; the edge that it has replaced is gone."""
    for city in range(len(free)):
        if free[city]:
            if following[place[city]] == added:
                place[city], growth[city] = _best_place(weights, city, following, begin, first)
            else:
                for u in (place[added], added):
                    new = _growth(weights, u, city, following[u])
                    if new < growth[city] or (new == growth[city] and u < place[city]):
                        place[city], growth[city] = u, new


@numba.njit(cache=True, nogil=True)
def _extreme(free, values, sign):  # type: ignore[no-untyped-def]
    """The first free city with the least (sign 1) or the greatest (sign -1) value."""
    chosen = -1
    for city in range(len(free)):
        if free[city] and (chosen < 0 or sign * values[city] < sign * values[chosen]):
            chosen = city
    return chosen


@numba.njit(cache=True, nogil=True)
def _nth(free, index):  # type: ignore[no-untyped-def]
    """The free city with `index` free cities below it."""
    for city in range(len(free)):
        if free[city]:
            if index == 0:
                return city
            index -= 1
    return -1
