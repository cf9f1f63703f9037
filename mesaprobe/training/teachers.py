"""Teachers: whoever names the next city in the training data (DESIGN section 4, "Direction is not a free choice").

A teacher turns instances into sequences: tours from city 0 and, for every decision along them, a distribution
over next cities. Optimal teachers and rules that say what they would do next answer any state. The other algorithms
of the library and functions of the user's answer along their own tours, which are taught in both directions on
symmetric problems, except those of walking rules.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float32, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.values import optimal_actions
from mesaprobe.problems import Instances, random_tours, rotate_to_city_zero
from mesaprobe.registry import Registry
from mesaprobe.solvers.algorithms import ALGORITHMS, Algorithm
from mesaprobe.solvers.constructive import nearest_cities, nearest_neighbour_completions
from mesaprobe.solvers.exact.held_karp import optimal_rollouts
from mesaprobe.training.tie_breaks import with_ties_broken

TourFunction = Callable[[Int32[np.ndarray, "batch n n"], int], Int64[np.ndarray, "batch n"]]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Tours and, for each of their n - 1 decisions, the distribution over next cities to be learnt."""

    tours: Int64[np.ndarray, "batch n"]
    targets: Float32[np.ndarray, "batch decision n"]


class Teacher(Protocol):
    """Labels instances. `random_prefixes` is the share of sequences that begin with a random legal prefix."""

    def __call__(self, instances: Instances, rng: np.random.Generator, random_prefixes: float) -> Sequences: ...


def random_prefixes_for(
    count: int, n: int, share: float, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "batch n"], Int64[np.ndarray, " batch"]]:
    """Tours from city 0 in random order, and how many of their cities count: 1 for most sequences, and 2 to n - 1
    for the given share of them."""
    prefixes = random_tours(count, n, rng)
    lengths = np.where(rng.random(count) < share, rng.integers(2, n, size=count), 1)
    return prefixes, lengths


@dataclass(frozen=True)
class OptimalTeacher:
    """Optimal tours, drawn uniformly step by step among the optimal actions; exact labels in every state."""

    targets: Literal["optimal_set", "random_tour"] = "optimal_set"

    def __call__(self, instances: Instances, rng: np.random.Generator, random_prefixes: float) -> Sequences:
        n = instances.problem.n
        prefixes, lengths = random_prefixes_for(len(instances), n, random_prefixes, rng)
        tours, values = optimal_rollouts(instances.weights, prefixes, lengths, rng.random(prefixes.shape))
        optimal = optimal_actions(values)
        if self.targets == "random_tour":
            followed = tours[:, 1:, None] == np.arange(n)
            # inside a random prefix the step taken is no label: there, and only there, use the optimal set
            given = np.arange(n - 1) < (lengths - 1)[:, None]
            optimal = np.where(given[:, :, None], optimal, followed)
        return Sequences(tours, _uniform(optimal))


@dataclass(frozen=True)
class NearestTeacher:
    """Nearest neighbour, from any state; all nearest cities are equally right where they tie."""

    def __call__(self, instances: Instances, rng: np.random.Generator, random_prefixes: float) -> Sequences:
        prefixes, lengths = random_prefixes_for(len(instances), instances.problem.n, random_prefixes, rng)
        tours = nearest_neighbour_completions(instances.weights, prefixes, lengths)
        return Sequences(tours, _uniform(nearest_cities(instances.weights, tours)))


