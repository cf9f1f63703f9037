"""How many tours are nearly optimal: a hardness covariate of an instance (method.md section 2)."""

from collections.abc import Sequence

import numba
import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.remaining import fill_table, make_table, remaining_cities
from mesaprobe.solvers.weights import checked_weights


def near_optimal_counts(
    weights: Int32[np.ndarray, "batch n n"], undirected: bool, percents: Sequence[int] = (1, 5)
) -> Int64[np.ndarray, "batch percent"]:
    """How many tours cost at most `percent` % more than the optimum, for each of the whole percents (0 to 100).

    With `undirected` (symmetric weights, n >= 3) the two directions of a tour count once. Exact, ties and all;
    n <= 20. Time grows with the number of different (set left, city, excess cost) on such tours, not with the
    number of tours.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> near_optimal_counts(square, undirected=True, percents=(0, 50))
    array([[1, 3]])
    """
    weights = checked_weights(weights)
    if not all(0 <= percent <= 100 for percent in percents):
        raise UserError(f"percents must lie in 0..100, got {list(percents)}")
    if undirected and (weights.shape[1] < 3 or not np.array_equal(weights, weights.transpose(0, 2, 1))):
        raise UserError("tours have no direction on symmetric weights with n >= 3 only; count directed ones here")
    counts = np.zeros((len(weights), len(percents)), dtype=np.int64)
    _count_batch(weights, np.array(percents, dtype=np.int64), make_table(weights.shape[1], 1), counts)
    return counts // 2 if undirected else counts


@numba.njit(cache=True, nogil=True)
def _count_batch(weights, percents, table, counts):  # type: ignore[no-untyped-def]
    n = weights.shape[1]
    tour = np.arange(n)
    for b in range(len(weights)):
        left = remaining_cities(weights[b], tour, 1)
        fill_table(left, False, table)
        everything = (1 << (n - 1)) - 1
        optimum = np.iinfo(np.int64).max
        for a in range(n - 1):
            optimum = min(optimum, weights[b, 0, a + 1] + table[everything ^ (1 << a), a])
        allowed = optimum * percents // 100
        excess, tours = _excess_counts(weights[b, 0], left, table, optimum, allowed.max())
        for p in range(len(percents)):
            counts[b, p] = tours[excess <= allowed[p]].sum()


@numba.njit(cache=True, nogil=True)
def _excess_counts(enter, left, table, optimum, most):  # type: ignore[no-untyped-def]
    """Costs above the optimum, up to `most`, and how many tours have each; one entry per last city and cost.

    Partial tours go forward together while they agree in (set left, city, excess), which one integer encodes; the
    excess is what the best completion would cost above the optimum, so that none is followed in vain.
    """
    m, span = len(left.leave), most + 1
    everything = (1 << m) - 1
    codes, counts = np.empty(m, dtype=np.int64), np.ones(m, dtype=np.int64)
    size = 0
    for a in range(m):
        rest = everything ^ (1 << a)
        excess = enter[left.cities[a]] + table[rest, a] - optimum
        if excess <= most:
            codes[size] = (rest * m + a) * span + excess
            size += 1
    codes, counts = codes[:size], counts[:size]
    for _ in range(m - 1):
        codes, counts = _merged(*_next_layer(codes, counts, left, table, most))
    return codes % span, counts


@numba.njit(cache=True, nogil=True)
def _next_layer(codes, counts, left, table, most):  # type: ignore[no-untyped-def]
    inner, m, span = left.inner, len(left.leave), most + 1
    room = 0
    for code in codes:
        rest = code // span // m
        while rest:
            rest &= rest - 1
            room += 1
    following, ways = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    size = 0
    for i in range(len(codes)):
        excess, state = codes[i] % span, codes[i] // span
        rest, j = state // m, state % m
        for k in range(m):
            if rest >> k & 1:
                after = rest ^ (1 << k)
                new = excess + inner[j, k] + table[after, k] - table[rest, j]
                if new <= most:
                    following[size], ways[size] = (after * m + k) * span + new, counts[i]
                    size += 1
    return following[:size], ways[:size]


@numba.njit(cache=True, nogil=True)
def _merged(codes, counts):  # type: ignore[no-untyped-def]
    """Equal codes once, their counts summed."""
    order = np.argsort(codes)
    merged, summed = np.empty_like(codes), np.zeros_like(counts)
    size = 0
    for i in order:
        if size == 0 or merged[size - 1] != codes[i]:
            merged[size] = codes[i]
            size += 1
        summed[size - 1] += counts[i]
    return merged[:size], summed[:size]
