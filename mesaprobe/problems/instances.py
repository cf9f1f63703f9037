"""What a problem is: a family, its parameters, and drawn instances with integer weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.registry import Registry


@dataclass(frozen=True)
class ProblemConfig:
    """Which instances: everything that is needed to draw them again."""

    family: str = "matrix"
    """matrix (symmetric, random), asymmetric (random) or euclidean (points in the plane)."""
    n: int = 8
    """Number of cities, at least 4."""
    levels: int = 64
    """matrix and asymmetric: weights are uniform on 1..levels."""
    grid: int = 10_000
    """euclidean: points are uniform on a square grid of this side."""


@dataclass(frozen=True, eq=False)
class Instances:
    """A batch of instances of one problem.

    `coordinates` are known for families in the plane and None otherwise. Indexing with a slice or an
    index array gives the selected instances.
    """

    problem: "Problem"
    weights: Int32[np.ndarray, "batch n n"]
    coordinates: Int32[np.ndarray, "batch n 2"] | None = None

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: slice | np.ndarray) -> "Instances":
        coordinates = None if self.coordinates is None else self.coordinates[index]
        return Instances(self.problem, self.weights[index], coordinates)

    @property
    def features(self) -> Float32[np.ndarray, "batch n f"]:
        """What the network is shown, one row per city (DESIGN section 4)."""
        return self.problem.features(self)

    def tour_costs(self, tours: Int64[np.ndarray, "batch n"]) -> Int64[np.ndarray, " batch"]:
        """Length of each closed tour, one tour per instance."""
        return tour_costs(self.weights, tours)

    @staticmethod
    def concatenate(parts: "Sequence[Instances]") -> "Instances":
        """One batch made of several of the same problem, in order."""
        coordinates = [part.coordinates for part in parts if part.coordinates is not None]
        return Instances(
            parts[0].problem,
            np.concatenate([part.weights for part in parts]),
            np.concatenate(coordinates) if coordinates else None,
        )


class Problem(ABC):
    """One family with its parameters fixed. Subclasses say how instances are drawn and shown."""

    family: ClassVar[str]
    symmetric: ClassVar[bool]
    """True if every tour costs the same in both directions."""
    planar: ClassVar[bool] = False
    """True if an instance is drawn from points in the plane."""

    def __init__(self, config: ProblemConfig) -> None:
        if config.n < 4:
            raise UserError(f"problem.n must be at least 4 (fewer cities leave nothing to decide), got {config.n}")
        self.config = config
        self.n = config.n

    @property
    @abstractmethod
    def feature_width(self) -> int:
        """Number of features per city."""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> Instances:
        """Draw `count` instances."""

    @abstractmethod
    def features(self, instances: Instances) -> Float32[np.ndarray, "batch n f"]:
        """The network's input for these instances, each value in [0, 1]."""

    @abstractmethod
    def neighbours(self, instance: Instances, rng: np.random.Generator, count: int) -> Instances:
        """`count` copies of one instance, each with one elementary part redrawn (one weight, or one point)."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config})"


FAMILIES: Registry[type[Problem]] = Registry("problem family")


def make_problem(config: ProblemConfig) -> Problem:
    """The problem that a config describes.

    >>> make_problem(ProblemConfig(family="asymmetric", n=5)).symmetric
    False
    """
    return FAMILIES[config.family](config)


def tour_costs(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Int64[np.ndarray, " batch"]:
    """Length of each closed tour, one tour per instance.

    >>> weights = np.array([[[0, 1, 9], [9, 0, 2], [3, 9, 0]]], dtype=np.int32)
    >>> int(tour_costs(weights, np.array([[0, 1, 2]]))[0])
    6
    """
    rows = np.arange(len(weights))[:, None]
    return weights[rows, tours, np.roll(tours, -1, axis=1)].sum(axis=1, dtype=np.int64)


def random_tours(count: int, n: int, rng: np.random.Generator) -> Int64[np.ndarray, "count n"]:
    """Tours from city 0 through the other cities in random order.

    >>> random_tours(2, 4, np.random.default_rng(0)).shape
    (2, 4)
    """
    tours = np.zeros((count, n), dtype=np.int64)
    tours[:, 1:] = np.argsort(rng.random((count, n - 1)), axis=1) + 1
    return tours


def canonical_tours(tours: Int64[np.ndarray, "batch n"]) -> Int64[np.ndarray, "batch n"]:
    """The same undirected tours, rotated to start at city 0 and turned so that `tour[1] < tour[-1]`.

    For comparing tours of symmetric problems only; nothing is trained in this direction (DESIGN section 4).

    >>> canonical_tours(np.array([[2, 0, 3, 1]]))
    array([[0, 2, 1, 3]])
    """
    tours = rotate_to_city_zero(tours)
    backward = np.concatenate([tours[:, :1], tours[:, :0:-1]], axis=1)
    return np.where((tours[:, 1] <= tours[:, -1])[:, None], tours, backward)


def rotate_to_city_zero(tours: Int64[np.ndarray, "batch n"]) -> Int64[np.ndarray, "batch n"]:
    """The same closed tours in the same direction, starting at city 0."""
    starts = np.argmin(tours, axis=1)
    columns = (starts[:, None] + np.arange(tours.shape[1])) % tours.shape[1]
    return np.take_along_axis(tours, columns, axis=1)
