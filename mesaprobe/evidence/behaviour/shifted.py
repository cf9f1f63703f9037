"""Instances of a problem, drawn otherwise than it draws them: rules and searches survive that, fitted maps may not."""

from collections.abc import Callable

import numpy as np

from mesaprobe.problems import Instances, Problem
from mesaprobe.problems.euclidean import ceil_distances

Draw = Callable[[Problem, int, np.random.Generator], Instances]

_SIDE = 10_000


def skewed(problem: Problem, count: int, rng: np.random.Generator) -> Instances:
    """Mostly small weights: a uniform weight w becomes ceil(w^2 / levels)."""
    weights = problem.draw(count, rng).weights.astype(np.int64)
    return Instances(problem, (-(-(weights**2) // problem.config.levels)).astype(np.int32))


def coarse(problem: Problem, count: int, rng: np.random.Generator) -> Instances:
    """Other levels: weights rounded up to multiples of an eighth of the levels."""
    step = max(problem.config.levels // 8, 1)
    return Instances(problem, -(-problem.draw(count, rng).weights // step) * np.int32(step))


def euclidean(problem: Problem, count: int, rng: np.random.Generator) -> Instances:
    """Distances between uniform points, the longest possible being the largest weight."""
    return _from_points(problem, rng.integers(0, _SIDE + 1, size=(count, problem.n, 2)).astype(np.int32))


def clustered(problem: Problem, count: int, rng: np.random.Generator) -> Instances:
    """Points around three centres (normal, a twelfth of the side): the points themselves, or scaled distances."""
    side = problem.config.grid if problem.planar else _SIDE
    centres = rng.random((count, 3, 2))
    points = centres[np.arange(count)[:, None], rng.integers(0, 3, size=(count, problem.n))]
    points = np.clip(points + rng.normal(scale=1 / 12, size=points.shape), 0.0, 1.0)
    return _from_points(problem, np.rint(points * side).astype(np.int32))


def shifts(problem: Problem) -> dict[str, Draw]:
    """The shifts that a problem can show: of its weights, or for points in the plane of where they lie.

    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> list(shifts(make_problem(ProblemConfig("euclidean", 6))))
    ['clustered']
    """
    if problem.planar:
        return {"clustered": clustered}
    return {"skewed": skewed, "coarse": coarse, "euclidean": euclidean, "clustered euclidean": clustered}


def _from_points(problem: Problem, points: np.ndarray) -> Instances:
    if problem.planar:
        return Instances(problem, ceil_distances(points), points)
    scaled = np.ceil(ceil_distances(points) * (problem.config.levels / (_SIDE * 2**0.5 + 1)))
    off_diagonal = ~np.eye(problem.n, dtype=bool)
    return Instances(problem, np.where(off_diagonal, np.maximum(scaled, 1), 0).astype(np.int32))
