"""High-level causal models of the next city: searches (completions -> values -> argmin) and their rivals, the rules.

Each says what a state's options cost it (infinite where they are no option); it goes to a cheapest one. What a change
of the instance does to these costs is the counterfactual to which a network is held (method.md section 5, E3 and E7).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from mesaprobe.decoding import greedy_rollout
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.instruments.patching import Run
from mesaprobe.labels.pairs.states import free_cities
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, Problem
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.exact.held_karp import optimal_rollouts
from mesaprobe.solvers.fixed_horizon import horizon_values
from mesaprobe.solvers.known_rules import known_rules

HORIZONS = (2, 3)
"""Arcs that the look-ahead models see."""


class CausalModel(Protocol):
    """A high-level model: `values` feeds the choice, and nothing else does."""

    @property
    def name(self) -> str: ...

    def values(
        self, instances: Instances, prefixes: Int64[np.ndarray, "batch n"], lengths: Int64[np.ndarray, " batch"]
    ) -> Float64[np.ndarray, "batch n"]:
        """What going to each city costs after the first `lengths[b]` cities; infinite where it is no option."""


@dataclass(frozen=True)
class Exhaustive:
    """Completes every option at best: Q*, by dynamic programming."""

    name: str = "exhaustive"

    def values(self, instances: Instances, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        rollouts = optimal_rollouts(instances.weights, prefixes, lengths, np.zeros(prefixes.shape))
        return rollouts.action_values[np.arange(len(instances)), lengths - 1]


@dataclass(frozen=True)
class LookAhead:
    """Completes every option at best for the next `arcs` arcs only."""

    arcs: int

    @property
    def name(self) -> str:
        return f"look-ahead {self.arcs}"

    def values(self, instances: Instances, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        tours = _padded(prefixes, lengths)
        found = horizon_values(instances.weights, tours, self.arcs)[np.arange(len(instances)), lengths - 1]
        return np.where(free_cities(prefixes, lengths), found.astype(np.float64), np.inf)


@dataclass(frozen=True, eq=False)
class OwnCompletions:
    """Completes every option as the subject itself does once it has been sent there: C_m, for weak subjects."""

    subject: Subject
    name: str = "own completions"

    def values(self, instances: Instances, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        tours = own_completions(self.subject, instances, prefixes, lengths)
        batch, n = prefixes.shape
        from_here = np.arange(n) >= lengths[:, None] - 1  # the arcs from the current city on, home included
        following = np.roll(tours, -1, axis=2)
        arcs = instances.weights[np.arange(batch)[:, None, None], tours, following].astype(np.float64)
        costs = np.where(from_here[:, None], arcs, 0.0).sum(axis=2)
        return np.where(free_cities(prefixes, lengths), costs, np.inf)


@dataclass(frozen=True)
class Rule:
    """A heuristic by name: the city that it names costs nothing, all others one."""

    name: str

    def values(self, instances: Instances, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        completions = ALGORITHMS[self.name].completions
        assert completions is not None, "only rules that say what they do at any state are models of a choice"
        rows = np.arange(len(instances))
        costs = np.where(free_cities(prefixes, lengths), 1.0, np.inf)
        costs[rows, completions(instances.weights, prefixes, lengths)[rows, lengths]] = 0.0
        return costs


def search_models() -> tuple[CausalModel, ...]:
    """The searches that no subject enters, the one that sees most first."""
    return (Exhaustive(), *map(LookAhead, reversed(HORIZONS)))


def rival_models(problem: Problem) -> tuple[CausalModel, ...]:
    """Every known rule that takes the instances of the problem."""
    return tuple(map(Rule, known_rules(problem)))


def cheapest(values: Float64[np.ndarray, "batch n"]) -> Bool[np.ndarray, "batch n"]:
    """All options of least cost."""
    return values == values.min(axis=1, keepdims=True)


@dataclass(frozen=True)
class Fit:
    """Which high-level models could have made a subject's choices."""

    search: CausalModel
    """The search that agrees best; the one that sees most, among equals."""
    rival: CausalModel
    """The heuristic that agrees best."""
    agreement: dict[str, float]
    """Share of the states in which each model could have made the subject's choice (ties count), by name."""


KNOWN = 0.95
"""Where a model agrees with the subject this often, its own completions are not asked."""


