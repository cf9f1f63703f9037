"""What edits of far entries do to every action, in closed form, and a fast search for those that move the optimum.

Pick up to `SLOTS` far entries of a state. A completion uses some subset of them, its pattern. With rest[a, p] the
cheapest completion through a that uses exactly pattern p, the picked entries themselves counted as zero,

    Q*(a; x) = min over p of  rest[a, p] + sum of x over the entries in p

holds for all values x of those entries at once. So one dynamic programme per state (Held and Karp 1962, with the
pattern as additional state) answers every edit of one, two or more of the entries by a few additions.
"""

import numba
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt64

from mesaprobe.solvers.random_streams import next_uniform

SLOTS = 4
"""Entries looked at per state: an edit of two needs as many others for its irrelevant twin."""

PROPOSALS = 64
"""Random edits tried per state."""

MAX_FLIPS = 4
"""Edits returned per state."""

_PATTERNS = 1 << SLOTS


def search_flips(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    spent: Int64[np.ndarray, " batch"],
    far: Bool[np.ndarray, "batch n"],
    seeds: UInt64[np.ndarray, " batch"],
    symmetric: bool,
    levels: int,
    margin: float,
    max_entries: int,
) -> tuple[Int64[np.ndarray, "batch flip 2 2"], Int64[np.ndarray, "batch flip 2"]]:
    """The first `MAX_FLIPS` of `PROPOSALS` random edits per state after which the optimum is another one.

    A proposal changes one entry between far cities, or two with probability 1/2 where `max_entries` is 2 and there
    are four, to values drawn uniformly from the other 1..levels. Its optimal set must be disjoint from that of
    the base, and the best city outside it worse by more than `margin` times the best tour, whose part before the
    current city costs `spent`. Of more than `SLOTS` far entries a random choice is looked at.

    Returns (u, v) of the changed entries, -1 where there is none, and new minus old value, 0 where there is none.
    """
    entries = np.full((len(weights), MAX_FLIPS, 2, 2), -1, dtype=np.int64)
    changes = np.zeros((len(weights), MAX_FLIPS, 2), dtype=np.int64)
    weights, prefixes = np.ascontiguousarray(weights), np.ascontiguousarray(prefixes)
    _search_batch(
        weights, prefixes, lengths, spent, far, seeds, symmetric, levels, margin, max_entries, entries, changes
    )
    return entries, changes


def edited_action_values(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    entries: Int64[np.ndarray, "batch k 2"],
    values: Int64[np.ndarray, "batch k"],
    symmetric: bool,
) -> Float64[np.ndarray, "batch n"]:
    """Q* of every free city, in closed form, after up to `SLOTS` different entries between free cities got new values.

    Infinite for visited cities. On `symmetric` weights both directions of an entry change.

    >>> weights = np.array([[[0, 1, 9, 9], [1, 0, 2, 9], [9, 2, 0, 3], [9, 9, 3, 0]]], dtype=np.int32)
    >>> start = np.array([[0, 0, 0, 0]]), np.array([1])
    >>> edited_action_values(weights, *start, np.array([[[1, 2]]]), np.array([[7]]), symmetric=True)
    array([[inf, 20., 22., 20.]])
    """
    if entries.shape[1] > SLOTS:
        raise ValueError(f"at most {SLOTS} entries can be edited at once, got {entries.shape[1]}")
    results = np.full(prefixes.shape, np.inf)
    _values_batch(weights, prefixes, lengths, entries, values.astype(np.float64), symmetric, results)
    return results


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _values_batch(weights, prefixes, lengths, entries, values, symmetric, results):  # type: ignore[no-untyped-def]
    batch = len(prefixes)
    picked = np.full((SLOTS, 2), -1, dtype=np.int64)
    new = np.zeros(SLOTS)
    for b in range(batch):
        picked[: entries.shape[1]] = entries[b]
        new[: entries.shape[1]] = values[b]
        cities = _free_cities(prefixes[b], lengths[b])
        table, rest, best = _table(len(cities)), np.empty((len(cities), _PATTERNS)), np.empty(len(cities))
        _rest_costs(weights[b], prefixes[b, lengths[b] - 1], cities, picked, symmetric, table, rest)
        _evaluate(rest, new, np.empty(_PATTERNS), best)
        results[b, cities] = best


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _free_cities(prefix, length):  # type: ignore[no-untyped-def]
    free = np.ones(len(prefix), dtype=np.bool_)
    for t in range(length):
        free[prefix[t]] = False
    return np.flatnonzero(free)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _table(m):  # type: ignore[no-untyped-def]
    """Room for `_rest_costs` with up to m free cities: zeros, as it adds infinity to rows that it never fills."""
    return np.zeros(((m << m) + 1) * _PATTERNS)


