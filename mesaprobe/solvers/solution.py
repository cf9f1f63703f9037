"""What every solver returns."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32


@dataclass(frozen=True)
class Solution:
    """One tour of one instance and what is known about it."""

    tour: tuple[int, ...]
    """Cities in order of visit, from city 0."""
    cost: int
    """Length of the closed tour, summed from the integer weights."""
    optimal: bool | None
    """True: proven. False: a heuristic's tour, no claim. None: stopped without a proof, best tour found."""
    method: str
    seconds: float
    """Wall-clock time of the solver."""


def make_solution(
    weights: Int32[np.ndarray, "n n"],
    tour: Sequence[int] | np.ndarray,
    *,
    optimal: bool | None,
    method: str,
    started: float,
) -> Solution:
    """Solution of a legal tour, rotated to city 0 and costed; `started` is a reading of time.monotonic()."""
    cities = [int(city) for city in tour]
    zero = cities.index(0)
    cities = cities[zero:] + cities[:zero]
    return Solution(tuple(cities), tour_cost(weights, cities), optimal, method, time.monotonic() - started)


def tour_cost(weights: Int32[np.ndarray, "n n"], tour: Sequence[int] | np.ndarray) -> int:
    """Length of one closed tour."""
    return int(weights[tour, np.roll(tour, -1)].sum(dtype=np.int64)) if len(tour) > 1 else 0


def tiny_solution(weights: Int32[np.ndarray, "n n"], method: str) -> Solution | None:
    """The optimum of up to 3 cities, found by trying both directions; None for more."""
    started = time.monotonic()
    n = len(weights)
    if n > 3:
        return None
    tours = [(0, *rest) for rest in itertools.permutations(range(1, n))]
    best = min(tours, key=lambda tour: tour_cost(weights, tour))
    return make_solution(weights, best, optimal=True, method=method, started=started)
