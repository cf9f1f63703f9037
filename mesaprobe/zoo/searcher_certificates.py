"""Certificates of trained searchers: do the states that they were taught carry their choices?

Three conditions (method.md section 6.1), on instances that neither training nor any line of evidence sees: a state
taken from another instance is followed, without the states the network knows no more of its algorithm than a simple
rule does, and it repeats the algorithm's errors.
"""

import dataclasses
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mesaprobe.decoding import greedy_rollout
from mesaprobe.instruments.patching.runs import Run
from mesaprobe.labels.choices import choices_along
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.constructive import unvisited
from mesaprobe.zoo.certificates import BRANCH, Certificate, certify
from mesaprobe.zoo.reference import Reference, optimal
from mesaprobe.zoo.state_tests import StateTest

COUNT = 1000
"""Base instances; each is paired with another instance, and both with one prefix of the base's own tour."""
FITTED = 2000
"""Instances on which erasers are fitted."""
_PAIRS, _ERASERS = 10, 11


@dataclasses.dataclass(frozen=True, eq=False)
class States:
    """States of a network: instances, tours that begin with the prefixes, and how many cities of each count."""

    instances: Instances
    tours: Int64[np.ndarray, "batch n"]
    lengths: Int64[np.ndarray, " batch"]

    @property
    def run(self) -> Run:
        """The states as the network is given them."""
        shown = torch.from_numpy(self.tours[:, : int(self.lengths.max())])
        return Run(torch.from_numpy(self.instances.features), shown, torch.from_numpy(self.lengths))

    def at(self, along: np.ndarray) -> np.ndarray:
        """Entries [batch, ...] of these states, from what is known of every decision along the tours."""
        return along[np.arange(len(self.tours)), self.lengths - 1]

    def __getitem__(self, rows: np.ndarray) -> "States":
        return States(self.instances[rows], self.tours[rows], self.lengths[rows])


class IntendedStates(Protocol):
    """The inner states that a searcher was taught."""

    @property
    def words(self) -> str:
        """What they are, and where."""

    def exchanged(
        self, subject: Subject, base: States, source: States, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "batch n"], Bool[np.ndarray, "batch n"]]:
        """Logits of the base states with inner states of the source, and which cities the algorithm then allows."""

    def erased(self, subject: Subject, fit: States, test: States) -> Float[Tensor, "batch n"]:
        """Logits of the test states without the inner states, by erasers that were fitted on the others. All states
        of a call have prefixes of one length."""


def certify_searcher(subject: Subject, reference: Reference, states: IntendedStates, *, seed: int = 0) -> Certificate:
    """The certificate of a trained searcher; it passes if the three conditions hold."""
    behaviour = certify(subject, reference, "imitation", seed=seed)
    test = measure_states(subject, reference, states, seed=seed)
    return dataclasses.replace(behaviour, kind="interchange", passed=test.passed, why=test.why, states=test)


def measure_states(subject: Subject, reference: Reference, states: IntendedStates, *, seed: int = 0) -> StateTest:
    """The three conditions' figures."""
    rng = np.random.default_rng([BRANCH, seed, _PAIRS])
    base = own_states(subject, COUNT, rng)
    source = States(subject.problem.draw(COUNT, rng), base.tours, base.lengths)
    logits, wanted = states.exchanged(subject, base, source, rng)
    allowed = reference(base.instances, base.tours, rng)
    changing = ~(wanted & base.at(allowed)).any(axis=1)
    follows = _chosen(logits, wanted)
    rule, rule_agreement = nearest_rule(base, base.at(allowed))
    errors = _error_agreement(subject, base, allowed, rng)
    return StateTest(
        states=states.words,
        interchange_accuracy=float(follows[changing].mean()),
        interchange_accuracy_all=float(follows.mean()),
        changing_pairs=int(changing.sum()),
        pairs=len(changing),
        erased_agreement=_erased_agreement(subject, states, base, base.at(allowed), seed),
        heuristic=rule,
        heuristic_agreement=rule_agreement,
        error_agreement=float(errors.mean()),
        error_states=len(errors),
    )


def own_states(subject: Subject, count: int, rng: np.random.Generator) -> States:
    """One state along the network's own tour of each of fresh instances, with two free cities at least."""
    instances = subject.problem.draw(count, rng)
    tours = greedy_rollout(subject, torch.from_numpy(instances.features)).tours.numpy()
    return States(instances, tours, rng.integers(1, subject.problem.n - 1, size=count))


def nearest_rule(states: States, allowed: Bool[np.ndarray, "batch n"]) -> tuple[str, float]:
    """The rule of degree 2 or less whose choices at the states are allowed most often, and how often."""
    found = {}
    for name in ALGORITHMS:
        algorithm = ALGORITHMS[name]
        if algorithm.degree > 2 or algorithm.completions is None or not algorithm.applies_to(states.instances.problem):
            continue
        chosen = states.at(choices_along(algorithm.completions, states.instances.weights, states.tours))
        found[name] = float(np.take_along_axis(allowed, chosen[:, None], axis=1).mean())
    best = max(found, key=lambda name: found[name])
    return best, found[best]


def _chosen(logits: Tensor, allowed: Bool[np.ndarray, "batch n"]) -> Bool[np.ndarray, " batch"]:
    return np.take_along_axis(allowed, logits.argmax(-1, keepdim=True).numpy(), axis=1)[:, 0]


def _error_agreement(
    subject: Subject, base: States, allowed: np.ndarray, rng: np.random.Generator
) -> Bool[np.ndarray, " state"]:
    """At all states along the tours, but the last, where the algorithm allows no optimal city."""
    logits = subject.logits(torch.from_numpy(base.instances.features), torch.from_numpy(base.tours[:, :-1]))
    wrong = ~(allowed & optimal(base.instances, base.tours, rng)).any(axis=2)
    right = np.take_along_axis(allowed, logits.argmax(-1, keepdim=True).cpu().numpy(), axis=2)[:, :, 0]
    return right[:, :-1][wrong[:, :-1]]


def _erased_agreement(subject: Subject, states: IntendedStates, base: States, allowed: np.ndarray, seed: int) -> float:
    fit = own_states(subject, FITTED, np.random.default_rng([BRANCH, seed, _ERASERS]))
    agrees = np.zeros(len(allowed), dtype=bool)
    for length in np.unique(base.lengths):
        rows = np.flatnonzero(base.lengths == length)
        fitted = dataclasses.replace(fit, lengths=np.full(FITTED, length))
        logits = states.erased(subject, fitted, base[rows])
        free = base[rows].at(unvisited(base.tours[rows]))
        agrees[rows] = _chosen(logits.masked_fill(~torch.from_numpy(free), -torch.inf), allowed[rows])
    return float(agrees.mean())
