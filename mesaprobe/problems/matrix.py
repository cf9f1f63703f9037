"""Random distance matrices: no geometry, so heuristics help least (DESIGN section 4)."""

import numpy as np
from jaxtyping import Float32

from mesaprobe.errors import UserError
from mesaprobe.problems.instances import FAMILIES, Instances, Problem, ProblemConfig


class _RandomWeights(Problem):
    """Shared by both matrix families: weights i.i.d. uniform on 1..levels, zero diagonal."""

    def __init__(self, config: ProblemConfig) -> None:
        super().__init__(config)
        if not 1 <= config.levels <= 10_000_000:
            raise UserError(f"problem.levels must lie in 1..10000000, got {config.levels}")
        self.levels = config.levels

    def draw(self, count: int, rng: np.random.Generator) -> Instances:
        weights = rng.integers(1, self.levels + 1, size=(count, self.n, self.n), dtype=np.int32)
        if self.symmetric:
            upper = np.triu(weights, k=1)
            weights = upper + upper.transpose(0, 2, 1)
        weights[:, np.arange(self.n), np.arange(self.n)] = 0
        return Instances(self, weights)

    def neighbours(self, instance: Instances, rng: np.random.Generator, count: int) -> Instances:
        weights = np.repeat(instance.weights[:1], count, axis=0)
        rows = np.arange(count)
        u = rng.integers(0, self.n, size=count)
        v = (u + rng.integers(1, self.n, size=count)) % self.n
        values = rng.integers(1, self.levels + 1, size=count, dtype=np.int32)
        weights[rows, u, v] = values
        if self.symmetric:
            weights[rows, v, u] = values
        return Instances(self, weights)


@FAMILIES.register("matrix")
class MatrixProblem(_RandomWeights):
    """Symmetric random matrices. Features of a city: its row divided by `levels` (n values)."""

    family = "matrix"
    symmetric = True

    @property
    def feature_width(self) -> int:
        return self.n

    def features(self, instances: Instances) -> Float32[np.ndarray, "batch n f"]:
        return (instances.weights / np.float32(self.levels)).astype(np.float32)


@FAMILIES.register("asymmetric")
class AsymmetricProblem(_RandomWeights):
    """Random matrices without symmetry. Features: row and column divided by `levels` (2n values)."""

    family = "asymmetric"
    symmetric = False

    @property
    def feature_width(self) -> int:
        return 2 * self.n

    def features(self, instances: Instances) -> Float32[np.ndarray, "batch n f"]:
        both = np.concatenate([instances.weights, instances.weights.transpose(0, 2, 1)], axis=2)
        return (both / np.float32(self.levels)).astype(np.float32)
