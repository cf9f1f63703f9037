"""Lists of directed tours: all of them, or a random few."""

import math

import numpy as np
from jaxtyping import Int64

from mesaprobe.errors import UserError

MAX_LISTED = 50_000
"""One hidden unit per tour: 9 cities (40,320 tours) still fit."""


def all_tours(n: int) -> Int64[np.ndarray, "tour n"]:
    """All (n - 1)! directed tours from city 0, in lexicographic order; n <= 9.

    >>> all_tours(4)[:3].tolist()
    [[0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 1, 3]]
    """
    count = math.factorial(n - 1)
    if count > MAX_LISTED:
        raise UserError(f"a network with one unit per tour holds at most {MAX_LISTED} tours (9 cities), got n = {n}")
    return _tours_by_rank(n, np.arange(count))


def listed_tours(n: int, k: int, seed: int) -> Int64[np.ndarray, "k n"]:
    """k different directed tours from city 0, drawn at random, in lexicographic order; n <= 20."""
    count = math.factorial(n - 1)
    if not 1 <= k <= min(count, MAX_LISTED):
        raise UserError(f"a list holds 1 to {min(count, MAX_LISTED)} tours of {n} cities, got k = {k}")
    rng = np.random.default_rng(seed)
    return _tours_by_rank(n, np.sort(rng.choice(count, size=k, replace=False, shuffle=False)))


def _tours_by_rank(n: int, ranks: Int64[np.ndarray, " tour"]) -> Int64[np.ndarray, "tour n"]:
    """Tours by their place in lexicographic order (digits in the factorial number system)."""
    tours = np.zeros((len(ranks), n), dtype=np.int64)
    free = np.tile(np.arange(1, n), (len(ranks), 1))
    rest = np.asarray(ranks, dtype=np.int64)
    for place in range(1, n):
        digit, rest = np.divmod(rest, math.factorial(n - 1 - place))
        tours[:, place] = free[np.arange(len(free)), digit]
        free = free[np.arange(free.shape[1]) != digit[:, None]].reshape(len(free), -1)
    return tours
