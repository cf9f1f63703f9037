"""Single decisions of many instances, and what a network answers there."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from mesaprobe.labels import EvaluationSet, optimal_actions
from mesaprobe.labels.nuisance import nuisance_features
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.solvers.constructive import unvisited
from mesaprobe.solvers.exact.held_karp import action_values, optimal_rollouts

_CHUNK = 1024
"""States answered in one pass."""


@dataclass(frozen=True, eq=False)
class DecisionStates:
    """State i is the prefix `tours[i, : steps[i] + 1]` of instance i of the batch (instances may stand there twice)."""

    instances: Instances
    tours: Int64[np.ndarray, "state n"]
    steps: Int64[np.ndarray, " state"]
    groups: Int64[np.ndarray, " state"]
    """Which instance it is: states of one instance are resampled together."""

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, rows: np.ndarray) -> "DecisionStates":
        return DecisionStates(self.instances[rows], self.tours[rows], self.steps[rows], self.groups[rows])

    def joined(self, other: "DecisionStates") -> "DecisionStates":
        """These states, then the others, of the same instance set."""
        return DecisionStates(
            Instances.concatenate([self.instances, other.instances]),
            np.concatenate([self.tours, other.tours]),
            np.concatenate([self.steps, other.steps]),
            np.concatenate([self.groups, other.groups]),
        )

    @property
    def weights(self) -> Int32[np.ndarray, "state n n"]:
        """Weights of each state's instance."""
        return self.instances.weights

    @property
    def current(self) -> Int64[np.ndarray, " state"]:
        """The city each prefix ends with."""
        return self.tours[np.arange(len(self)), self.steps]

    @property
    def free(self) -> Bool[np.ndarray, "state n"]:
        """Unvisited cities."""
        return unvisited(self.tours)[np.arange(len(self)), self.steps]

    def values(self) -> Float64[np.ndarray, "state n"]:
        """Q*(s, a), infinite for visited cities."""
        return action_values(self.weights, self.tours)[np.arange(len(self)), self.steps]

    def optimal(self) -> Bool[np.ndarray, "state n"]:
        """All optimal next cities."""
        return optimal_actions(self.values()[:, None])[:, 0]

    def nuisance(self) -> Float64[np.ndarray, "state n k"]:
        """What rules know of every candidate (`nuisance_features`); NaN for visited cities."""
        steps = slice(int(self.steps.min()), int(self.steps.max()) + 1)
        return nuisance_features(self.instances, self.tours, steps)[np.arange(len(self)), self.steps - steps.start]


def states_along_optimal_tours(instances: Instances, rng: np.random.Generator) -> DecisionStates:
    """Every decision along one optimal tour of each instance (ties at random), instance by instance."""
    count, n = instances.weights.shape[:2]
    steps = np.arange(n)[decision_steps(instances.problem)]
    start, one = np.zeros((count, n), dtype=np.int64), np.ones(count, dtype=np.int64)
    tours = optimal_rollouts(instances.weights, start, one, rng.random((count, n))).tours
    rows = np.repeat(np.arange(count), len(steps))
    return DecisionStates(instances[rows], tours[rows], np.tile(steps, count), rows)


def states_of_set(states: EvaluationSet) -> DecisionStates:
    """The states of a balanced evaluation set."""
    return DecisionStates(states.instances[states.rows], states.tours[states.rows], states.steps, states.rows)


def log_chances(subject: Subject, states: DecisionStates) -> Float64[np.ndarray, "state n"]:
    """The network's log-probability of every free city, visited ones masked; -inf for these."""
    logits = next_logits(subject, states.instances.features, states.tours, states.steps)
    masked = np.where(states.free, logits.astype(np.float64), -np.inf)
    above = masked - masked.max(axis=1, keepdims=True)
    return above - np.log(np.exp(above).sum(axis=1, keepdims=True))


def next_logits(
    subject: Subject,
    features: Float32[np.ndarray, "state n f"],
    tours: Int64[np.ndarray, "state n"],
    steps: Int64[np.ndarray, " state"],
) -> Float32[np.ndarray, "state n"]:
    """Logits after the first `steps[i] + 1` cities of each tour, states of one length in one pass."""
    found = np.empty(tours.shape, dtype=np.float32)
    for step in np.unique(steps):
        for rows in np.array_split(own := np.flatnonzero(steps == step), -(-len(own) // _CHUNK)):
            prefixes = torch.from_numpy(tours[rows, : step + 1])
            found[rows] = subject.next_city_logits(torch.from_numpy(features[rows]), prefixes).float().cpu().numpy()
    return found


def chosen_cities(log_p: Float64[np.ndarray, "state n"]) -> Int64[np.ndarray, " state"]:
    """The most likely city."""
    return log_p.argmax(axis=1)


def is_right(log_p: Float64[np.ndarray, "state n"], optimal: Bool[np.ndarray, "state n"]) -> Bool[np.ndarray, " state"]:
    """Whether the most likely city is an optimal one."""
    return optimal[np.arange(len(optimal)), log_p.argmax(axis=1)]
