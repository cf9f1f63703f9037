"""Other packages' solvers behind one call; None where a package is not installed (the extra `bench` brings them)."""

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from mesaprobe.problems import Instances, tour_costs

CP_SAT = "OR-Tools CP-SAT, 1 worker"
PYTHON_TSP = "python-tsp, dynamic programming"
FAST_TSP = "fast-tsp"

Peer = Callable[[Instances], np.ndarray]
"""Instances -> cost of the tour found for each."""

FAST_TSP_BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds per instance, tried from the shortest on."""


def cp_sat(instances: Instances) -> Int64[np.ndarray, " batch"]:
    """OR-Tools CP-SAT as this package calls it, one worker; proves every tour."""
    from mesaprobe.solvers.exact.cp_sat import solve_cp_sat

    return np.array([solve_cp_sat(weights, workers=1).cost for weights in instances.weights])


def python_tsp() -> Peer | None:
    """python-tsp's exact solver."""
    if importlib.util.find_spec("python_tsp") is None:
        return None
    from python_tsp.exact import solve_tsp_dynamic_programming

    return lambda instances: np.array([solve_tsp_dynamic_programming(weights)[1] for weights in instances.weights])


def fast_tsp() -> Callable[[float], Peer] | None:
    """fast-tsp with a budget in seconds per instance. Up to 20 cities it runs a dynamic program and takes no notice of
    the budget; above, iterated local search on triangular distances without a proof."""
    if importlib.util.find_spec("fast_tsp") is None:
        return None
    from fast_tsp import find_tour

    def within(budget: float) -> Peer:
        def solve(instances: Instances) -> np.ndarray:
            tours = np.array([find_tour(weights, budget) for weights in instances.weights], dtype=np.int64)
            return tour_costs(instances.weights, tours)

        return solve

    return within


def first_always_optimal(
    within: Callable[[float], Peer],
    instances: Instances,
    optimum: Int64[np.ndarray, " batch"],
    budgets: Sequence[float] = FAST_TSP_BUDGETS,
) -> float | None:
    """The shortest of the budgets within which every instance is solved to the optimum; None if none is enough."""
    for budget in budgets:
        if (within(budget)(instances) == optimum).all():
            return budget
    return None