@dataclass(frozen=True)
class AlgorithmTeacher:
    """Tours of an algorithm of the library; a walking rule keeps its direction.

    An algorithm that answers any state (`completions`) is taught as a policy: at every state the city that it would
    name next, ties broken at random once per instance, along its own choices and after random legal prefixes.
    """

    algorithm: Algorithm

    def __call__(self, instances: Instances, rng: np.random.Generator, random_prefixes: float) -> Sequences:
        both_directions = instances.problem.symmetric and not self.algorithm.walking
        if self.algorithm.completions is not None:
            return self._as_policy(instances, rng, random_prefixes, both_directions)
        seed = int(rng.integers(2**31))
        tours = self.algorithm(instances.weights, instances.coordinates, seed)
        return _along(tours, rng, both_directions=both_directions)

    def _as_policy(
        self, instances: Instances, rng: np.random.Generator, random_prefixes: float, both_directions: bool
    ) -> Sequences:
        """Roll the rule out from random prefixes; at city 0 an undirected rule may go to either neighbour."""
        completions, n = self.algorithm.completions, instances.problem.n
        assert completions is not None
        weights = with_ties_broken(instances.weights, instances.problem, rng)
        tours, lengths = random_prefixes_for(len(instances), n, random_prefixes, rng)
        backwards = rng.random(len(instances)) < 0.5 * both_directions
        named = np.zeros((len(instances), n - 1, n), dtype=bool)
        rows = np.arange(len(instances))
        for step in range(n - 1):
            found = completions(weights, tours, np.full(len(instances), step + 1))
            if step == 0 and both_directions:
                named[rows, 0, found[:, 1]] = named[rows, 0, found[:, -1]] = True
                flipped = np.concatenate([found[:, :1], found[:, :0:-1]], axis=1)
                found = np.where(backwards[:, None], flipped, found)
            named[rows, step, found[:, step + 1]] = True
            tours = np.where((lengths <= step + 1)[:, None], found, tours)
        return Sequences(tours, _uniform(named))


@dataclass(frozen=True)
class TourTeacher:
    """Tours from any function, taught in both directions on symmetric problems."""

    function: TourFunction
    name: str

    def __call__(self, instances: Instances, rng: np.random.Generator, random_prefixes: float) -> Sequences:  # noqa: ARG002
        n = instances.problem.n
        seed = int(rng.integers(2**31))
        tours = rotate_to_city_zero(self._checked(self.function(instances.weights, seed), len(instances), n))
        return _along(tours, rng, both_directions=instances.problem.symmetric)

    def _checked(self, tours: np.ndarray, batch: int, n: int) -> Int64[np.ndarray, "batch n"]:
        tours = np.asarray(tours)
        if tours.shape != (batch, n) or not np.issubdtype(tours.dtype, np.integer):
            raise UserError(
                f"teacher {self.name} must return integer tours of shape ({batch}, {n}), "
                f"got {tours.dtype} of shape {tours.shape}"
            )
        wrong = np.flatnonzero((np.sort(tours, axis=1) != np.arange(n)).any(axis=1))
        if len(wrong):
            raise UserError(
                f"teacher {self.name} must name every city 0..{n - 1} once in each tour, got {tours[wrong[0]].tolist()}"
            )
        return tours.astype(np.int64)


def _along(tours: Int64[np.ndarray, "batch n"], rng: np.random.Generator, *, both_directions: bool) -> Sequences:
    """The tours as they are, or each in a random direction, with both neighbours of city 0 right at the first step."""
    tours = tours.copy()
    if both_directions:
        flip = rng.random(len(tours)) < 0.5
        tours[flip, 1:] = tours[flip, :0:-1]
    followed = tours[:, 1:, None] == np.arange(tours.shape[1])
    if both_directions:
        followed[:, 0] |= tours[:, -1, None] == np.arange(tours.shape[1])
    return Sequences(tours, _uniform(followed))


def _uniform(right: np.ndarray) -> Float32[np.ndarray, "batch decision n"]:
    return (right / right.sum(axis=2, keepdims=True)).astype(np.float32)


TEACHERS: Registry[Teacher] = Registry("teacher")
TEACHERS.add("optimal", OptimalTeacher())
TEACHERS.add("nearest_neighbour", NearestTeacher())
for _name in ALGORITHMS:
    if _name not in TEACHERS:
        TEACHERS.add(_name, AlgorithmTeacher(ALGORITHMS[_name]))


def find_teacher(name: str, targets: Literal["optimal_set", "random_tour"] = "optimal_set") -> Teacher:
    """A built-in teacher by name, or the user's `package.module:function`.

    The function is called as `function(weights: int32 [batch, n, n], seed: int) -> int64 [batch, n]`.
    """
    if ":" not in name:
        return OptimalTeacher(targets) if name == "optimal" else TEACHERS[name]
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"teacher {name!r} cannot be imported: {error}") from error
    if not callable(function):
        raise UserError(f"teacher {name!r} is not a function")
    return TourTeacher(function, name)
