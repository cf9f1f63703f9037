"""Assignment bound: every city gets one way out and one way in, short cycles allowed (symmetric weights or not)."""

from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Bool, Int64

_FORBIDDEN = 2**45
"""Cost of an impossible arc: more than any path (n * 2^31), small enough for sums in int64."""


class Assignment(NamedTuple):
    """Costs and scratch space of one assignment problem with up to n rows; column 0 is a sentinel."""

    costs: Int64[np.ndarray, "n n"]
    scanned: Bool[np.ndarray, " n+1"]
    row_prices: Int64[np.ndarray, " n+1"]
    column_prices: Int64[np.ndarray, " n+1"]
    owners: Int64[np.ndarray, " n+1"]
    """Row that holds each column, counted from 1 (0: none)."""
    slack: Int64[np.ndarray, " n+1"]
    previous: Int64[np.ndarray, " n+1"]


def make_assignment(n: int) -> Assignment:
    """Space for the assignment problems of instances with n cities."""
    vectors = (np.zeros(n + 1, dtype=np.int64) for _ in range(5))
    return Assignment(np.zeros((n, n), dtype=np.int64), np.zeros(n + 1, dtype=np.bool_), *vectors)


@numba.njit(cache=True, nogil=True)
def load_assignment(weights, free, current, problem):  # type: ignore[no-untyped-def]
    """Rows: the current city, then the unvisited ones. Columns: city 0, then the unvisited ones. Returns the size.

    A city may not follow itself, and city 0 may not follow the current city while others wait.
    """
    size = 1
    problem.costs[0, 0] = _FORBIDDEN
    for u in range(len(free)):
        if free[u]:
            problem.costs[0, size] = weights[current, u]
            problem.costs[size, 0] = weights[u, 0]
            column = 1
            for v in range(len(free)):
                if free[v]:
                    problem.costs[size, column] = _FORBIDDEN if u == v else np.int64(weights[u, v])
                    column += 1
            size += 1
    return size


@numba.njit(cache=True, nogil=True)
def cheapest_assignment(problem, size):  # type: ignore[no-untyped-def]
    """Cost of the cheapest assignment, by shortest augmenting paths (Kuhn 1955; Jonker and Volgenant 1987)."""
    problem.row_prices[: size + 1] = 0
    problem.column_prices[: size + 1] = 0
    problem.owners[: size + 1] = 0
    for row in range(1, size + 1):
        problem.owners[0] = row
        _augment(problem, size)
    return -problem.column_prices[0]


@numba.njit(cache=True, nogil=True)
def _augment(problem, size):  # type: ignore[no-untyped-def]
    """Give the row that owns the sentinel a column of its own, along a shortest alternating path."""
    unreached = np.iinfo(np.int64).max
    for column in range(1, size + 1):
        problem.slack[column] = unreached
        problem.scanned[column] = False
    column = 0
    while problem.owners[column] != 0:
        problem.scanned[column] = True
        row = problem.owners[column]
        step, following = unreached, 0
        for j in range(1, size + 1):
            if not problem.scanned[j]:
                reduced = problem.costs[row - 1, j - 1] - problem.row_prices[row] - problem.column_prices[j]
                if reduced < problem.slack[j]:
                    problem.slack[j], problem.previous[j] = reduced, column
                if problem.slack[j] < step:
                    step, following = problem.slack[j], j
        for j in range(size + 1):
            if j == 0 or problem.scanned[j]:
                problem.row_prices[problem.owners[j]] += step
                problem.column_prices[j] -= step
            else:
                problem.slack[j] -= step
        column = following
    while column != 0:
        before = problem.previous[column]
        problem.owners[column] = problem.owners[before]
        column = before