def fit_models(subject: Subject, rivals: Sequence[CausalModel], instances: Instances, rng: np.random.Generator) -> Fit:
    """Hold searches and rivals to the subject's choices at one decision of its own greedy tour of each instance."""
    tours = greedy_rollout(subject, torch.from_numpy(instances.features)).tours.numpy()
    steps = np.arange(subject.problem.n)[decision_steps(subject.problem)]
    lengths = rng.choice(steps, size=len(tours)) + 1
    prefixes = np.where(np.arange(tours.shape[1]) < lengths[:, None], tours, 0)
    chosen = tours[np.arange(len(tours)), lengths]
    searches = search_models()
    found = agreement([*searches, *rivals], chosen, instances, prefixes, lengths)
    if max(found.values()) < KNOWN:
        own = OwnCompletions(subject)
        found |= agreement([own], chosen, instances, prefixes, lengths)
        searches = (*searches, own)
    search = max(searches, key=lambda model: found[model.name])
    return Fit(search, max(rivals, key=lambda model: found[model.name]), found)


def fitted(subject: Subject, count: int, seed: int) -> Fit:
    """`fit_models` on `count` calibration instances; remembered, since several lines ask for it in turn."""
    return _fitted(subject, rival_models(subject.problem), count, seed)


@functools.lru_cache(maxsize=2)
def _fitted(subject: Subject, rivals: tuple[CausalModel, ...], count: int, seed: int) -> Fit:
    instances = draw_set(subject.problem, "calibration", count, seed)
    return fit_models(subject, rivals, instances, np.random.default_rng([seed, 700]))


def agreement(
    models: Sequence[CausalModel],
    choices: Int64[np.ndarray, " batch"],
    instances: Instances,
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> dict[str, float]:
    """How often each model could have made the choices (ties count), by name."""
    rows = np.arange(len(instances))
    return {
        model.name: float(cheapest(model.values(instances, prefixes, lengths))[rows, choices].mean())
        for model in models
    }


def own_completions(
    subject: Subject,
    instances: Instances,
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n n"]:
    """C_m: for every free city the tour that the subject walks once it has been sent there; 0s where not free."""
    batch, n = prefixes.shape
    state, city = np.nonzero(free_cities(prefixes, lengths))
    tours = np.zeros((len(state), n), dtype=np.int64)
    tours[:] = np.where(np.arange(n) < lengths[state, None], prefixes[state], 0)
    tours[np.arange(len(state)), lengths[state]] = city
    features = torch.from_numpy(instances.features)
    done = lengths[state] + 1
    for length in range(int(done.min(initial=n)), n):
        walking = np.flatnonzero(done <= length)
        run = Run(features[state[walking]], torch.from_numpy(tours[walking, :length]))
        tours[walking, length] = next_cities(subject, run)
    found = np.zeros((batch, n, n), dtype=np.int64)
    found[state, city] = tours
    return found


def next_cities(subject: Subject, run: Run, *, chunk: int = 1024) -> Int64[np.ndarray, " state"]:
    """The subject's most likely unvisited city at every state of a run."""
    found = np.empty(len(run), dtype=np.int64)
    for _, rows, part in run.by_length():
        for some, features, prefixes in zip(
            rows.split(chunk), part.features.split(chunk), part.prefixes.split(chunk), strict=True
        ):
            logits = subject.next_city_logits(features, prefixes).cpu()
            found[some.numpy()] = logits.scatter(1, prefixes, -torch.inf).argmax(dim=1).numpy()
    return found


def _padded(prefixes: Int64[np.ndarray, "batch n"], lengths: Int64[np.ndarray, " batch"]) -> np.ndarray:
    """Tours that begin with the prefixes; the other cities follow in ascending order."""
    n = prefixes.shape[1]
    free = free_cities(prefixes, lengths)
    place = np.empty_like(prefixes)
    rows = np.arange(len(prefixes))[:, None]
    inside = np.arange(n) < lengths[:, None]
    np.put_along_axis(place, np.where(inside, prefixes, prefixes[:, :1]), np.arange(n)[None], axis=1)
    place[rows, prefixes[:, :1]] = 0
    order = np.where(free, n + np.arange(n), place)
    return np.argsort(order, axis=1, kind="stable")
