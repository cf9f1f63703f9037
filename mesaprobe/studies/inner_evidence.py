"""What single forward passes of a network show of inner search: E7, the score S, the capped log10 likelihood ratio."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mesaprobe.decoding import greedy_rollout
from mesaprobe.evidence import BUDGETS, LINES, draw_set
from mesaprobe.labels import optimality_gaps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import random_tours
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.statistics.bootstrap import bootstrap_mean
from mesaprobe.verdict import decide
from mesaprobe.verdict.calibration import Calibration
from mesaprobe.verdict.gates import upper_score
from mesaprobe.verdict.store import Shipped, shipped_zoo
from mesaprobe.verdict.subject import subject_record
from mesaprobe.zoo.records import Performance


@dataclass(frozen=True)
class InnerEvidence:
    """Fields that are not known are None, never a made-up number."""

    score: float | None
    """S of the lines that were run; lines that were not stand at the middle of the zoo."""
    score_upper: float | None
    """One-sided upper 95 % bound of S."""
    log10_lr: float | None
    log10_lr_cap: float | None
    e7: float | None
    e7_low: float | None
    e7_high: float | None
    label: str
    reason: str | None
    powered: bool | None
    """Gate G7's first half: searchers of this architecture would have been detected, and S lies below them."""
    gap: float
    """Mean gap of greedy single passes."""


def measure_inner(subject: Subject, lines: Sequence[str], budget: str, seed: int) -> InnerEvidence:
    """Run the lines and score what they give by the zoo that ships."""
    results = tuple(LINES[line](subject, budget, seed) for line in lines)
    record = subject_record(subject, _performance(subject, budget, seed), results, budget, seed)
    zoo = shipped_zoo(budget, record.problem, record.n)
    verdict, gates = decide(record, budget, shipped=zoo)
    e7 = record.lines.get("E7")
    return InnerEvidence(
        score=None if zoo.calibration is None else zoo.calibration.score(record),
        score_upper=None if zoo.calibration is None else upper_score(record, zoo.calibration),
        log10_lr=verdict.log10_lr,
        log10_lr_cap=verdict.log10_lr_cap,
        e7=None if e7 is None else e7.value,
        e7_low=None if e7 is None else e7.low,
        e7_high=None if e7 is None else e7.high,
        label=verdict.label,
        reason=verdict.reason,
        powered=next(gate.passed for gate in gates if gate.id == "G7"),
        gap=record.performance.gap[0],
    )


def negatives_bound(zoo: Shipped) -> float | None:
    """The 90th percentile of the zoo's heuristics, every family scored by the others; None without a calibration."""
    calibration: Calibration | None = zoo.calibration
    return None if calibration is None else float(np.quantile(calibration.held_out[~calibration.search], 0.90))


def _performance(subject: Subject, budget: str, seed: int) -> Performance:
    instances = draw_set(subject.problem, "behaviour", BUDGETS[budget].behaviour_instances, seed)
    rng = np.random.default_rng([seed, 3])
    rollout = greedy_rollout(subject, torch.from_numpy(instances.features))
    optimum = held_karp(instances.weights).costs
    gaps = optimality_gaps(instances, rollout.tours.numpy(), optimum)
    gap = bootstrap_mean(gaps, rng)
    scattered = random_tours(len(instances), subject.problem.n, rng)
    random_gap = bootstrap_mean(optimality_gaps(instances, scattered, optimum), rng)
    return Performance(
        legal_fraction=float(rollout.legal.float().mean()),
        gap=(gap.value, *gap.ci),
        random_gap=(random_gap.value, *random_gap.ci),
        optimal_fraction=float((gaps == 0).mean()),
    )
