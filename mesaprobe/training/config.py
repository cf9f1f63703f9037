"""Everything a training run depends on, as frozen dataclasses that are also the command line (no torch here)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mesaprobe.configs import parse_config
from mesaprobe.errors import UserError
from mesaprobe.files import plain, read_json
from mesaprobe.models.architectures import parse_architecture
from mesaprobe.models.config import ArchitectureConfig, GPTConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.registry import Registry
from mesaprobe.training.arms import ARMS
from mesaprobe.training.curriculum import CurriculumConfig


@dataclass(frozen=True)
class DataConfig:
    """Which instances and states the network is trained on; every batch is drawn fresh from the seed."""

    instances: Literal["natural", "greedy_fails", "easy_to_hard"] = "natural"
    """natural: as the family draws them. greedy_fails: only where both greedy rules miss the thresholds below.
    easy_to_hard: first those where they do not, then those where they do."""
    nearest_gap: float = 0.10
    """greedy_fails: nearest neighbour must be more than this fraction above the optimum."""
    greedy_edge_gap: float = 0.05
    """greedy_fails: greedy edge must be more than this fraction above the optimum."""
    switch_at: float = 0.5
    """easy_to_hard: share of the steps spent on the easy stage."""
    random_prefixes: float = 0.15
    """Share of sequences that begin with a random legal prefix, labelled exactly, where the teacher can."""
    targets: Literal["optimal_set", "random_tour"] = "optimal_set"
    """optimal teacher: train on the set of optimal actions, or on one optimal tour in a random direction."""
    fixed_instances: int = 0
    """If positive, draw this many instances once and train on them again and again (a memoriser); they are then
    also a set of metrics.json, `fixed`, and the one that history.jsonl follows."""
    workers: int = 1
    """Processes that draw and label batches while the network trains; 0 does it in turn."""

    def __post_init__(self) -> None:
        for name in ("switch_at", "random_prefixes"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"data.{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name in ("fixed_instances", "workers"):
            if getattr(self, name) < 0:
                raise UserError(f"data.{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with linear warm-up, cosine decay and gradient clipping."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    final_share: float = 0.01
    """Learning rate at the last step, as a share of the peak."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    weight_decay: float = 0.01
    """Decay of weight matrices (not of embeddings, biases or norms)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's averaging constants."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""


@dataclass(frozen=True)
class EditingConfig:
    """Arms A1 and A2: how tours are edited, at use and in the training rollouts of A2."""

    edits_per_city: int = 4
    """Edits at use, times n."""
    temperature: float = 1.0
    """Refilled cities are drawn from the softmax of logits / temperature; 0 takes the most likely."""
    start: float = 0.3
    """A2: first temperature of the acceptance, in units of the mean weight between different cities."""
    end: float = 0.005
    """A2: last temperature of the acceptance; it falls by the same factor after every edit."""
    rollout_share: float = 0.25
    """A2: share of the instances of a batch whose tours come from annealed edits by the network as it is."""
    rollout_edits: int = 2
    """A2: edits of such a rollout, from a random tour, at a temperature drawn from the schedule."""

    def __post_init__(self) -> None:
        if self.edits_per_city < 1 or self.rollout_edits < 1:
            raise UserError("editing.edits_per_city and editing.rollout_edits must be at least 1")
        if self.temperature < 0 or not 0 < self.end <= self.start:
            raise UserError("editing needs temperature >= 0 and 0 < end <= start")
        if not 0 <= self.rollout_share <= 1:
            raise UserError(f"editing.rollout_share must lie between 0 and 1, got {self.rollout_share}")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Its `config.json` repeats it: `mesaprobe train --config trained_models/NAME/config.json`."""

    problem: ProblemConfig = field(default_factory=ProblemConfig)
    model: ArchitectureConfig = field(default_factory=GPTConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    teacher: str = "optimal"
    """optimal, any algorithm by name (nearest_neighbour, greedy_edge, savings, ...), or package.module:function."""
    arm: Literal["A0", "A1", "A2", "A3", "A4", "AL"] = "A0"
    """Training set-up. A0: plain left-to-right. A1: masked and bidirectional, edits. A2: as A1, annealed acceptance.
    A3: scorer inside a look-ahead from outside. A4: myopic. AL: looped. It settles model.attention and model.tied."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    editing: EditingConfig = field(default_factory=EditingConfig)
    steps: int = 10_000
    """Optimisation steps."""
    batch_size: int = 256
    """Instances per step."""
    seed: int = 0
    """Seed of the initial weights, the data and the evaluation sets."""
    evaluate_every: int = 500
    """Steps between evaluations; each is written to history.jsonl together with a checkpoint."""
    evaluation_instances: int = 2000
    """Held-out instances per set in metrics.json (a quarter of them in history.jsonl)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA where there is one."""
    threads: int = 0
    """CPU threads of the network; 0 takes all cores. Sums depend on it in their last digit."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "evaluation_instances"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.curriculum.order != "none" and self.data.fixed_instances:
            raise UserError("a curriculum draws fresh instances; it cannot go with data.fixed_instances")
        arm = ARMS[self.arm]
        if self.model.reads_whole_tour and not arm.edits:
            raise UserError(
                "a bidirectional network sees the answer in a next-city objective; train with "
                "model.attention prefix or causal, or with arm A1 or A2"
            )
        if self.arm != "A0" and not isinstance(self.model, GPTConfig):
            raise UserError(f"arm {self.arm} trains GPTs only, got architecture {self.model.architecture}")
        if arm.edits and isinstance(self.model, GPTConfig) and self.model.attention == "causal":
            raise UserError(f"arm {self.arm} reads the whole tour and cannot train with model.attention causal")


PRESETS: Registry[TrainConfig] = Registry("preset")
PRESETS.add(
    "quick",
    TrainConfig(model=GPTConfig(d_model=64, d_mlp=256), steps=5000, batch_size=128, evaluate_every=250, threads=2),
)
PRESETS.add("matrix8-optimal", TrainConfig(steps=36_000, batch_size=128, evaluate_every=1000, threads=1))
PRESETS.add(
    "euclidean8-optimal",
    TrainConfig(
        problem=ProblemConfig(family="euclidean"),
        steps=24_000,
        batch_size=128,
        evaluate_every=1000,
        threads=1,
    ),
)
PRESETS.add(
    "matrix8-nearest",
    TrainConfig(teacher="nearest_neighbour", steps=8000, batch_size=128, evaluate_every=500, threads=1),
)

for _arm in ARMS:
    PRESETS.add(
        f"matrix8-arm-{_arm.lower()}",
        TrainConfig(
            model=GPTConfig(d_model=64, d_mlp=256),
            arm=_arm,  # type: ignore[arg-type]
            steps=5000,
            batch_size=128,
            evaluate_every=500,
            threads=1,
        ),
    )
PRESETS.add(
    "asymmetric8-optimal",
    TrainConfig(
        problem=ProblemConfig(family="asymmetric"), steps=10_000, batch_size=128, evaluate_every=1000, threads=1
    ),
)


def read_train_config(path: Path) -> TrainConfig:
    """The config that a run wrote to its `config.json`, checked key by key."""
    data = read_json(path)
    if not isinstance(data, Mapping) or "model" not in data:
        return parse_config(TrainConfig, data, str(path))
    model = parse_architecture(data["model"], f"{path}, model")
    others = {key: value for key, value in data.items() if key != "model"}
    return dataclasses.replace(parse_config(TrainConfig, others, str(path)), model=model)


def first_difference(mine: TrainConfig, other: TrainConfig) -> str | None:
    """The dotted name and both values of the first field in which two configs differ, or None."""

    def walk(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str) -> str | None:
        for key in sorted(a, key=lambda key: key != "architecture"):  # other architectures have other keys
            if isinstance(a[key], Mapping):
                found = walk(a[key], b[key], f"{prefix}{key}.")
                if found:
                    return found
            elif a[key] != b[key]:
                return f"{prefix}{key} ({a[key]!r} against {b[key]!r})"
        return None

    return walk(plain(mine), plain(other), "")


def resolved(config: TrainConfig, cores: int) -> TrainConfig:
    """The config with `threads`, and what the arm settles of the network's shape, written out, so that config.json
    repeats the run to the last digit.

    >>> resolved(TrainConfig(arm="A1"), 1).model.attention
    'bidirectional'
    """
    arm, model = ARMS[config.arm], config.model
    if isinstance(model, GPTConfig):
        attention = "bidirectional" if arm.edits else model.attention
        model = dataclasses.replace(model, attention=attention, tied=model.tied or arm.tied)
    return dataclasses.replace(config, threads=config.threads or cores, model=model)
