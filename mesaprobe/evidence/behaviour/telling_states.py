"""Decisions on which the algorithms of the library part ways, and which algorithms cannot be told apart there."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from mesaprobe.evidence.behaviour.library import __file__ as library_file
from mesaprobe.evidence.behaviour.library import is_own, library, library_costs
from mesaprobe.evidence.protocol import SETS, draw_set
from mesaprobe.evidence.states.decision_states import DecisionStates, states_along_optimal_tours
from mesaprobe.evidence.states.pairs import label_cache
from mesaprobe.labels.cache import cached_arrays
from mesaprobe.problems import Instances, Problem
from mesaprobe.solvers.algorithms import ALGORITHMS, Algorithm
from mesaprobe.solvers.known_rules import known_rules, left_out

Costs = dict[str, dict[str, Float64[np.ndarray, "state n"]]]
"""By algorithm, then by form (`candidate_costs`)."""


@dataclass(frozen=True, eq=False)
class TellingStates:
    """States of one instance set, with what the library would do there."""

    states: DecisionStates
    free: Bool[np.ndarray, "state n"]
    optimal: Bool[np.ndarray, "state n"]
    nuisance: Float64[np.ndarray, "state n k"]
    costs: Costs

    def __len__(self) -> int:
        return len(self.states)


def telling_states(problem: Problem, name: str, pool: int, count: int, seed: int) -> TellingStates:
    """The `count` discordant decisions of `pool` instances of the set on which the library disagrees most.

    Discordant: no known rule names an optimal city. Disagreement is the Jensen-Shannon divergence of what mesaprobe's
    own algorithms choose (a user's algorithm does not move the states). What is left out at present
    (`solvers.known_rules`) is in neither the filter nor the library nor Z.
    """
    request = {"telling_states": name, "problem": asdict(problem.config), "pool": pool, "count": count, "seed": seed}
    code = hashlib.sha256(Path(__file__).read_bytes() + Path(library_file).read_bytes()).hexdigest()
    request |= {"without": left_out(), "code_of_states": code, "set": SETS.index(name)}

    def compute() -> dict[str, np.ndarray]:
        states = _discordant(problem, name, pool, seed)
        if len(states):
            own = [algorithm for algorithm in library(problem) if is_own(algorithm)]
            costs = library_costs(own, states, seed)
            spread = disagreement(np.stack([1.0 - costs[algorithm.name]["choice"] for algorithm in own]))
            states = states[np.sort(np.argsort(-spread, kind="stable")[:count])]
        return _arrays(states)

    found = cached_arrays(label_cache(), request, compute)
    batch = Instances(problem, found["weights"], found.get("coordinates"))
    states = DecisionStates(batch, found["tours"], found["steps"], found["groups"])
    if len(states) == 0:
        empty = np.zeros((0, problem.n))
        return TellingStates(states, empty > 0, empty > 0, empty[..., None], {})
    costs = library_costs(library(problem), states, seed)
    return TellingStates(states, states.free, states.optimal(), states.nuisance(), costs)


def disagreement(
    choices: Float64[np.ndarray, "algorithm state n"],
) -> Float64[np.ndarray, " state"]:
    """Jensen-Shannon divergence in nats of the algorithms' choices at every state: 0 where all name the same city.

    >>> disagreement(np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])).round(2).tolist()
    [0.69, 0.0]
    """
    return np.maximum(_entropy(choices.mean(axis=0)) - _entropy(choices).mean(axis=0), 0.0)


def merged_classes(algorithms: list[Algorithm], costs: Costs, agreement: float) -> list[tuple[str, ...]]:
    """Algorithms that name the same city in more than `agreement` of the states, directly or through others, form one
    class (single linkage). Classes and their members stand in the library's order."""
    top = np.stack([costs[algorithm.name]["choice"].argmin(axis=1) for algorithm in algorithms])
    same = (np.stack([(top == own).mean(axis=1) for own in top]) > agreement) | np.eye(len(algorithms), dtype=bool)
    label = np.arange(len(algorithms))
    for _ in algorithms:
        label = np.where(same, label[None], len(algorithms)).min(axis=1)
    return [tuple(algorithms[i].name for i in np.flatnonzero(label == k)) for k in np.unique(label)]


def _discordant(problem: Problem, name: str, pool: int, seed: int) -> DecisionStates:
    states = states_along_optimal_tours(draw_set(problem, name, pool, seed), np.random.default_rng([seed, 812]))
    rows, optimal = np.arange(len(states)), states.optimal()
    kept = np.ones(len(states), dtype=bool)
    for rule in known_rules(problem):
        completions = ALGORITHMS[rule].completions
        assert completions is not None
        named = completions(states.weights, states.tours, states.steps + 1)[rows, states.steps + 1]
        kept &= ~optimal[rows, named]
    return states[np.flatnonzero(kept)]


def _arrays(states: DecisionStates) -> dict[str, np.ndarray]:
    batch = states.instances
    arrays = {"weights": batch.weights, "tours": states.tours, "steps": states.steps, "groups": states.groups}
    return arrays if batch.coordinates is None else arrays | {"coordinates": batch.coordinates}


def _entropy(chances: np.ndarray) -> np.ndarray:
    return -(chances * np.log(np.where(chances > 0, chances, 1.0))).sum(axis=-1)
