"""Curricula: which instances a network meets when, by hardness (no torch here).

At competence c only the easiest share c of all instances is drawn from (Platanios et al. 2019): a batch of B is the
easiest B of B / c fresh ones, equals at random. c rises from `start` to 1, by schedule or by what the network can do.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from mesaprobe.errors import UserError
from mesaprobe.problems import Instances

STAGES = 6
"""By competence, c takes this many values, evenly spaced from `start` to 1."""


@dataclass(frozen=True)
class CurriculumConfig:
    """The order in which instances of different hardness are met."""

    order: Literal["none", "easy_to_hard", "hard_to_easy", "fixed"] = "none"
    """none: as they are drawn. easy_to_hard: the easiest share c of them, c rising. hard_to_easy: the hardest share
    instead. fixed: the mix of easy_to_hard as a whole, the same from the first step to the last."""
    measure: Literal["non_greedy_steps", "log_nodes", "tier", "dstar"] = "non_greedy_steps"
    """What hardness is."""
    pace: Literal["schedule", "competence"] = "schedule"
    """c rises with the steps, or whenever the network solves enough of the share it is at."""
    start: float = 0.1
    """First value of c."""
    until: float = 0.5
    """schedule: share of the steps after which c is 1; in between its square rises evenly."""
    solved: float = 0.8
    """competence: c rises when this share of the tours is optimal, on held-out instances of the share c."""

    def __post_init__(self) -> None:
        for name in ("start", "until", "solved"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"curriculum.{name} must lie above 0 and up to 1, got {getattr(self, name)}")
        if self.pace == "competence" and self.order == "fixed":
            raise UserError("a fixed curriculum has no pace; take curriculum.pace schedule")


@dataclass(frozen=True, eq=False)
class Selection:
    """The instances of a batch and how many of them are of each level of hardness."""

    instances: Instances
    levels: Int64[np.ndarray, " level"]


def competence(config: CurriculumConfig, done: float, stage: int) -> float:
    """c after a share `done` of the steps, or at a stage where the network sets the pace.

    >>> config = CurriculumConfig(order="easy_to_hard", start=0.2)
    >>> [round(competence(config, done, 0), 3) for done in (0.0, 0.25, 0.5, 1.0)]
    [0.2, 0.721, 1.0, 1.0]
    """
    if config.pace == "competence":
        return min(1.0, config.start + (1 - config.start) * stage / (STAGES - 1))
    first = config.start**2
    return min(1.0, math.sqrt(first + (1 - first) * done / config.until))


def pool_size(config: CurriculumConfig, count: int, share: float) -> int:
    """How many instances are drawn for a batch of `count`."""
    return count if config.order == "none" else math.ceil(count / share)


def select(config: CurriculumConfig, pool: Instances, count: int, rng: np.random.Generator) -> Selection:
    """The `count` easiest (or hardest) instances of the pool, equals at random, in the order they were drawn."""
    from mesaprobe.labels.hardness_measures import MEASURES  # (compiled labels: `--help` does without them)

    measure = MEASURES[config.measure]
    scores = measure.score(pool)
    sign = -1.0 if config.order == "hard_to_easy" else 1.0
    chosen = np.sort(_easiest(sign * scores, count, rng))
    levels = np.bincount(measure.level(scores[chosen]), minlength=len(measure.levels))
    return Selection(pool[chosen], levels)


def _easiest(scores: Float64[np.ndarray, " pool"], count: int, rng: np.random.Generator) -> Int64[np.ndarray, " count"]:
    return np.lexsort((rng.random(len(scores)), scores))[:count]
