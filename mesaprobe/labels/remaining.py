"""What is left of a tour after a prefix, and the table of best costs-to-go over its subsets (compiled code).

The cities that a tour visits after its first `start` cities are numbered 0..m-1 in the order of the tour, so that
the unvisited set of every later state along it is a bit mask with the lowest bits cleared. A table `[2^m, m]`
holds in entry [R, j] the value of leaving city j, visiting the set R once (j not in R) and ending at city 0;
entries with j in R are meaningless. All values are whole numbers.
"""

from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Int64

from mesaprobe.errors import UserError

MAX_CITIES = 20
"""Largest n: a table takes 8 m 2^m bytes, 80 MB with m = 19 cities left."""


class Remaining(NamedTuple):
    """The cities left to visit and the weights among them."""

    cities: Int64[np.ndarray, " m"]
    """Their names."""
    inner: Int64[np.ndarray, "m m"]
    """Weight from one to another."""
    leave: Int64[np.ndarray, " m"]
    """Weight from each to city 0."""


def make_table(n: int, start: int) -> Int64[np.ndarray, "subset m"]:
    """Space for the table of the n - start cities behind the first `start`; raises UserError for n > 20."""
    if n > MAX_CITIES:
        raise UserError(f"exact labels take at most {MAX_CITIES} cities, got {n}")
    return np.zeros((1 << (n - start), n - start), dtype=np.int64)


def chosen_steps(n: int, steps: slice) -> Int64[np.ndarray, " step"]:
    """The decisions of a tour through n cities that a slice of its n - 1 decisions names, in ascending order.

    >>> chosen_steps(8, slice(1, 4))
    array([1, 2, 3])
    """
    chosen = np.arange(n - 1)[steps]
    if len(chosen) == 0 or (np.diff(chosen) < 0).any():
        raise UserError(f"steps must name decisions of 0..{n - 2} in ascending order, got {steps}")
    return chosen


@numba.njit(cache=True, nogil=True)
def remaining_cities(weights, tour, start):  # type: ignore[no-untyped-def]
    """The cities of the tour behind its first `start`."""
    cities = tour[start:].copy()
    m = len(cities)
    inner, leave = np.empty((m, m), dtype=np.int64), np.empty(m, dtype=np.int64)
    for i in range(m):
        leave[i] = weights[cities[i], 0]
        for j in range(m):
            inner[i, j] = weights[cities[i], cities[j]]
    return Remaining(cities, inner, leave)


@numba.njit(cache=True, nogil=True)
def unvisited_at(step, start, m):  # type: ignore[no-untyped-def]
    """Mask of the cities left after the first `step` + 1 >= `start` cities of the tour."""
    visited = step + 1 - start
    return ((1 << m) - 1) >> visited << visited


@numba.njit(cache=True, nogil=True)
def fill_table(left, bottleneck, table):  # type: ignore[no-untyped-def]
    """Fill the table for the least sum of weights (Held and Karp 1962), or with `bottleneck` for the least largest
    weight (Gilmore and Gomory 1964)."""
    into = left.inner.T.copy()
    table[0] = left.leave
    for rest in range(1, len(table)):
        best_onward(into, rest, bottleneck, table)


@numba.njit(cache=True, nogil=True)
def best_onward(into, rest, bottleneck, table):  # type: ignore[no-untyped-def]
    """Write row `rest` of the table: from every city (all at once, for speed) the best step into the set, with what
    the rows of the smaller sets say from there on. `into[k, j]` is the weight from j to k."""
    m = table.shape[1]
    best = table[rest]
    best[:] = np.iinfo(np.int64).max
    for k in range(m):
        if rest >> k & 1:
            onward = table[rest ^ (1 << k), k]
            if bottleneck:
                for j in range(m):
                    best[j] = min(best[j], max(into[k, j], onward))
            else:
                for j in range(m):
                    best[j] = min(best[j], into[k, j] + onward)
