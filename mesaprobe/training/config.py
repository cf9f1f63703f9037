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
class TrainConfig:
    """One training run. Its `config.json` repeats it: `mesaprobe train --config trained_models/NAME/config.json`."""

    problem: ProblemConfig = field(default_factory=ProblemConfig)
    model: ArchitectureConfig = field(default_factory=GPTConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    teacher: str = "optimal"
    """optimal, any algorithm by name (nearest_neighbour, greedy_edge, savings, ...), or package.module:function."""
    arm: Literal["A0"] = "A0"
    """Training set-up; A0 is the plain left-to-right GPT."""
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
        if self.model.reads_whole_tour:
            raise UserError(
                "a bidirectional network sees the answer in a next-city objective; train with "
                "model.attention prefix or causal"
            )


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
    """The config with `threads` written out, so that config.json repeats the run to the last digit."""
    return dataclasses.replace(config, threads=config.threads or cores)
