"""Certificates: the test that a member's label is true, on data that no line of evidence uses.

A compiled member must answer as the algorithm that it was written as, an imitator as its teacher; both along its
own tours and, out of distribution, on other weights and after random legal prefixes. What fails is discarded, never
relabelled (method.md section 6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64

from mesaprobe.decoding import greedy_rollout
from mesaprobe.labels.choices import choices_along
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, Problem, ProblemConfig, ceil_distances, make_problem, random_tours
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.zoo.reference import Reference
from mesaprobe.zoo.state_tests import DecoyTest, StateTest

Structure = Callable[[Subject, Instances, np.random.Generator], np.ndarray]
"""True where a property of the architecture holds."""

INSTANCES = 500
"""Instances per set, with n - 2 states each that leave a choice."""
STRUCTURE_INSTANCES = 100
BRANCH = 0xCE47
"""Branch of the seed from which certificates draw; training and the lines of evidence use others."""
LIMITS: dict[str, tuple[float, float]] = {"construction": (0.99, 0.99), "imitation": (0.99, 0.97)}
"""Agreement asked for: on test states, and on average over the sets out of distribution."""


@dataclass(frozen=True)
class Elsewhere:
    """Share of states that agree, out of distribution: other weights along own tours, and states off them."""

    skewed: float
    coarse: float
    metric: float
    random_prefixes: float
    """Natural instances, all states of random tours."""

    @property
    def mean(self) -> float:
        """Over the four sets."""
        return (self.skewed + self.coarse + self.metric + self.random_prefixes) / 4


@dataclass(frozen=True)
class Performance:
    """How good a member is at the task, on the certificate's own instances; fractions of 1."""

    gap_mean: float
    optimal_fraction: float
    legal_fraction: float
    """Rollouts that stay legal without the mask."""
    instances: int


@dataclass(frozen=True)
class Certificate:
    """Whether a member does what its label says. Rates are fractions of states (or tours)."""

    kind: Literal["construction", "imitation", "interchange", "decoy", "none"]
    passed: bool
    why: str
    agreement: float | None
    """States along the member's own tours where its most likely city, unmasked, is one the mechanism allows; as
    everywhere here, without the last step, where one city is left."""
    first_agreement: float | None
    """The same, first decision only."""
    tour_agreement: float | None
    """Own tours all of whose decisions agree."""
    agreement_elsewhere: Elsewhere | None
    """Out of distribution."""
    rival: str | None
    """The other rule of the library that the mechanism allows most often on the same states: what a wrong label of
    the right kind would reach."""
    rival_agreement: float | None
    performance: Performance
    seed: int
    weights_hash: str
    states: StateTest | None = None
    """Of trained searchers: what their intended states carry."""
    decoy: DecoyTest | None = None
    """Of decoys: what they hold without using it."""


def certify(
    subject: Subject, reference: Reference, kind: Literal["construction", "imitation"], *, seed: int = 0
) -> Certificate:
    """Compare a network's choices with the mechanism that it is labelled with."""
    natural = _natural(subject.problem, seed)
    rollout = greedy_rollout(subject, torch.from_numpy(natural.features))
    tours = rollout.tours.numpy()
    rng = np.random.default_rng([BRANCH, seed, 1])
    agrees = agreement(subject, reference, natural, tours, rng)
    elsewhere = _agreement_elsewhere(subject, reference, natural, rng, seed)
    on_test, outside = float(agrees.mean()), elsewhere.mean
    needed, needed_outside = LIMITS[kind]
    rival, rival_agreement = nearest_rival(reference, natural, tours, rng)
    return Certificate(
        kind=kind,
        passed=on_test >= needed and outside >= needed_outside,
        why=f"agrees with its mechanism in {on_test:.2%} of test states (at least {needed:.0%}) and "
        f"{outside:.2%} out of distribution (at least {needed_outside:.0%}); "
        f"{rival} would agree in {rival_agreement:.1%}",
        agreement=on_test,
        first_agreement=float(agrees[:, 0].mean()),
        tour_agreement=float(agrees.all(axis=1).mean()),
        agreement_elsewhere=elsewhere,
        rival=rival,
        rival_agreement=rival_agreement,
        performance=_performance(natural, tours, rollout.legal.numpy()),
        seed=seed,
        weights_hash=subject.weights_hash,
    )


def certify_structure(subject: Subject, structure: Structure, *, seed: int = 0) -> Certificate:
    """Check a property that a network has by its architecture, on the weights kept; it must hold everywhere."""
    natural = _natural(subject.problem, seed)
    rollout = greedy_rollout(subject, torch.from_numpy(natural.features))
    holds = structure(subject, natural[:STRUCTURE_INSTANCES], np.random.default_rng([BRANCH, seed, 1]))
    share = float(np.mean(holds))
    return Certificate(
        kind="construction",
        passed=bool(np.all(holds)),
        why=f"its architecture's property holds in {share:.2%} of {holds.size:,} checks (all of them)",
        agreement=share,
        first_agreement=None,
        tour_agreement=None,
        agreement_elsewhere=None,
        rival=None,
        rival_agreement=None,
        performance=_performance(natural, rollout.tours.numpy(), rollout.legal.numpy()),
        seed=seed,
        weights_hash=subject.weights_hash,
    )


