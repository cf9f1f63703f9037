"""What stands beside the weights of a member that was taught with a lesson: its quality, and its card."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mesaprobe.decoding import greedy_rollout
from mesaprobe.files import write_json, write_text
from mesaprobe.models.architectures import ARCHITECTURES
from mesaprobe.models.subject import Subject
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.statistics.bootstrap import bootstrap_mean
from mesaprobe.training.config import TrainConfig
from mesaprobe.training.courses import Course
from mesaprobe.training.loop import METRICS_FILE
from mesaprobe.training.stream import evaluation_instances
from mesaprobe.zoo.members import Member

INSTANCES = 2000
"""Held-out instances per set."""


@dataclass(frozen=True)
class Quality:
    """Tours on one set of held-out instances; every number but counts and seed is a fraction of 1."""

    instances: int
    gap_mean: float
    """Mean of tour cost / optimal cost - 1, greedy decoding with visited cities masked."""
    gap_ci: tuple[float, float]
    """95 % bootstrap interval of the mean gap."""
    optimal_fraction: float
    legal_fraction: float
    """Rollouts that stay legal without the mask."""
    seed: int


def quality(subject: Subject, course: Course, kind: str) -> Quality:
    """On the instances that a plain training run of the same problem and seed would be measured on."""
    config = TrainConfig(problem=course.problem, seed=course.seed)
    instances = evaluation_instances(config, kind, INSTANCES).instances
    rollout = greedy_rollout(subject, torch.from_numpy(instances.features))
    cost, optimum = instances.tour_costs(rollout.tours.numpy()), held_karp(instances.weights).costs
    gap = bootstrap_mean(cost / optimum - 1.0, np.random.default_rng(course.seed))
    legal = float(rollout.legal.float().mean())
    return Quality(len(instances), gap.value, gap.ci, float((cost == optimum).mean()), legal, course.seed)


def write_taught(folder: Path, member: Member, course: Course, subject: Subject, seconds: float) -> None:
    """Write metrics.json and README.md of a taught network."""
    sets = {kind: quality(subject, course, kind) for kind in ("natural", "greedy_fails")}
    rows = "\n".join(
        f"| {kind} | {q.instances} | {q.gap_mean:.2%} ({q.gap_ci[0]:.2%} to {q.gap_ci[1]:.2%}) | "
        f"{q.optimal_fraction:.1%} | {q.legal_fraction:.2%} |"
        for kind, q in sets.items()
    )
    begins = f"the weights of `{course.start}`" if course.start else f"weights drawn from seed {course.seed}"
    write_text(
        folder / "README.md",
        f"""# {member.name}

{ARCHITECTURES[course.model.architecture].words} of the zoo, family `{member.family}` ({member.role}, degree \
{member.degree}): {member.mechanism}. Whether that is so is what `certificate.json` measures.

| | |
|---|---|
| problem | `{course.problem.family}`, n = {course.problem.n} |
| shape | {course.model.in_words(course.problem.n)} |
| lesson | `{course.lesson}` |
| training | {course.steps:,} steps of {course.batch_size} from {begins}; {seconds / 60:.0f} minutes, \
{course.threads} thread(s) |

Greedy decoding, visited cities masked, on held-out instances (seed {course.seed}):

| set | instances | mean gap (95 % interval) | optimal tours | legal without mask |
|---|---|---|---|---|
{rows}

Repeat it: `mesaprobe zoo build --members {member.name}` and `mesaprobe zoo certify --members {member.name}`.
""",
    )
    write_json(folder / METRICS_FILE, sets)
