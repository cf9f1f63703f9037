"""Held-Karp ascent: city prices that push the 1-tree towards a tour (Held and Karp 1971), in exact integers.

Every city of the remaining path has degree two. Charging a price for each edge at a city and giving twice the
price back changes no path, but it changes the cheapest 1-tree; its cost is a lower bound for any prices, and
subgradient steps (Held, Wolfe and Crowder 1974) raise it.

Weights are multiplied by a whole `scale` and prices are whole numbers of 1/scale, so every bound met on the way
is an exact rational; a path costs a whole number of units, so the bound may be rounded up. Step *sizes* are
floating point, which decides how good a bound is found and never whether it holds.
"""

import numba
import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.solvers.bounds.spanning_trees import cheapest_distinct_ends, spanning_tree

_FINEST_SCALE = 1024
_LARGEST_TOTAL = 2**36
"""Bound on scale * n * (largest weight), which leaves room in int64 for the prices of hundreds of steps."""

_FIRST_STEP = 2.0
"""Step length, as a share of the gap between the bound and its target."""
_MOMENTUM = 0.4
"""Share of the previous direction in the next."""

_STEPS_PER_PATIENCE = 100
"""Limit on the steps of one ascent; the halving of the step length as a rule ends it sooner."""


def price_scales(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, " batch"]:
    """How many price units make one unit of weight, for each instance."""
    totals = weights.shape[1] * weights.max(axis=(1, 2), initial=1).astype(np.int64)
    return np.clip(_LARGEST_TOTAL // totals, 1, _FINEST_SCALE)


@numba.njit(cache=True, nogil=True)
def one_tree(path, k):  # type: ignore[no-untyped-def]
    """The 1-tree bound on the remaining path at the present prices; sets `degrees`."""
    return spanning_tree(path, k) + cheapest_distinct_ends(path, k) - 2 * path.prices[:k].sum()


@numba.njit(cache=True, nogil=True)
def ascend(path, k, target, scale, patience, direction, best_prices):  # type: ignore[no-untyped-def]
    """The best 1-tree bound met from the present prices on, in price units; leaves its prices in `path`.

    After `patience` steps without progress the step length is halved; 100 times as many are made at most.
    `target` is the cost of some completion, in price units: it sets the step length, and the ascent ends once
    the bound, rounded up to whole weights, reaches it. `direction` (float64) and `best_prices` are scratch space.
    """
    best = value = one_tree(path, k)
    best_prices[:k] = path.prices[:k]
    direction[:k] = 0.0
    length, stalled = _FIRST_STEP, 0
    for _ in range(_STEPS_PER_PATIENCE * patience):
        norm = np.int64(0)
        for u in range(k):
            norm += (path.degrees[u] - 2) ** 2
        if norm == 0 or best > target - scale:
            break
        moved = False
        for u in range(k):
            direction[u] = (1 - _MOMENTUM) * (path.degrees[u] - 2) + _MOMENTUM * direction[u]
            change = np.int64(np.rint(length * (target - value) / norm * direction[u]))
            path.prices[u] += change
            moved |= change != 0
        if not moved:
            break
        value = one_tree(path, k)
        stalled += 1
        if value > best:
            best, stalled = value, 0
            best_prices[:k] = path.prices[:k]
        elif stalled >= patience:
            length, stalled = length / 2, 0
    path.prices[:k] = best_prices[:k]
    return best
