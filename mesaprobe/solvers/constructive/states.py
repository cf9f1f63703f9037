"""States: legal prefixes, and for those along given tours which cities are free, how far, and which nearest."""

import numba
import numpy as np
from jaxtyping import Bool, Int32, Int64

from mesaprobe.errors import UserError


def checked_prefixes(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> tuple[Int64[np.ndarray, "batch n"], Int64[np.ndarray, " batch"]]:
    """A copy of the prefixes that a rule may write on, and their lengths.

    Raises UserError unless the first `lengths[b]` cities of each prefix, 1 to n of them, begin with city 0 and
    name no city twice. What stands behind them is ignored.
    """
    tours, lengths = np.array(prefixes, dtype=np.int64, order="C"), np.asarray(lengths, dtype=np.int64)
    if tours.shape != weights.shape[:2] or lengths.shape != tours.shape[:1]:
        raise UserError(
            f"weights of shape {weights.shape} need prefixes of shape {weights.shape[:2]} and {len(weights)} lengths, "
            f"got {tours.shape} and {lengths.shape}"
        )
    wrong = _first_illegal(tours, lengths)
    if wrong >= 0:
        raise UserError(
            f"a prefix must begin with city 0 and name up to {tours.shape[1]} cities once each, got the first "
            f"{lengths[wrong]} of {tours[wrong].tolist()}"
        )
    return tours, lengths


def city_zero(
    weights: Int32[np.ndarray, "batch n n"],
) -> tuple[Int64[np.ndarray, "batch n"], Int64[np.ndarray, " batch"]]:
    """The prefixes before the first decision, city 0 alone, and their lengths."""
    batch, n = weights.shape[:2]
    return np.zeros((batch, n), dtype=np.int64), np.ones(batch, dtype=np.int64)


def unvisited(tours: Int64[np.ndarray, "batch n"]) -> Bool[np.ndarray, "batch decision n"]:
    """Which cities are still free at each of the n - 1 decisions along the tours.

    >>> unvisited(np.array([[0, 2, 1]]))[0].astype(int)
    array([[0, 1, 1],
           [0, 1, 0]])
    """
    n = tours.shape[1]
    named = tours[:, :-1, None] == np.arange(n)
    return ~np.logical_or.accumulate(named, axis=1)


def step_weights(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Int32[np.ndarray, "batch decision n"]:
    """Weight from the current city to every city, for each of the n - 1 decisions along the tours."""
    return np.take_along_axis(weights, tours[:, :-1, None], axis=1)


def nearest_cities(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Bool[np.ndarray, "batch decision n"]:
    """For every decision along the tours: which unvisited cities are nearest to the current one (all of the ties)."""
    distances = np.where(unvisited(tours), step_weights(weights, tours), np.iinfo(np.int32).max)
    return distances == distances.min(axis=2, keepdims=True)


@numba.njit(cache=True, nogil=True)
def _first_illegal(tours, lengths):  # type: ignore[no-untyped-def]
    """The first prefix that is not legal, or -1."""
    batch, n = tours.shape
    seen = np.empty(n, dtype=np.bool_)
    for b in range(batch):
        if not 1 <= lengths[b] <= n or tours[b, 0] != 0:
            return b
        seen[:] = False
        for city in tours[b, : lengths[b]]:
            if not 0 <= city < n or seen[city]:
                return b
            seen[city] = True
    return -1
