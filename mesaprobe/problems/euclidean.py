"""Points in the plane, distances rounded up (CEIL_2D), which keeps the triangle inequality."""

import numpy as np
from jaxtyping import Float32, Int32

from mesaprobe.errors import UserError
from mesaprobe.problems.instances import FAMILIES, Instances, Problem, ProblemConfig


def ceil_distances(coordinates: Int32[np.ndarray, "batch n 2"]) -> Int32[np.ndarray, "batch n n"]:
    """Distances between integer points, rounded up exactly (no floating-point doubt at whole numbers).

    >>> ceil_distances(np.array([[[0, 0], [3, 4], [1, 1]]], dtype=np.int32))[0, 0]
    array([0, 5, 2], dtype=int32)
    """
    difference = coordinates[:, :, None, :].astype(np.int64) - coordinates[:, None, :, :]
    squared = (difference**2).sum(axis=-1)
    root = np.floor(np.sqrt(squared.astype(np.float64))).astype(np.int64)
    root -= root * root > squared
    root += (root + 1) * (root + 1) <= squared
    return (root + (root * root < squared)).astype(np.int32)


@FAMILIES.register("euclidean")
class EuclideanProblem(Problem):
    """Uniform points on an integer grid. Features of a city: its coordinates in [0, 1]."""

    family = "euclidean"
    symmetric = True
    planar = True

    def __init__(self, config: ProblemConfig) -> None:
        super().__init__(config)
        if not 1 <= config.grid <= 1_000_000:
            raise UserError(f"problem.grid must lie in 1..1000000, got {config.grid}")
        self.grid = config.grid

    @property
    def feature_width(self) -> int:
        return 2

    def draw(self, count: int, rng: np.random.Generator) -> Instances:
        coordinates = rng.integers(0, self.grid + 1, size=(count, self.n, 2), dtype=np.int32)
        return Instances(self, ceil_distances(coordinates), coordinates)

    def features(self, instances: Instances) -> Float32[np.ndarray, "batch n f"]:
        if instances.coordinates is None:
            raise ValueError("euclidean instances need their coordinates")
        return (instances.coordinates / np.float32(self.grid)).astype(np.float32)

    def neighbours(self, instance: Instances, rng: np.random.Generator, count: int) -> Instances:
        if instance.coordinates is None:
            raise ValueError("euclidean instances need their coordinates")
        coordinates = np.repeat(instance.coordinates[:1], count, axis=0)
        moved = rng.integers(0, self.n, size=count)
        coordinates[np.arange(count), moved] = rng.integers(0, self.grid + 1, size=(count, 2), dtype=np.int32)
        return Instances(self, ceil_distances(coordinates), coordinates)
