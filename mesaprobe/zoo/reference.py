"""What a known mechanism may answer: the set of cities it allows at each state, ties counted as agreement."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int64

from mesaprobe.labels.choices import choices_along
from mesaprobe.labels.values import optimal_actions
from mesaprobe.problems import Instances
from mesaprobe.solvers.algorithms import ALGORITHMS, Completions
from mesaprobe.solvers.constructive import unvisited
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.training.tie_breaks import with_ties_broken


class Reference(Protocol):
    """Cities allowed at every decision along the tours (city 0 first), [batch, n - 1, n]."""

    def __call__(
        self, instances: Instances, tours: Int64[np.ndarray, "batch n"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "batch decision n"]: ...


@dataclass(frozen=True)
class Policy:
    """A rule that names the next city at any state. A city is allowed if some way of breaking ties leads to it."""

    completions: Completions
    walking: bool = True
    """False for rules that assemble an undirected tour: at city 0 of a symmetric instance both ends are allowed."""
    draws: int = 12
    """Random ways of breaking ties that are tried, besides the rule's own."""
    name: str | None = None
    """In the library, if it is there."""

    def __call__(
        self, instances: Instances, tours: Int64[np.ndarray, "batch n"], rng: np.random.Generator
    ) -> Bool[np.ndarray, "batch decision n"]:
        batch, n = tours.shape
        allowed = np.zeros((batch, n - 1, n), dtype=bool)
        either_end = instances.problem.symmetric and not self.walking
        for draw in range(self.draws + 1):
            weights = instances.weights if draw == 0 else with_ties_broken(instances.weights, instances.problem, rng)
            chosen = choices_along(self.completions, weights, tours)
            np.put_along_axis(allowed, chosen[:, :, None], True, axis=2)
            if either_end:
                last = self.completions(weights, tours, np.ones(batch, dtype=np.int64))[:, -1]
                allowed[np.arange(batch), 0, last] = True
        return allowed


def rule(name: str) -> Policy:
    """The policy of an algorithm of the library that answers any state.

    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> instances = make_problem(ProblemConfig(n=5)).draw(3, np.random.default_rng(0))
    >>> tours = np.tile(np.arange(5), (3, 1))
    >>> rule("nearest_neighbour")(instances, tours, np.random.default_rng(0)).shape
    (3, 4, 5)
    """
    algorithm = ALGORITHMS[name]
    if algorithm.completions is None:
        raise ValueError(f"{name} does not say what it would do at a state")
    return Policy(algorithm.completions, algorithm.walking, name=name)


def optimal(
    instances: Instances,
    tours: Int64[np.ndarray, "batch n"],
    rng: np.random.Generator,  # noqa: ARG001  (nothing to draw)
) -> Bool[np.ndarray, "batch decision n"]:
    """All optimal cities, from the exact dynamic program."""
    return optimal_actions(action_values(instances.weights, tours))


def least(
    values: Callable[[Instances, Int64[np.ndarray, "batch n"]], np.ndarray], name: str | None = None
) -> Reference:
    """The free cities of least value, where `values(instances, tours)` is [batch, n - 1, n]; `name` is the rule's in
    the library, if it is there."""

    def allowed(
        instances: Instances,
        tours: Int64[np.ndarray, "batch n"],
        rng: np.random.Generator,  # noqa: ARG001
    ) -> Bool[np.ndarray, "batch decision n"]:
        found = np.where(unvisited(tours), values(instances, tours).astype(np.float64), np.inf)
        return found == found.min(axis=2, keepdims=True)

    allowed.name = name  # type: ignore[attr-defined]
    return allowed
