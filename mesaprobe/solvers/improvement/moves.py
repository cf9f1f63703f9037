"""The moves of local search: finding one that shortens a tour, and making it.

A move is (kind, i, j, k) on the positions of the tour. REVERSE: turn round positions i+1..j. REVERSE_OTHER: turn
round the rest of the tour instead, which gives the same undirected tour walked the other way. SEGMENT and FLIPPED:
take out the i cities from position j on (past the end of the tour it goes on at its beginning) and put them behind
position k, as they stand or turned round.
"""

import numba
import numpy as np

NONE, REVERSE, REVERSE_OTHER, SEGMENT, FLIPPED = range(5)


@numba.njit(cache=True, nogil=True)
def descend(weights, tours, two_opt, longest, first, trace, moves):  # type: ignore[no-untyped-def]
    """Make moves in place until none shortens a tour; count them, and write the tours that `trace` has room for."""
    batch, n = tours.shape
    twice = np.empty(2 * n, dtype=np.int64)
    ahead = np.empty(2 * n, dtype=np.int64)
    back = np.empty(2 * n, dtype=np.int64)
    for b in range(batch):
        symmetric = np.array_equal(weights[b], weights[b].T)
        while True:
            if moves[b] < trace.shape[1]:
                trace[b, moves[b]] = tours[b]
            change, move = _best_move(weights[b], tours[b], symmetric, two_opt, longest, first, twice, ahead, back)
            if change >= 0:
                break
            _apply_move(tours[b], move, twice)
            moves[b] += 1


@numba.njit(cache=True, nogil=True)
def _best_move(weights, tour, symmetric, two_opt, longest, first, twice, ahead, back):  # type: ignore[no-untyped-def]
    """The change of cost and the move that lowers it most, or with `first` the first that lowers it at all.

    `twice`, `ahead` and `back` are scratch space for 2n numbers each: the tour twice in a row, and the cost of
    walking it up to each position in its direction and against it.
    """
    n = len(tour)
    for t in range(2 * n):
        twice[t] = tour[t % n]
    ahead[0] = back[0] = 0
    for t in range(1, 2 * n):
        ahead[t] = ahead[t - 1] + weights[twice[t - 1], twice[t]]
        back[t] = back[t - 1] + weights[twice[t], twice[t - 1]]
    change, move = np.int64(0), (NONE, 0, 0, 0)
    if two_opt:
        change, move = _two_opt(weights, twice, symmetric, first, ahead, back)
    if not (first and change < 0):
        for length in range(1, min(longest, n - 2) + 1):
            better, candidate = _segments(weights, twice, length, first, ahead, back)
            if better < change:
                change, move = better, candidate
                if first:
                    break
    return change, move


@numba.njit(cache=True, nogil=True)
def _two_opt(weights, twice, symmetric, first, ahead, back):  # type: ignore[no-untyped-def]
    n = len(twice) // 2
    best, move = np.int64(0), (NONE, 0, 0, 0)
    for i in range(n - 2):
        a, b = twice[i], twice[i + 1]
        for j in range(i + 2, n):
            c, d = twice[j], twice[j + 1]
            removed = np.int64(weights[a, b]) + weights[c, d]
            change = weights[a, c] + weights[b, d] - removed
            if not symmetric:
                # the path from b to c is walked from c to b, or the path from d round to a from a to d
                change += (back[j] - back[i + 1]) - (ahead[j] - ahead[i + 1])
            if change < best:
                best, move = change, (REVERSE, i, j, 0)
                if first:
                    return best, move
            if not symmetric:
                change = weights[c, a] + weights[d, b] - removed
                change += (back[i + n] - back[j + 1]) - (ahead[i + n] - ahead[j + 1])
                if change < best:
                    best, move = change, (REVERSE_OTHER, i, j, 0)
                    if first:
                        return best, move
    return best, move


@numba.njit(cache=True, nogil=True)
def _segments(weights, twice, length, first, ahead, back):  # type: ignore[no-untyped-def]
    n = len(twice) // 2
    best, move = np.int64(0), (NONE, 0, 0, 0)
    for i in range(n):
        before, head, tail = twice[i + n - 1], twice[i], twice[i + length - 1]
        after = twice[(i + length) % n]
        taken = np.int64(weights[before, after]) - weights[before, head] - weights[tail, after]
        last = i + length - 1
        turned = (back[last] - back[i]) - (ahead[last] - ahead[i])
        for offset in range(length, n - 1):
            k = (i + offset) % n
            u, v = twice[k], twice[k + 1]
            opened = taken - weights[u, v]
            change = opened + weights[u, head] + weights[tail, v]
            if change < best:
                best, move = change, (SEGMENT, length, i, k)
                if first:
                    return best, move
            change = opened + turned + weights[u, tail] + weights[head, v]
            if change < best:
                best, move = change, (FLIPPED, length, i, k)
                if first:
                    return best, move
    return best, move


@numba.njit(cache=True, nogil=True)
def _apply_move(tour, move, twice):  # type: ignore[no-untyped-def]
    """Make the move in place and rotate the tour back to city 0; `twice` is as `_best_move` has left it."""
    n = len(tour)
    kind, i, j, k = move
    if kind in (REVERSE, REVERSE_OTHER):
        tour[i + 1 : j + 1] = twice[i + 1 : j + 1][::-1]
        if kind == REVERSE_OTHER:
            tour[1:] = tour[1:][::-1].copy()
        return
    # the rest of the tour starts behind the segment; position k lies `place` steps further on
    place = (k - (j + i)) % n
    count = 0
    for t in range(n - i):
        tour[count] = twice[(j + i + t) % n]
        count += 1
        if t == place:
            for s in range(i):
                tour[count] = twice[j + (i - 1 - s if kind == FLIPPED else s)]
                count += 1
    start = 0
    while tour[start] != 0:
        start += 1
    tour[:] = np.concatenate((tour[start:], tour[:start]))