def describe(subject: Subject, instances: Instances | None = None, *, seed: int = 0) -> Certificate:
    """For sanity members, which have no mechanism to test: how they perform, on `instances` where they are meant for
    some of their own."""
    shown = _natural(subject.problem, seed) if instances is None else instances
    rollout = greedy_rollout(subject, torch.from_numpy(shown.features))
    return Certificate(
        kind="none",
        passed=False,
        why="a sanity member has no mechanism to test",
        agreement=None,
        first_agreement=None,
        tour_agreement=None,
        agreement_elsewhere=None,
        rival=None,
        rival_agreement=None,
        performance=_performance(shown, rollout.tours.numpy(), rollout.legal.numpy()),
        seed=seed,
        weights_hash=subject.weights_hash,
    )


def nearest_rival(
    reference: Reference, instances: Instances, tours: Int64[np.ndarray, "batch n"], rng: np.random.Generator
) -> tuple[str, float]:
    """The rule of the library, not the mechanism itself, whose choices along the tours it allows most often."""
    allowed = reference(instances, tours, rng)[:, :-1]
    found = {}
    for name in ALGORITHMS:
        completions = ALGORITHMS[name].completions
        if completions is None or not ALGORITHMS[name].applies_to(instances.problem):
            continue
        if name != getattr(reference, "name", None):
            chosen = choices_along(completions, instances.weights, tours)[:, :-1]
            found[name] = float(np.take_along_axis(allowed, chosen[:, :, None], axis=2).mean())
    best = max(found, key=lambda name: found[name])
    return best, found[best]


def _natural(problem: Problem, seed: int) -> Instances:
    return problem.draw(INSTANCES, np.random.default_rng([BRANCH, seed, 0]))


def _performance(instances: Instances, tours: np.ndarray, legal: np.ndarray) -> Performance:
    cost, optimum = instances.tour_costs(tours), held_karp(instances.weights).costs
    return Performance(
        float((cost / optimum - 1).mean()), float((cost == optimum).mean()), float(legal.mean()), len(instances)
    )


def _agreement_elsewhere(
    subject: Subject, reference: Reference, natural: Instances, rng: np.random.Generator, seed: int
) -> Elsewhere:
    """Share of agreeing states on shifted weights along own tours, and along random tours of natural instances."""
    found = {}
    for index, (name, draw) in enumerate(SHIFTED.items()):
        shifted = draw(subject.problem, INSTANCES, np.random.default_rng([BRANCH, seed, 2 + index]))
        own = greedy_rollout(subject, torch.from_numpy(shifted.features)).tours.numpy()
        found[name] = float(agreement(subject, reference, shifted, own, rng).mean())
    tours = random_tours(len(natural), natural.problem.n, rng)
    at_random = float(agreement(subject, reference, natural, tours, rng).mean())
    return Elsewhere(**found, random_prefixes=at_random)


def agreement(
    subject: Subject,
    reference: Reference,
    instances: Instances,
    tours: Int64[np.ndarray, "batch n"],
    rng: np.random.Generator,
) -> Bool[np.ndarray, "batch decision"]:
    """At each decision along the tours but the last, which is forced: is the most likely city, unmasked, one that the
    mechanism allows?"""
    features, prefixes = torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])
    parts = zip(features.split(512), prefixes.split(512), strict=True)
    chosen = torch.cat([subject.logits(f, t).argmax(-1).cpu() for f, t in parts]).numpy()
    allowed = reference(instances, tours, rng)
    return np.take_along_axis(allowed, chosen[:, :, None], axis=2)[:, :-1, 0]


# ---- other weights, shown to the network as it knows them (matrix and asymmetric problems) ------------------------

Draw = Callable[[Problem, int, np.random.Generator], Instances]


def _levels(problem: Problem) -> int:
    return problem.config.levels


def skewed(problem: Problem, count: int, rng: np.random.Generator) -> Instances:
    """Mostly small weights: a uniform weight w becomes ceil(w^2 / levels)."""
    drawn = problem.draw(count, rng)
    weights = -(-(drawn.weights.astype(np.int64) ** 2) // _levels(problem))
    return Instances(problem, weights.astype(np.int32))


def coarse(problem: Problem, count: int, rng: np.random.Generator) -> Instances:
    """Weights rounded up to multiples of an eighth of the levels: many ties."""
    drawn = problem.draw(count, rng)
    step = max(_levels(problem) // 8, 1)
    return Instances(problem, -(-drawn.weights // step) * np.int32(step))


def metric(problem: Problem, count: int, rng: np.random.Generator) -> Instances:
    """Distances between uniform points in the plane, the longest possible being the largest weight."""
    side = 10_000
    points = make_problem(ProblemConfig("euclidean", problem.n, grid=side)).draw(count, rng).coordinates
    assert points is not None
    scaled = np.ceil(ceil_distances(points) * (_levels(problem) / (side * 2**0.5 + 1)))
    return Instances(problem, scaled.astype(np.int32))


SHIFTED: dict[str, Draw] = {"skewed": skewed, "coarse": coarse, "metric": metric}
