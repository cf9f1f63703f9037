"""Rules that take edges in a fixed order until they make a tour: greedy edge and savings."""

import numba
import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.weights import checked_weights


def greedy_edge(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Add the cheapest edge that keeps every degree at most two and closes no short cycle, until a tour is left.

    On a symmetric instance the tour is returned from city 0 towards its lower-numbered neighbour; a direction
    carries no meaning there. On an asymmetric one arcs are used, with in-degree and out-degree at most one.
    Equal weights are taken in the order of (u, v), with u < v for edges.

    >>> greedy_edge(np.array([[[0, 5, 1, 4], [5, 0, 2, 3], [1, 2, 0, 9], [4, 3, 9, 0]]], dtype=np.int32))
    array([[0, 2, 1, 3]])
    """
    return greedy_edge_completions(weights, *city_zero(weights))


def greedy_edge_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Greedy edge with the path through the first `lengths[b]` >= 1 cities of each prefix already in the tour.

    The edges (arcs, if the instance is asymmetric) between consecutive cities of the prefix are taken first;
    the rule then adds the cheapest legal edges. The tour is returned from city 0 along the prefix; with length
    1 it goes to the lower-numbered neighbour of city 0 on symmetric instances.
    """
    weights = checked_weights(weights)
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    _greedy_edge(weights.astype(np.int64), tours, lengths)
    return tours


def savings(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Clarke and Wright (1964) with city 0 as the depot and one vehicle without limits.

    Every other city begins on a route of its own, 0 - u - 0. Joining the route that ends in u to the one that
    begins with v saves w[u, 0] + w[0, v] - w[u, v]; the largest saving, negative ones at last too, is taken
    until one route is left. Equal savings are taken in the order of (u, v), with u < v on symmetric instances,
    where the tour is returned towards the lower-numbered neighbour of city 0.

    >>> savings(np.array([[[0, 5, 1, 4], [5, 0, 2, 3], [1, 2, 0, 9], [4, 3, 9, 0]]], dtype=np.int32))
    array([[0, 2, 1, 3]])
    """
    return savings_completions(weights, *city_zero(weights))


def savings_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Savings with the path through the first `lengths[b]` >= 1 cities of each prefix already on one route.

    That route begins at the depot with the prefix, so others can be joined to it only behind the current city.
    The tour is returned from city 0 along the prefix.
    """
    wide = checked_weights(weights).astype(np.int64)
    tours, lengths = checked_prefixes(wide, prefixes, lengths)
    # The rule is greedy edge on minus the savings, with the edges of the depot left to the end.
    keys = wide - wide[:, :, :1] - wide[:, :1, :]
    last = 1 + np.abs(keys).max(axis=(1, 2), initial=0)[:, None]
    keys[:, 0, :] = keys[:, :, 0] = last
    _greedy_edge(keys, tours, lengths)
    return tours


@numba.njit(cache=True, nogil=True)
def _greedy_edge(keys, tours, lengths):  # type: ignore[no-untyped-def]
    """Complete each tour by taking edges in the order of their keys.

    Column 0 of `links` is the predecessor and column 1 the successor of a city (asymmetric), or both hold
    neighbours in the order in which they came (symmetric). `other_end[c]`, for a city at the end of a path,
    is the city at its other end.
    """
    batch, n = tours.shape
    bits = 1
    while 1 << bits < n:
        bits += 1
    mask = (1 << bits) - 1
    links = np.empty((n, 2), dtype=np.int64)
    other_end = np.empty(n, dtype=np.int64)
    for b in range(batch):
        symmetric = np.array_equal(keys[b], keys[b].T)
        links[:] = -1
        for city in range(n):
            other_end[city] = city
        for t in range(1, lengths[b]):
            _link(symmetric, links, other_end, tours[b, t - 1], tours[b, t])
        missing = n - lengths[b]
        for code in _in_order(keys[b], symmetric, bits):
            if missing == 0:
                break
            u, v = (code >> bits) & mask, code & mask
            full = links[u, 1] >= 0 or links[v, 1 if symmetric else 0] >= 0
            if not full and other_end[u] != v:
                _link(symmetric, links, other_end, u, v)
                missing -= 1
        _walk(symmetric, links, other_end, tours[b], lengths[b])


@numba.njit(cache=True, nogil=True)
def _in_order(keys, symmetric, bits):  # type: ignore[no-untyped-def]
    """All edges (u < v) or arcs by key, then by (u, v), which are the lowest 2 * bits of each entry."""
    n = keys.shape[0]
    packed = np.empty(n * (n - 1) // 2 if symmetric else n * (n - 1), dtype=np.int64)
    count = 0
    for u in range(n):
        for v in range(u + 1 if symmetric else 0, n):
            if u != v:
                packed[count] = (((keys[u, v] << bits) | u) << bits) | v
                count += 1
    packed.sort()
    return packed


@numba.njit(cache=True, nogil=True)
def _link(symmetric, links, other_end, u, v):  # type: ignore[no-untyped-def]
    links[u, 0 if symmetric and links[u, 0] < 0 else 1] = v
    links[v, 1 if symmetric and links[v, 0] >= 0 else 0] = u
    first, last = other_end[u], other_end[v]
    other_end[first], other_end[last] = last, first


@numba.njit(cache=True, nogil=True)
def _walk(symmetric, links, other_end, tour, length):  # type: ignore[no-untyped-def]
    """Close the path through all cities, then write the cities after `tour[:length]` in its direction."""
    n = len(tour)
    for u in range(n):
        if links[u, 1] < 0:
            v = other_end[u]
            links[u, 1] = v
            links[v, 1 if symmetric else 0] = u
            break
    current = tour[length - 1]
    following = links[current, 1]
    if symmetric and length == 1:
        following = min(links[0, 0], links[0, 1])
    elif symmetric and following == tour[length - 2]:
        following = links[current, 0]
    for t in range(length, n):
        previous, current = current, following
        tour[t] = current
        following = links[current, 1]
        if symmetric and following == previous:
            following = links[current, 0]
