"""Minimum spanning tree, walked in preorder: at most twice the optimum under the triangle inequality."""

import numba
import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.weights import checked_weights


def mst_preorder(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Walk the minimum spanning tree depth-first from city 0, nearest child first, skipping visited cities.

    Equal children are visited in index order; where several trees are minimal, equal edges {u, v} are preferred
    in the order of (u, v) with u < v. Raises UserError on asymmetric weights.

    >>> mst_preorder(np.array([[[0, 5, 1, 4], [5, 0, 2, 3], [1, 2, 0, 9], [4, 3, 9, 0]]], dtype=np.int32))
    array([[0, 2, 1, 3]])
    """
    return mst_preorder_completions(weights, *city_zero(weights))


def mst_preorder_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """The same walk on the cheapest spanning tree that contains the path through the first `lengths[b]` >= 1 cities.

    The prefix is walked first; then the children of the current city follow, and on the way back along the
    prefix those of the earlier ones. From a prefix of its own tour the rule goes on with that tour. Raises
    UserError on asymmetric weights.
    """
    weights = checked_weights(weights)
    asymmetric = np.flatnonzero((weights != weights.transpose(0, 2, 1)).any(axis=(1, 2)))
    if len(asymmetric):
        raise UserError(f"mst_preorder takes symmetric weights only; those of instance {asymmetric[0]} are not")
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    _preorder(weights, tours, lengths)
    return tours


@numba.njit(cache=True, nogil=True)
def _preorder(weights, tours, lengths):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    parent = np.empty(n, dtype=np.int64)
    free = np.empty(n, dtype=np.bool_)
    stack = np.empty(n, dtype=np.int64)
    for b in range(batch):
        free[:] = True
        for t in range(lengths[b]):
            stack[t] = tours[b, t]
            free[tours[b, t]] = False
        _grow_tree(weights[b], free, parent)
        depth, visited = lengths[b], lengths[b]
        while visited < n:
            top, child = stack[depth - 1], -1
            for city in range(n):
                offered = free[city] and parent[city] == top
                if offered and (child < 0 or weights[b, top, city] < weights[b, top, child]):
                    child = city
            if child < 0:
                depth -= 1
                continue
            free[child] = False
            tours[b, visited] = stack[depth] = child
            visited += 1
            depth += 1


@numba.njit(cache=True, nogil=True)
def _grow_tree(weights, free, parent):  # type: ignore[no-untyped-def]
    """Attach every free city to a tree that holds all the others (Prim 1957); `parent` is set for free cities."""
    n = len(free)
    outside = free.copy()
    link = np.full(n, np.iinfo(np.int64).max)
    for city in range(n):
        if not free[city]:
            _offer_links(weights, city, outside, link, parent)
    for _ in range(outside.sum()):
        joining = -1
        for city in range(n):
            if outside[city] and (joining < 0 or link[city] < link[joining]):
                joining = city
        outside[joining] = False
        _offer_links(weights, joining, outside, link, parent)


@numba.njit(cache=True, nogil=True)
def _offer_links(weights, city, outside, link, parent):  # type: ignore[no-untyped-def]
    n = len(outside)
    for other in range(n):
        if outside[other]:
            # a total order on edges, so that the tree is unique whatever it grows from
            edge = np.int64(weights[city, other]) * (n * n) + min(city, other) * n + max(city, other)
            if edge < link[other]:
                link[other], parent[other] = edge, city
