"""d*: how far a state must be searched before the right city shows (DESIGN section 2, method.md section 2)."""

import numba
import numpy as np
from jaxtyping import Float64, Int32, Int64

from mesaprobe.labels.remaining import best_onward, chosen_steps, make_table, remaining_cities, unvisited_at
from mesaprobe.labels.values import optimal_actions
from mesaprobe.solvers.weights import checked_weights


def lookahead_needs(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    action_values: Float64[np.ndarray, "batch decision n"],
    steps: slice,
) -> Int64[np.ndarray, "batch step"]:
    """d* of the decisions `steps` along the tours.

    0 if the nearest city is optimal; else the least k such that enumerating k cities, each completed by nearest
    neighbour, picks an optimal city. Where a rule may pick any of several equals, every one of them must be
    optimal, so the label does not depend on how ties are broken at the decision itself. (Inside a completion,
    nearest neighbour takes the lowest of equally near cities.)

    Values are those of `lookahead_values`, from one table that is deepened by one city at a time.
    """
    weights, tours = checked_weights(weights), np.ascontiguousarray(tours, dtype=np.int64)
    n = tours.shape[1]
    chosen = chosen_steps(n, steps)
    needs = np.zeros((len(tours), len(chosen)), dtype=np.int64)
    optimal = optimal_actions(action_values)[:, chosen]
    _needs_batch(weights, tours, chosen, optimal, make_table(n, int(chosen[0]) + 1), needs)
    if (needs < 0).any():
        raise ValueError("action_values are not those of these weights and tours")
    return needs


@numba.njit(cache=True, nogil=True)
def _needs_batch(weights, tours, chosen, optimal, table, needs):  # type: ignore[no-untyped-def]
    """At depth k the table holds, for a city and a set left behind it, the best cost of enumerating k - 1 cities of
    the set and visiting the others by nearest neighbour."""
    start, m = chosen[0] + 1, table.shape[1]
    values = np.empty(m, dtype=np.int64)
    for b in range(len(tours)):
        left = remaining_cities(weights[b], tours[b], start)
        table[:] = 0
        depth, unsolved = 0, len(chosen)
        needs[b] = -1
        while unsolved > 0 and depth <= m:  # depth m is exact
            if depth == 1:
                _fill_nearest(left, table)
            elif depth > 1:
                _deepen(left, table)
            for i in range(len(chosen)):
                if needs[b, i] < 0:
                    free, current = unvisited_at(chosen[i], start, m), tours[b, chosen[i]]
                    for a in range(m):
                        if free >> a & 1:
                            values[a] = weights[b, current, left.cities[a]] + table[free ^ (1 << a), a]
                    if _all_optimal(values, free, left.cities, optimal[b, i]):
                        needs[b, i] = depth
                        unsolved -= 1
            depth += 1


@numba.njit(cache=True, nogil=True)
def _all_optimal(values, free, cities, optimal):  # type: ignore[no-untyped-def]
    """Whether every free city with the least value is optimal."""
    best = other = np.iinfo(np.int64).max
    for a in range(len(values)):
        if free >> a & 1:
            if optimal[cities[a]]:
                best = min(best, values[a])
            else:
                other = min(other, values[a])
    return best < other


@numba.njit(cache=True, nogil=True)
def _fill_nearest(left, table):  # type: ignore[no-untyped-def]
    """table[R, j]: cost of the nearest-neighbour walk from j through R and home."""
    m = table.shape[1]
    inner = left.inner
    order = np.empty((m, m), dtype=np.int64)
    for j in range(m):
        order[j] = np.argsort(inner[j] * (left.cities.max() + 1) + left.cities)
    table[0] = left.leave
    for rest in range(1, len(table)):
        for j in range(m):
            if rest >> j & 1 == 0:
                place = 0
                while rest >> order[j, place] & 1 == 0:
                    place += 1
                nearest = order[j, place]
                table[rest, j] = inner[j, nearest] + table[rest ^ (1 << nearest), nearest]


@numba.njit(cache=True, nogil=True)
def _deepen(left, table):  # type: ignore[no-untyped-def]
    """Enumerate one city more, in place: larger sets first, whose values come from smaller ones as they were."""
    into = left.inner.T.copy()
    for rest in range(len(table) - 1, 0, -1):
        best_onward(into, rest, False, table)
