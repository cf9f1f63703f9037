"""Instance families behind one registry, batches drawn from a seed, TSPLIB files."""

from mesaprobe.problems.euclidean import EuclideanProblem, ceil_distances
from mesaprobe.problems.instances import (
    FAMILIES,
    Instances,
    Problem,
    ProblemConfig,
    canonical_tours,
    make_problem,
    random_tours,
    rotate_to_city_zero,
    tour_costs,
)
from mesaprobe.problems.matrix import AsymmetricProblem, MatrixProblem

__all__ = [
    "FAMILIES",
    "AsymmetricProblem",
    "EuclideanProblem",
    "Instances",
    "MatrixProblem",
    "Problem",
    "ProblemConfig",
    "canonical_tours",
    "ceil_distances",
    "make_problem",
    "random_tours",
    "rotate_to_city_zero",
    "tour_costs",
]
