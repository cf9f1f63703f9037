"""Training with more than a next-city loss: what a network is taught besides (no torch in this file).

A course names the network's shape, where its weights start, and one lesson. A lesson says what inner states are
supervised, exchanged or made inert; it is a frozen dataclass here and an objective in a file of its own.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesaprobe.configs import parse_config
from mesaprobe.errors import UserError
from mesaprobe.files import read_json
from mesaprobe.models.architectures import parse_architecture
from mesaprobe.models.config import ArchitectureConfig, GPTConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.registry import Registry
from mesaprobe.training.config import OptimiserConfig


class Lesson(ABC):
    """What is taught. Subclasses are frozen dataclasses whose field `lesson` is their name in `LESSONS`."""

    @property
    @abstractmethod
    def lesson(self) -> str:
        """Its name in `LESSONS`."""


@dataclass(frozen=True)
class LessonKind:
    """A lesson's settings, and `module:class` of the objective that is made of them when it is needed."""

    settings: type[Lesson]
    objective: str


LESSONS: Registry[LessonKind] = Registry("lesson")


@dataclass(frozen=True)
class Course:
    """One training run with a lesson; config.json holds it whole."""

    lesson: Lesson
    problem: ProblemConfig = field(default_factory=ProblemConfig)
    model: ArchitectureConfig = field(default_factory=GPTConfig)
    start: str | None = None
    """Folder of a saved model whose weights the network begins with; None draws them from the seed."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    steps: int = 2000
    batch_size: int = 64
    decay_share: float = 0.5
    """Last share of the steps, in which the learning rate falls to `optimiser.final_share` of its peak."""
    seed: int = 0
    evaluate_every: int = 250
    """Steps between rows of history.jsonl, each with a checkpoint."""
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")


def read_course(path: Path) -> Course:
    """The course that a run wrote to its `config.json`, checked key by key."""
    data = read_json(path)
    if not isinstance(data, Mapping) or not isinstance(data.get("lesson"), Mapping):
        raise UserError(f"{path} holds no course: it must name a lesson")
    model = parse_architecture(data.get("model", {}), f"{path}, model")
    lesson = parse_lesson(data["lesson"], f"{path}, lesson")
    others = {key: value for key, value in data.items() if key not in ("model", "lesson")}
    plainest = parse_config(_Rest, others, str(path))
    rest = {field.name: getattr(plainest, field.name) for field in dataclasses.fields(plainest)}
    return Course(lesson=lesson, model=model, **rest)


def parse_lesson(data: Mapping[str, Any], where: str) -> Lesson:
    """A lesson from plain JSON data."""
    name = data.get("lesson")
    if not isinstance(name, str) or name not in LESSONS:
        raise UserError(f"{where}: unknown lesson {name!r}; known: {', '.join(LESSONS)}")
    return parse_config(LESSONS[name].settings, data, where)


@dataclass(frozen=True)
class _Rest:
    """The fields of a course that are of one type each."""

    problem: ProblemConfig = field(default_factory=ProblemConfig)
    start: str | None = None
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    steps: int = 2000
    batch_size: int = 64
    decay_share: float = 0.5
    seed: int = 0
    evaluate_every: int = 250
    threads: int = 1
