"""Local search on one tour: 2-opt and Or-opt, the start of the exact solvers (Croes 1958; Or 1976)."""

import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.solvers.constructive import greedy_edge, nearest_neighbour
from mesaprobe.solvers.solution import tour_cost

_LONGEST_SEGMENT = 3


def starting_tour(weights: Int32[np.ndarray, "n n"]) -> Int64[np.ndarray, " n"]:
    """The better of nearest neighbour and greedy edge after `improve`; n >= 2."""
    tours = [improve(weights, construct(weights[None])[0]) for construct in (nearest_neighbour, greedy_edge)]
    return min(tours, key=lambda tour: tour_cost(weights, tour))


def improve(weights: Int32[np.ndarray, "n n"], tour: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Make the best move until none shortens the tour; the result starts at city 0.

    Moves: 2-opt (symmetric weights only, where a reversed path costs the same) and Or-opt, which moves a
    segment of up to three cities elsewhere, in either direction.

    >>> corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> square = np.abs(corners[:, None] - corners).sum(axis=2).astype(np.int32) ** 2
    >>> improve(square, np.array([0, 3, 1, 2]))
    array([0, 2, 3, 1])
    """
    wide = weights.astype(np.int64)
    symmetric = bool((wide == wide.T).all())
    while True:
        better = _two_opt(wide, tour) if symmetric else None
        better = _or_opt(wide, tour) if better is None else better
        if better is None:
            return np.roll(tour, -int(np.argmin(tour)))
        tour = better


def _two_opt(weights: np.ndarray, tour: np.ndarray) -> np.ndarray | None:
    """The tour after the best exchange of two edges, or None if none helps."""
    following = np.roll(tour, -1)
    edge = weights[tour, following]
    change = weights[np.ix_(tour, tour)] + weights[np.ix_(following, following)] - edge[:, None] - edge
    i, j = sorted(divmod(int(np.argmin(np.triu(change, k=1))), len(tour)))
    if np.triu(change, k=1)[i, j] >= 0:
        return None
    return np.concatenate([tour[: i + 1], tour[i + 1 : j + 1][::-1], tour[j + 1 :]])


def _or_opt(weights: np.ndarray, tour: np.ndarray) -> np.ndarray | None:
    """The tour after the best move of one short segment, or None if none helps."""
    n = len(tour)
    best, move = 0, None
    for length in range(1, min(_LONGEST_SEGMENT, n - 2) + 1):
        for reverse in (False, True):
            change = _segment_changes(weights, tour, length, reverse)
            i, k = divmod(int(np.argmin(change)), n)
            if change[i, k] < best:
                best, move = change[i, k], (length, reverse, i, k)
    if move is None:
        return None
    length, reverse, i, k = move
    turned = np.roll(tour, -i)
    segment, rest = turned[:length], turned[length:]
    place = (k - i) % n - length + 1
    return np.concatenate([rest[:place], segment[::-1] if reverse else segment, rest[place:]])


def _segment_changes(weights: np.ndarray, tour: np.ndarray, length: int, reverse: bool) -> np.ndarray:
    """Change of cost [i, k] if the segment of `length` cities at position i moves behind position k."""
    n = len(tour)
    places = np.arange(n)
    first, last = tour, np.roll(tour, 1 - length)
    before, after = np.roll(tour, 1), np.roll(tour, -length)
    following = np.roll(tour, -1)
    change = weights[before, after] - weights[before, first] - weights[last, after]
    if reverse:
        inside = [(np.roll(tour, -s), np.roll(tour, -s - 1)) for s in range(length - 1)]
        change = change + sum(weights[v, u] - weights[u, v] for u, v in inside)
        first, last = last, first
    joined = weights[np.ix_(tour, first)].T + weights[np.ix_(last, following)] - weights[tour, following]
    offset = (places - places[:, None]) % n
    legal = (offset >= length) & (offset < n - 1)
    return np.where(legal, change[:, None] + joined, np.iinfo(np.int64).max)
