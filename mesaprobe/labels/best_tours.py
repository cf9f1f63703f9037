"""The k best distinct tours that a state still allows: the optimum and its nearest rivals.

Best-first search whose estimate is exact (the table of costs-to-go), so that it expands nothing but beginnings of
the tours it returns.
"""

import heapq
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Bool, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.objectives import Objective, mirrored_weights
from mesaprobe.labels.remaining import chosen_steps, fill_table, make_table, remaining_cities, unvisited_at
from mesaprobe.problems import tour_costs
from mesaprobe.solvers.lookahead import UNREACHABLE
from mesaprobe.solvers.weights import checked_weights

BEST_TOURS = 4

_HIGH_PLACES, _CITY_BITS = 10, 5
"""The cities behind a prefix (up to 19) are written into two integers, the first ten into the first."""


@dataclass(frozen=True, eq=False)
class BestTours:
    """The k best tours that begin with the prefix, best first; of equal ones the lexicographically first."""

    tours: Int64[np.ndarray, "batch step k n"]
    """Full of -1 where there are fewer than k tours."""
    costs: Int64[np.ndarray, "batch step k"]
    """Of the whole tours, under the objective `longest` their lengths; `UNREACHABLE` where there are fewer."""
    cut: Bool[np.ndarray, "batch step"]
    """Whether tours as good as the last one are left out, so that the numbering of the cities decides which: use
    the costs there, or only tours of other costs."""


def best_tours(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    steps: slice,
    undirected: bool,
    k: int = BEST_TOURS,
    objective: Objective = "shortest",
) -> BestTours:
    """The k best tours at the decisions `steps` along the given ones; shortest or longest, n <= 20.

    With `undirected` (symmetric weights) a tour and its reverse are one, which matters at the first decision only;
    there it is returned in the direction that begins with the lower city.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> found = best_tours(square, np.array([[0, 1, 2, 3]]), slice(0, 1), undirected=True, k=2)
    >>> found.tours[0, 0], found.costs[0, 0], found.cut[0, 0]
    (array([[0, 1, 2, 3],
           [0, 1, 3, 2]]), array([4, 6]), np.True_)
    """
    if objective not in ("shortest", "longest"):
        raise UserError(f"best tours are defined for the objectives shortest and longest, not {objective!r}")
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    weights, tours = checked_weights(weights), np.ascontiguousarray(tours, dtype=np.int64)
    walked = weights if objective == "shortest" else mirrored_weights(weights).weights
    batch, n = tours.shape
    chosen = chosen_steps(n, steps)
    found = np.full((batch, len(chosen), k + 1, n), -1, dtype=np.int64)
    _find_batch(walked, tours, chosen, undirected, make_table(n, int(chosen[0]) + 1), found)
    repeated = np.repeat(weights, len(chosen) * (k + 1), axis=0)
    costs = tour_costs(repeated, np.maximum(found, 0).reshape(-1, n)).reshape(found.shape[:3])
    costs = np.where(found[..., 0] < 0, UNREACHABLE, costs)
    cut = (costs[:, :, k] == costs[:, :, k - 1]) & (costs[:, :, k] != UNREACHABLE)
    return BestTours(found[:, :, :k], costs[:, :, :k], cut)


@numba.njit(cache=True, nogil=True)
def _find_batch(weights, tours, chosen, undirected, table, found):  # type: ignore[no-untyped-def]
    start, m = chosen[0] + 1, table.shape[1]
    places = np.zeros(tours.shape[1], dtype=np.int64)
    for b in range(len(tours)):
        left = remaining_cities(weights[b], tours[b], start)
        fill_table(left, False, table)
        for a in range(m):
            places[left.cities[a]] = a
        for i in range(len(chosen)):
            free = unvisited_at(chosen[i], start, m)
            enter = weights[b, tours[b, chosen[i]]]
            prefix = tours[b, : chosen[i] + 1]
            _find_best(enter, left, table, free, places, undirected and chosen[i] == 0, prefix, found[b, i])


@numba.njit(cache=True, nogil=True)
def _find_best(enter, left, table, free, places, one_direction, prefix, found):  # type: ignore[no-untyped-def]
    """Fill `found` with tours in the order of (cost, cities).

    The queue holds beginnings of what follows the prefix as (cost of the best completion, first cities, later
    cities, how many). A beginning sorts before its continuations, so equally good tours leave the queue in order.
    """
    m, size, start = len(left.leave), 0, len(prefix)
    inner, cities = left.inner, left.cities
    queue = [(np.int64(0), np.int64(0), np.int64(0), np.int64(0))]
    while len(queue) > 0 and size < len(found):
        _, high, low, depth = heapq.heappop(queue)
        rest, spent, j = free, np.int64(0), -1
        for place in range(depth):
            k = places[_city_at(high, low, place)]
            spent += inner[j, k] if j >= 0 else enter[cities[k]]
            rest ^= 1 << k
            j = k
        if rest == 0:
            first, last = _city_at(high, low, 0), cities[j]
            if not one_direction or first <= last:
                found[size, :start] = prefix
                for place in range(depth):
                    found[size, start + place] = _city_at(high, low, place)
                size += 1
            continue
        for k in range(m):
            if rest >> k & 1:
                step = inner[j, k] if j >= 0 else np.int64(enter[cities[k]])
                new_high, new_low = high, low
                if depth < _HIGH_PLACES:
                    new_high |= cities[k] << (_CITY_BITS * (_HIGH_PLACES - 1 - depth))
                else:
                    new_low |= cities[k] << (_CITY_BITS * (2 * _HIGH_PLACES - 1 - depth))
                value = spent + step + table[rest ^ (1 << k), k]
                heapq.heappush(queue, (value, new_high, new_low, depth + 1))


@numba.njit(cache=True, nogil=True, inline="always")
def _city_at(high, low, place):  # type: ignore[no-untyped-def]
    word = high if place < _HIGH_PLACES else low
    return word >> (_CITY_BITS * (_HIGH_PLACES - 1 - place % _HIGH_PLACES)) & ((1 << _CITY_BITS) - 1)