@numba.njit(cache=True, error_model="numpy", nogil=True, fastmath={"nnan", "nsz"})
def _rest_costs(weights, current, cities, picked, symmetric, table, rest):  # type: ignore[no-untyped-def]
    """Fill rest[i, p] for going to `cities[i]` first.

    table[(R * m + i + 1) * _PATTERNS + p]: the cheapest way to leave city i, visit the set R once, end at city 0 and
    use exactly pattern p of the picked entries. No path uses an entry twice, so a step over a picked entry leads
    from pattern p - bit to p, for p that have its bit; for others, down into the row before, its cost is infinite.
    """
    m = len(cities)
    steps, costs = _steps(weights, cities, picked, symmetric)
    table[: (m + 1) * _PATTERNS] = np.inf
    for i in range(m):
        table[(i + 1) * _PATTERNS] = weights[cities[i], 0]
    best = np.empty(_PATTERNS)
    for subset in range(1, 1 << m):
        for i in range(m):
            if subset >> i & 1:
                continue
            best[:] = np.inf
            for k in range(m):
                if subset >> k & 1:
                    source = ((subset ^ (1 << k)) * m + k + 1) * _PATTERNS - steps[i, k]
                    for p in range(_PATTERNS):
                        best[p] = min(best[p], table[source + p] + costs[i, k, p])
            row = (subset * m + i + 1) * _PATTERNS
            for p in range(_PATTERNS):
                table[row + p] = best[p]
    everything = (1 << m) - 1
    for i in range(m):
        row = ((everything ^ (1 << i)) * m + i + 1) * _PATTERNS
        for p in range(_PATTERNS):
            rest[i, p] = weights[current, cities[i]] + table[row + p]


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _steps(weights, cities, picked, symmetric):  # type: ignore[no-untyped-def]
    """For a step from i to k: the bit of its entry (0 if it is not picked), and its cost by pattern after the step."""
    m = len(cities)
    bits = np.zeros((m, m), dtype=np.int64)
    costs = np.empty((m, m, _PATTERNS))
    for i in range(m):
        for k in range(m):
            u, v = cities[i], cities[k]
            costs[i, k] = weights[u, v]
            for slot in range(SLOTS):
                forward = picked[slot, 0] == u and picked[slot, 1] == v
                if forward or (symmetric and picked[slot, 0] == v and picked[slot, 1] == u):
                    bits[i, k] = 1 << slot
                    for p in range(_PATTERNS):
                        costs[i, k, p] = 0.0 if p & bits[i, k] else np.inf
    return bits, costs


