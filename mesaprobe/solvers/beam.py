"""Beam search: many prefixes grow side by side, the most promising `width` of them survive every step."""

import numba
import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.solvers.bounds.ascent import price_scales
from mesaprobe.solvers.bounds.lower_bounds import BoundKind, bound_space, kind_code, remaining_bound
from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.weights import checked_weights


def beam_tours(
    weights: Int32[np.ndarray, "batch n n"], width: int, bound: BoundKind = "none"
) -> Int64[np.ndarray, "batch n"]:
    """The best tour that beam search of a given width >= 1 finds from city 0.

    Every prefix in the beam is extended by every unvisited city; the `width` extensions with the least prefix cost +
    bound on the rest (`bounds.py`; `none`: prefix cost alone) go on. Among equals those of the better parent, then
    those with the lower city. Prefixes that visit the same cities in another order all keep their places. When one
    city is left its tour is complete, and the cheapest tour of the beam is returned.

    Width 1 without a bound is nearest neighbour; from (n - 1)! on the search is exhaustive.

    >>> weights = np.array([[[0, 1, 2, 9], [1, 0, 9, 9], [2, 9, 0, 1], [9, 9, 1, 0]]], dtype=np.int32)
    >>> beam_tours(weights, 1), beam_tours(weights, 2)
    (array([[0, 1, 2, 3]]), array([[0, 2, 3, 1]]))
    """
    return beam_completions(weights, *city_zero(weights), width, bound)


def beam_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    width: int,
    bound: BoundKind = "none",
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix and go on with a beam that holds nothing else."""
    if width < 1:
        raise UserError(f"the beam width must be at least 1, got {width}")
    weights = checked_weights(weights)
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    space = bound_space(weights.shape[1])
    _search_all(weights, tours, lengths, width, kind_code(bound), price_scales(weights), space)
    return tours


@numba.njit(cache=True, nogil=True)
def _search_all(weights, tours, lengths, width, kind, scales, space):  # type: ignore[no-untyped-def]
    for b in range(len(weights)):
        beam, costs = tours[b : b + 1].copy(), np.zeros(1, dtype=np.int64)
        for t in range(1, lengths[b]):
            costs[0] += weights[b, tours[b, t - 1], tours[b, t]]
        for length in range(lengths[b], weights.shape[1]):
            beam, costs = _extend(weights[b], beam, costs, length, width, kind, scales[b], space)
        tours[b] = beam[0]


@numba.njit(cache=True, nogil=True)
def _extend(weights, beam, costs, length, width, kind, scale, space):  # type: ignore[no-untyped-def]
    """The best `width` extensions of the prefixes in the beam by one city, best first, and their prefix costs."""
    n, left = len(weights), len(weights) - length
    parents = np.empty(len(beam) * left, dtype=np.int64)
    cities, spent, scores = np.empty_like(parents), np.empty_like(parents), np.empty_like(parents)
    free = np.empty(n, dtype=np.bool_)
    count = 0
    for parent in range(len(beam)):
        current = beam[parent, length - 1]
        free[:] = True
        for t in range(length):
            free[beam[parent, t]] = False
        for city in range(n):
            if free[city]:
                parents[count], cities[count] = parent, city
                spent[count] = costs[parent] + weights[current, city]
                free[city] = False
                if left == 1:
                    scores[count] = spent[count] + weights[city, 0]
                else:
                    scores[count] = spent[count] + remaining_bound(weights, free, city, kind, scale, space)
                free[city] = True
                count += 1
    kept = np.argsort(scores, kind="mergesort")[:width]  # stable, so that equals keep their order
    extended = beam[parents[kept]]
    extended[:, length] = cities[kept]
    return extended, spent[kept]
