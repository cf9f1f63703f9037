"""How good a network is: the real optimality gap under greedy decoding, on held-out instances."""

from dataclasses import dataclass

import numpy as np
import torch

from mesaprobe.decoding import greedy_rollout
from mesaprobe.decoding.outer_compute import OuterPoint, local_search_curves, network_curves
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.statistics.bootstrap import bootstrap_mean
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import TrainConfig
from mesaprobe.training.curriculum import STAGES, competence, select
from mesaprobe.training.stream import evaluation_instances
from mesaprobe.training.teachers import find_teacher


@dataclass(frozen=True)
class Metrics:
    """Quality on one set of instances; every number but counts and seed is a fraction of 1."""

    instances: int
    gap_mean: float
    """Mean of tour cost / optimal cost - 1, greedy decoding with visited cities masked."""
    gap_ci: tuple[float, float]
    """95 % bootstrap interval of the mean gap."""
    optimal_fraction: float
    """Tours whose cost equals the optimum."""
    legal_fraction: float
    """Rollouts that stay legal without the mask."""
    teacher_agreement: float
    """States along the teacher's sequences where the most likely city, unmasked, is one the teacher may name;
    for teachers that answer any state, random legal prefixes are among them as in training."""
    acceptance_rate: float
    """Share of drawn instances that passed the instance filter."""
    seed: int


def evaluation_kinds(config: TrainConfig) -> tuple[str, ...]:
    """The sets of metrics.json; the first is the one that history.jsonl follows.

    >>> evaluation_kinds(TrainConfig())
    ('natural', 'greedy_fails')
    """
    held_out = ("natural", "greedy_fails")
    return ("fixed", *held_out) if config.data.fixed_instances else held_out


def evaluate(subject: Subject, config: TrainConfig, kind: str, count: int) -> Metrics:
    """Metrics of a network on `count` held-out instances of the set `kind` (natural or greedy_fails), or on those
    that it is trained on (fixed)."""
    drawn = evaluation_instances(config, kind, count)
    instances = drawn.instances
    optimum = held_karp(instances.weights).costs
    rollout = greedy_rollout(subject, torch.from_numpy(instances.features))
    cost = instances.tour_costs(rollout.tours.numpy())
    gaps = cost / optimum - 1.0
    estimate = bootstrap_mean(gaps, np.random.default_rng(config.seed))
    return Metrics(
        instances=len(instances),
        gap_mean=estimate.value,
        gap_ci=estimate.ci,
        optimal_fraction=float((cost == optimum).mean()),
        legal_fraction=float(rollout.legal.float().mean()),
        teacher_agreement=_teacher_agreement(subject, config, instances),
        acceptance_rate=drawn.acceptance_rate,
        seed=config.seed,
    )


def outer_compute(subject: Subject, config: TrainConfig) -> list[OuterPoint]:
    """The gap against outer compute on held-out instances: the network's edits, beam, look-ahead or loops, and local
    search at the same numbers of evaluated tours."""
    instances = evaluation_instances(config, "natural", max(config.evaluation_instances // 2, 1)).instances
    edits = config.editing.edits_per_city * config.problem.n
    own = network_curves(subject, instances, edits, config.seed, look_ahead=ARMS[config.arm].decoder == "look_ahead")
    counts = sorted({1 + edits * part // 4 for part in (1, 2, 4)})
    return own + local_search_curves(instances, counts, config.seed)


def next_stage(config: TrainConfig, stage: int, subject: Subject, count: int) -> int:
    """The stage after an evaluation: one more if enough held-out tours are optimal among the share of instances that
    training is at."""
    pool = evaluation_instances(config, "natural", count).instances
    share = competence(config.curriculum, 0.0, stage)
    kept = select(config.curriculum, pool, max(1, round(share * count)), np.random.default_rng(config.seed)).instances
    cost = kept.tour_costs(greedy_rollout(subject, torch.from_numpy(kept.features)).tours.numpy())
    solved = float((cost == held_karp(kept.weights).costs).mean())
    return min(stage + (solved >= config.curriculum.solved), STAGES - 1)


def _teacher_agreement(subject: Subject, config: TrainConfig, instances: Instances) -> float:
    teacher = find_teacher(config.teacher, config.data.targets)
    sequences = teacher(instances, np.random.default_rng([config.seed, 2]), config.data.random_prefixes)
    right = []
    for start in range(0, len(instances), 1024):
        part = slice(start, start + 1024)
        features = torch.from_numpy(instances[part].features)
        chosen = subject.logits(features, torch.from_numpy(sequences.tours[part, :-1])).argmax(-1).cpu().numpy()
        named = np.take_along_axis(sequences.targets[part], chosen[:, :, None], axis=2)[:, :, 0]
        right.append(named > 0)
    return float(np.concatenate(right).mean())