@numba.njit(cache=True, error_model="numpy", nogil=True, fastmath={"nnan", "nsz"})
def _evaluate(rest, new, sums, values):  # type: ignore[no-untyped-def]
    """Write Q* of every action, with the picked entries at their `new` values, into `values`."""
    sums[0] = 0.0
    for slot in range(SLOTS):
        for p in range(1 << slot):
            sums[p | (1 << slot)] = sums[p] + new[slot]
    for i in range(len(values)):
        best = rest[i, 0]
        for p in range(1, _PATTERNS):
            best = min(best, rest[i, p] + sums[p])
        values[i] = best


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _optimum(values):  # type: ignore[no-untyped-def]
    """The optimal actions as bits, their value, and the best value outside them."""
    best, second, optimal = np.inf, np.inf, 0
    for i in range(len(values)):
        if values[i] < best:
            best, second, optimal = values[i], best, 1 << i
        elif values[i] == best:
            optimal |= 1 << i
        elif values[i] < second:
            second = values[i]
    return optimal, best, second


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _pick_entries(cities, far, symmetric, picked, state):  # type: ignore[no-untyped-def]
    """Pick up to SLOTS of the far entries, each set with equal probability (reservoir sampling)."""
    seen = 0
    picked[:] = -1
    for u in cities:
        for v in cities:
            if u != v and far[u] and far[v] and (u < v or not symmetric):
                slot = seen
                if seen >= SLOTS:
                    state, uniform = next_uniform(state)
                    slot = int(uniform * (seen + 1))
                if slot < SLOTS:
                    picked[slot, 0], picked[slot, 1] = u, v
                seen += 1
    return min(seen, SLOTS), state


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _propose(old, order, count, levels, new, state):  # type: ignore[no-untyped-def]
    """Shuffle the slots in `order`; give the first `count` of them other values, uniform on 1..levels."""
    new[:] = old
    for place in range(len(order) - 1, 0, -1):
        state, uniform = next_uniform(state)
        other = int(uniform * (place + 1))
        order[place], order[other] = order[other], order[place]
    for place in range(count):
        state, uniform = next_uniform(state)
        value = 1 + int(uniform * (levels - 1))
        new[order[place]] = value if value < old[order[place]] else value + 1
    return state


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _flips(rest, new, sums, values, base, spent, margin):  # type: ignore[no-untyped-def]
    """Whether the optimum is another one, by the margin, with the picked entries at their `new` values."""
    _evaluate(rest, new, sums, values)
    optimal, best, second = _optimum(values)
    return optimal & base == 0 and (second - best) / (spent + best) > margin


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _some_corner_flips(rest, old, new, slots, pairs, sums, values, base, spent, margin, levels):  # type: ignore[no-untyped-def]
    """Whether some edit of one entry, or of two if `pairs`, moves the optimum by the margin.

    It is enough to try the extreme values: lower the changed entries that the new optimum uses to 1 and raise the
    others to `levels`, and its cost falls by at least as much as that of any other action.
    """
    for first in range(slots):
        for extreme in (1, levels):
            new[:] = old
            new[first] = extreme
            if _flips(rest, new, sums, values, base, spent, margin):
                return True
            for second in range(first + 1, slots if pairs else 0):
                for other_extreme in (1, levels):
                    new[second] = other_extreme
                    if _flips(rest, new, sums, values, base, spent, margin):
                        return True
                new[second] = old[second]
    return False


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _search_state(weights, rest, picked, slots, spent, levels, margin, max_entries, state, entries, changes):  # type: ignore[no-untyped-def]
    """Write the edits of one state that move its optimum."""
    old, new, sums, values = np.zeros(SLOTS), np.empty(SLOTS), np.empty(_PATTERNS), np.empty(len(rest))
    order, pairs, found = np.arange(slots), max_entries == 2 and slots == SLOTS, 0
    for slot in range(slots):
        old[slot] = weights[picked[slot, 0], picked[slot, 1]]
    _evaluate(rest, old, sums, values)
    base, _, _ = _optimum(values)
    if not _some_corner_flips(rest, old, new, slots, pairs, sums, values, base, spent, margin, levels):
        return
    for _ in range(PROPOSALS):
        count = 1
        if pairs:
            state, uniform = next_uniform(state)
            count += uniform < 0.5
        state = _propose(old, order, count, levels, new, state)
        if _flips(rest, new, sums, values, base, spent, margin):
            for place in range(count):
                entries[found, place] = picked[order[place]]
                changes[found, place] = np.int64(new[order[place]] - old[order[place]])
            found += 1
            if found == MAX_FLIPS:
                return


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _search_batch(  # type: ignore[no-untyped-def]
    weights, prefixes, lengths, spent, far, seeds, symmetric, levels, margin, max_entries, entries, changes
):
    batch, n = prefixes.shape
    most = n - lengths.min() if batch else 0
    table, rest = _table(most), np.empty((most, _PATTERNS))
    picked = np.empty((SLOTS, 2), dtype=np.int64)
    for b in range(batch):
        cities = _free_cities(prefixes[b], lengths[b])
        slots, state = _pick_entries(cities, far[b], symmetric, picked, seeds[b])
        if slots > 0:
            current, ours = prefixes[b, lengths[b] - 1], rest[: len(cities)]
            _rest_costs(weights[b], current, cities, picked, symmetric, table, ours)
            _search_state(
                weights[b], ours, picked, slots, spent[b], levels, margin, max_entries, state, entries[b], changes[b]
            )
