"""Spanning trees through the cities that are still to be visited: the combinatorial part of three lower bounds.

A `Remainder` is what is left of a tour after a prefix, in compact form: the unvisited cities, numbered 0..k-1,
are entered from the current city by one edge (`enter`), left for the final city 0 by another (`leave`), and
joined by a path in between (`inner`). A path is a spanning tree, so minimum spanning trees bound it from below.
Weights that differ by direction are replaced by the cheaper direction in `inner`, so the bounds hold there too.
"""

from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Int64

_FAR = np.iinfo(np.int64).max
"""Above every weight."""


class Remainder(NamedTuple):
    """The rest of a tour and scratch space for it, reused from state to state; only the first k entries count."""

    cities: Int64[np.ndarray, " n"]
    """The unvisited cities in ascending order."""
    inner: Int64[np.ndarray, "n n"]
    """Weight between two unvisited cities, the cheaper direction."""
    enter: Int64[np.ndarray, " n"]
    """Weight from the current city to each."""
    leave: Int64[np.ndarray, " n"]
    """Weight from each to city 0."""
    prices: Int64[np.ndarray, " n"]
    """Lagrange multiplier of each city: added to every edge that touches it."""
    degrees: Int64[np.ndarray, " n"]
    """Edges of the last tree at each city."""
    waiting: Int64[np.ndarray, " n"]
    """Prim's algorithm: the cities outside the tree, ..."""
    keys: Int64[np.ndarray, " n"]
    """... their cheapest edge into it, ..."""
    near: Int64[np.ndarray, " n"]
    """... and the other end of that edge."""


def make_remainder(n: int) -> Remainder:
    """Space for the remainders of instances with n cities."""
    vectors = [np.zeros(n, dtype=np.int64) for _ in range(8)]
    return Remainder(vectors[0], np.zeros((n, n), dtype=np.int64), *vectors[1:])


@numba.njit(cache=True, nogil=True)
def load_remainder(weights, free, current, scale, path):  # type: ignore[no-untyped-def]
    """Describe the state at `current` with the cities in `free` to visit, all weights times `scale`; returns k.

    Prices start at zero.
    """
    k = 0
    for city in range(len(free)):
        if free[city]:
            path.cities[k] = city
            path.enter[k] = scale * np.int64(weights[current, city])
            path.leave[k] = scale * np.int64(weights[city, 0])
            path.prices[k] = 0
            k += 1
    for i in range(k):
        u = path.cities[i]
        path.inner[i, i] = 0
        for j in range(i):
            v = path.cities[j]
            cheaper = scale * np.int64(min(weights[u, v], weights[v, u]))
            path.inner[i, j] = cheaper
            path.inner[j, i] = cheaper
    return k


@numba.njit(cache=True, nogil=True)
def spanning_tree(path, k):  # type: ignore[no-untyped-def]
    """Cost of a minimum spanning tree of the k cities, prices included (Prim 1957); sets `degrees`."""
    path.degrees[:k] = 0
    left = k - 1
    for i in range(left):
        path.waiting[i] = i + 1
        path.keys[i] = path.inner[0, i + 1] + path.prices[0] + path.prices[i + 1]
        path.near[i] = 0
    total = np.int64(0)
    while left > 0:
        place = 0
        for i in range(1, left):
            if path.keys[i] < path.keys[place]:
                place = i
        added = path.waiting[place]
        total += path.keys[place]
        path.degrees[added] += 1
        path.degrees[path.near[place]] += 1
        left -= 1
        path.waiting[place], path.keys[place] = path.waiting[left], path.keys[left]
        path.near[place] = path.near[left]
        for i in range(left):
            city = path.waiting[i]
            key = path.inner[added, city] + path.prices[added] + path.prices[city]
            if key < path.keys[i]:
                path.keys[i] = key
                path.near[i] = added
    return total


@numba.njit(cache=True, nogil=True)
def tree_and_cheapest_ends(weights, free, current, path):  # type: ignore[no-untyped-def]
    """Cost of a minimum spanning tree of the cities in `free`, the cheapest edge to it from `current`, and the cheapest
    from it to city 0, each on its own.

    Without prices Prim's algorithm looks at every pair of cities once, so it reads the weights where they stand; the
    remainder only lends its scratch space.
    """
    left, enter, leave = 0, np.int64(_FAR), np.int64(_FAR)
    for city in range(len(free)):
        if free[city]:
            path.waiting[left], path.keys[left] = city, _FAR
            enter, leave = min(enter, np.int64(weights[current, city])), min(leave, np.int64(weights[city, 0]))
            left += 1
    total = enter + leave
    left -= 1
    added = path.waiting[left]
    while left > 0:
        place = 0
        for i in range(left):
            city = path.waiting[i]
            key = np.int64(min(weights[added, city], weights[city, added]))
            path.keys[i] = min(key, path.keys[i])
            if path.keys[i] < path.keys[place]:
                place = i
        total += path.keys[place]
        added = path.waiting[place]
        left -= 1
        path.waiting[place], path.keys[place] = path.waiting[left], path.keys[left]
    return total


@numba.njit(cache=True, nogil=True)
def cheapest_distinct_ends(path, k):  # type: ignore[no-untyped-def]
    """Cost, prices included, of the cheapest `enter` and `leave` edges at two different cities (k = 1: at one).

    Adds both to `degrees`. Together with the spanning tree they form the 1-tree of Held and Karp (1970), whose
    special city is the current and the final city taken as one.
    """
    first = _cheapest(path.enter, path.prices, k, -1)
    last = _cheapest(path.leave, path.prices, k, -1)
    if first == last and k > 1:
        other_first = _cheapest(path.enter, path.prices, k, last)
        other_last = _cheapest(path.leave, path.prices, k, first)
        more_first = path.enter[other_first] + path.prices[other_first] - path.enter[first] - path.prices[first]
        more_last = path.leave[other_last] + path.prices[other_last] - path.leave[last] - path.prices[last]
        if more_first < more_last:
            first = other_first
        else:
            last = other_last
    path.degrees[first] += 1
    path.degrees[last] += 1
    return path.enter[first] + path.prices[first] + path.leave[last] + path.prices[last]


@numba.njit(cache=True, nogil=True)
def _cheapest(ends, prices, k, barred):  # type: ignore[no-untyped-def]
    """The city with the cheapest end edge, price included, other than `barred` (-1: none)."""
    best = -1
    for u in range(k):
        if u != barred and (best < 0 or ends[u] + prices[u] < ends[best] + prices[best]):
            best = u
    return best
