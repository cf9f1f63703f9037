"""Constructive heuristics, batched: nearest neighbour and greedy edge."""

import numba
import numpy as np
from jaxtyping import Bool, Int32, Int64


def nearest_neighbour(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """From city 0, always go to the nearest unvisited city (the lowest index among equals).

    >>> nearest_neighbour(np.array([[[0, 5, 1], [5, 0, 2], [1, 2, 0]]], dtype=np.int32))
    array([[0, 2, 1]])
    """
    batch, n = weights.shape[:2]
    tours = np.zeros((batch, n), dtype=np.int64)
    _nearest_from(np.ascontiguousarray(weights, dtype=np.int32), tours, np.ones(batch, dtype=np.int64))
    return tours


def nearest_neighbour_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then go on to the nearest unvisited city."""
    tours = np.ascontiguousarray(prefixes, dtype=np.int64).copy()
    _nearest_from(np.ascontiguousarray(weights, dtype=np.int32), tours, np.asarray(lengths, dtype=np.int64))
    return tours


def nearest_cities(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Bool[np.ndarray, "batch decision n"]:
    """For every decision along the tours: which unvisited cities are nearest to the current one (all of the ties)."""
    distances = np.where(unvisited(tours), step_weights(weights, tours), np.iinfo(np.int32).max)
    return distances == distances.min(axis=2, keepdims=True)


def step_weights(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Int32[np.ndarray, "batch decision n"]:
    """Weight from the current city to every city, for each of the n - 1 decisions along the tours."""
    return np.take_along_axis(weights, tours[:, :-1, None], axis=1)


def unvisited(tours: Int64[np.ndarray, "batch n"]) -> Bool[np.ndarray, "batch decision n"]:
    """Which cities are still free at each of the n - 1 decisions along the tours.

    >>> unvisited(np.array([[0, 2, 1]]))[0].astype(int)
    array([[0, 1, 1],
           [0, 1, 0]])
    """
    n = tours.shape[1]
    named = tours[:, :-1, None] == np.arange(n)
    return ~np.logical_or.accumulate(named, axis=1)


def greedy_edge(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Add the cheapest edge that keeps every degree at most two and closes no short cycle, until a tour is left.

    On symmetric weights the tour is returned from city 0 towards its lower-numbered neighbour; a direction
    carries no meaning there. On asymmetric weights arcs are used, with in-degree and out-degree at most one.
    Equal weights are taken in index order.
    """
    weights = np.ascontiguousarray(weights, dtype=np.int32)
    symmetric = bool((weights == weights.transpose(0, 2, 1)).all())
    tours = np.zeros(weights.shape[:2], dtype=np.int64)
    if symmetric:
        rows, columns = np.triu_indices(weights.shape[1], k=1)
    else:
        rows, columns = np.nonzero(~np.eye(weights.shape[1], dtype=bool))
    order = np.argsort(weights[:, rows, columns], axis=1, kind="stable")
    _greedy_edge(symmetric, rows, columns, order, tours)
    return tours


@numba.njit(cache=True, nogil=True)
def _nearest_from(weights, tours, lengths):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    free = np.empty(n, dtype=np.bool_)
    for b in range(batch):
        free[:] = True
        for t in range(lengths[b]):
            free[tours[b, t]] = False
        for t in range(lengths[b], n):
            current, best = tours[b, t - 1], -1
            for city in range(n):
                if free[city] and (best < 0 or weights[b, current, city] < weights[b, current, best]):
                    best = city
            tours[b, t] = best
            free[best] = False


@numba.njit(cache=True, nogil=True)
def _root(parent, city):  # type: ignore[no-untyped-def]
    while parent[city] != city:
        parent[city] = parent[parent[city]]
        city = parent[city]
    return city


@numba.njit(cache=True, nogil=True)
def _greedy_edge(symmetric, rows, columns, order, tours):  # type: ignore[no-untyped-def]
    """`links[u]` holds the two neighbours of u (symmetric) or its predecessor and successor (asymmetric)."""
    batch, n = tours.shape
    for b in range(batch):
        links = np.full((n, 2), -1)
        parent = np.arange(n)
        added = 0
        for index in order[b]:
            u, v = rows[index], columns[index]
            out, into = 1, 0
            if symmetric:
                out = 0 if links[u, 0] < 0 else 1
                into = 0 if links[v, 0] < 0 else 1
            if links[u, out] >= 0 or links[v, into] >= 0:
                continue
            root_u, root_v = _root(parent, u), _root(parent, v)
            if root_u == root_v and added < n - 1:
                continue
            links[u, out], links[v, into] = v, u
            parent[root_u] = root_v
            added += 1
            if added == n:
                break
        current, previous = links[0, 1], 0
        if symmetric:
            current = min(links[0, 0], links[0, 1])
        for t in range(1, n):
            tours[b, t] = current
            following = links[current, 1]
            if symmetric and following == previous:
                following = links[current, 0]
            previous, current = current, following
