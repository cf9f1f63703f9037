"""Training runs that take a blink, and what they leave behind, for the tests of training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mesaprobe.models import GPTConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.training.config import DataConfig, TrainConfig

TINY = TrainConfig(
    problem=ProblemConfig(n=5),
    model=GPTConfig(d_model=16, n_layers=1, n_heads=2, d_mlp=32),
    data=DataConfig(workers=0),
    steps=12,
    batch_size=16,
    evaluate_every=4,
    evaluation_instances=40,
    threads=1,
    device="cpu",
)
FINISHED = {"README.md", "config.json", "history.jsonl", "metrics.json", "model.safetensors", "outer_compute.json"}
"""The files of a finished run."""


def changed(config: TrainConfig = TINY, **fields: Any) -> TrainConfig:
    """The config with other fields."""
    return dataclasses.replace(config, **fields)


def with_data(config: TrainConfig = TINY, **fields: Any) -> TrainConfig:
    """The config with other fields of its data config."""
    return changed(config, data=dataclasses.replace(config.data, **fields))


def history_of(folder: Path) -> list[dict[str, float]]:
    """The rows of history.jsonl without the seconds they took."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]
