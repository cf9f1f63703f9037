"""The reference library: exact solvers, bounds, constructive rules, local search, annealing, look-ahead.

Every algorithm that builds tours is in `ALGORITHMS` under its name; `solve` solves one instance by name.

>>> import numpy as np
>>> from mesaprobe.problems import ProblemConfig, make_problem
>>> instances = make_problem(ProblemConfig(n=8)).draw(100, np.random.default_rng(0))
>>> tours = {name: ALGORITHMS[name](instances.weights) for name in HEUR_V1}
>>> solve(instances.weights[0]).cost <= instances.tour_costs(tours["savings"])[0]
np.True_
"""

from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1, Algorithm
from mesaprobe.solvers.methods import METHODS, solve
from mesaprobe.solvers.solution import Solution

__all__ = ["ALGORITHMS", "HEUR_V1", "METHODS", "Algorithm", "Solution", "solve"]
