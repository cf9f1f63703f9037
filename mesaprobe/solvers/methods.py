"""Every way to solve one instance, under one name and one signature."""

import os
import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Int32, Real

from mesaprobe.errors import UserError
from mesaprobe.registry import Registry
from mesaprobe.solvers.algorithms import ALGORITHMS, Algorithm
from mesaprobe.solvers.exact import held_karp, reduced_cost_search
from mesaprobe.solvers.exact.cp_sat import solve_cp_sat
from mesaprobe.solvers.exact.highs import fits_highs, solve_highs
from mesaprobe.solvers.improvement.routing import routing
from mesaprobe.solvers.solution import Solution, make_solution, tiny_solution

Method: TypeAlias = Callable[[np.ndarray, np.ndarray | None, float | None, int], Solution]
"""(weights [n, n], coordinates [n, 2] or None, time limit in seconds or None, seed) -> solution."""

METHODS: Registry[Method] = Registry("solver")

HELD_KARP_CITIES = 15
"""`auto` takes dynamic programming up to here: milliseconds, and time and memory that depend on n only."""

EXACT_CITIES = 200
"""Largest n of CP-SAT and HiGHS: beyond it, building the model alone can exceed a time limit."""

ALGORITHM_CITIES = {3: 50, 4: 500, 5: 50}
"""Largest n of the algorithms of these degrees: about half a minute for the slowest, which no time limit ends."""

EXACT_ALGORITHM_CITIES = {
    "held_karp": held_karp.MAX_CITIES,
    "branch_and_bound": 20,
    "reduced_cost_search": reduced_cost_search.MAX_CITIES,
}
"""Largest n of the exact ones. The tree of branch and bound can grow tenfold with every four cities."""


def solve(
    weights: Int32[np.ndarray, "n n"],
    method: str = "auto",
    time_limit: float | None = None,
    seed: int = 0,
    coordinates: Real[np.ndarray, "n 2"] | None = None,
) -> Solution:
    """Solve one instance of n >= 1 cities by a named method (see `METHODS`).

    `time_limit` is in seconds; when it ends CP-SAT or HiGHS, the best tour comes back with `optimal=None`;
    with it `routing` goes on until it is over; the other methods take no notice of it. Raises UserError for weights
    that are no square matrix of whole numbers >= 0, an unknown method, a time limit that is not positive, an instance
    too large for the method, or one without what the method needs (coordinates, symmetry).

    >>> solve(np.array([[0, 1, 9], [9, 0, 2], [3, 9, 0]], dtype=np.int32)).cost
    6
    """
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or len(weights) == 0:
        raise UserError(f"weights must have shape (n, n) with n >= 1, got {weights.shape}")
    if weights.dtype.kind not in "iu" or weights.min() < 0 or weights.max() > np.iinfo(np.int32).max:
        extremes = f"{weights.dtype} from {weights.min()} to {weights.max()}"
        raise UserError(f"weights must be whole numbers from 0 to {np.iinfo(np.int32).max}, got {extremes}")
    if time_limit is not None and not time_limit > 0:
        raise UserError(f"the time limit must be a positive number of seconds, got {time_limit}")
    chosen = METHODS[method]
    weights = weights.astype(np.int32)
    return tiny_solution(weights, method) or chosen(weights, coordinates, time_limit, seed)


@METHODS.register("auto")
def _auto(weights: np.ndarray, coordinates: np.ndarray | None, time_limit: float | None, seed: int) -> Solution:
    """Proven optimum: Held-Karp to n = 15, then HiGHS, and CP-SAT where HiGHS can't prove.

        Measured on 2 cores in seconds, HiGHS / CP-SAT with 2 workers, both proving every published optimum:
    ulysses16 .02 / .03, gr17 .03 / .05, gr21 .01 / .02, ulysses22 .04 / 1.7, gr24 .02 / .05, fri26 .04 / .18,
    bayg29 .06 / .24, bays29 .05 / .31, dantzig42 .07 / 5.3, att48 .26 / 4.6, gr48 .41 / 13.7, hk48 .20 / 3.4,
    eil51 .11 / 3.2, berlin52 .06 / 3.3. Asymmetric random weights, n = 50: up to .2 / .14 (1 to 64) and
    .8 / .06 (0 to 3), the one kind where CP-SAT is ahead.
    """
    if len(weights) <= HELD_KARP_CITIES:
        return METHODS["held_karp"](weights, coordinates, time_limit, seed)
    started = time.monotonic()
    first = None
    if fits_highs(weights):
        first = _highs(weights, coordinates, time_limit, seed)
        if first.optimal:
            return first
    left = None if time_limit is None else time_limit - (time.monotonic() - started)
    if first is not None and left is not None and left <= 0:
        return first
    second = _cp_sat(weights, coordinates, left, seed)
    best = second if first is None or second.optimal or second.cost < first.cost else first
    return make_solution(weights, best.tour, optimal=best.optimal, method=best.method, started=started)


@METHODS.register("cp_sat")
def _cp_sat(weights: np.ndarray, _coordinates: np.ndarray | None, time_limit: float | None, seed: int) -> Solution:
    _check_size(weights, "cp_sat", EXACT_CITIES)
    workers = min(8, os.cpu_count() or 1)
    return solve_cp_sat(weights, time_limit=time_limit, workers=workers, seed=seed)


@METHODS.register("highs")
def _highs(weights: np.ndarray, _coordinates: np.ndarray | None, time_limit: float | None, _seed: int) -> Solution:
    _check_size(weights, "highs", EXACT_CITIES)
    return solve_highs(weights, time_limit=time_limit)


@METHODS.register("routing")
def _routing(weights: np.ndarray, _coordinates: np.ndarray | None, time_limit: float | None, _seed: int) -> Solution:
    started = time.monotonic()
    tour = routing(weights[None], time_limit=time_limit)[0]
    return make_solution(weights, tour, optimal=False, method="routing", started=started)


def _of_the_library(algorithm: Algorithm) -> Method:
    """The method that runs an algorithm of the library on one instance."""

    def run(weights: np.ndarray, coordinates: np.ndarray | None, _limit: float | None, seed: int) -> Solution:
        by_degree = ALGORITHM_CITIES.get(algorithm.degree, len(weights))
        _check_size(weights, algorithm.name, EXACT_ALGORITHM_CITIES.get(algorithm.name, by_degree))
        started = time.monotonic()
        tours = algorithm(weights[None], None if coordinates is None else coordinates[None], seed)
        return make_solution(weights, tours[0], optimal=algorithm.exact, method=algorithm.name, started=started)

    return run


def _check_size(weights: np.ndarray, method: str, largest: int) -> None:
    if len(weights) > largest:
        limit = f"{method} takes at most {largest} cities, got {len(weights)}"
        raise UserError(f"{limit}; nearest_neighbour and greedy_edge take more")


for _name in ALGORITHMS:
    if _name not in METHODS:
        METHODS.add(_name, _of_the_library(ALGORITHMS[_name]))
