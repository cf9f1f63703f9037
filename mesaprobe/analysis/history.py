"""What a training run left beside a saved model: its course, and its gap against outer compute."""

from pathlib import Path
from typing import Any

import numpy as np

from mesaprobe.errors import UserError
from mesaprobe.files import read_json, read_json_lines
from mesaprobe.models.subject import Subject
from mesaprobe.training.loop import HISTORY_FILE, OUTER_COMPUTE_FILE


def training_curve(subject: Subject) -> dict[str, np.ndarray] | None:
    """Columns of history.jsonl, one value per evaluation, and of outer_compute.json with `outer_` before their names;
    None for a subject without a history of gaps."""
    path = subject.description.get("path")
    if path is None or not (Path(path) / HISTORY_FILE).is_file():
        return None
    source = Path(path) / HISTORY_FILE
    try:
        rows = read_json_lines(source)
        found = {key: np.array([row[key] for row in rows], dtype=np.float64) for key in rows[0]} if rows else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} is no training history: {error}") from error
    if "gap_mean" not in found:  # a course of taught inner states measures no gaps on its way
        found = {}
    return (found | _outer_compute(Path(path) / OUTER_COMPUTE_FILE)) or None


def _outer_compute(source: Path) -> dict[str, np.ndarray]:
    if not source.is_file():
        return {}
    points: list[dict[str, Any]] = read_json(source)
    try:
        numbers = ("evaluated_tours", "forward_passes", "gap", "low", "high")
        found = {f"outer_{key}": np.array([p[key] for p in points], dtype=np.float64) for key in numbers}
        return found | {f"outer_{key}": np.array([str(p[key]) for p in points]) for key in ("method", "kept")}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} holds no gaps against outer compute: {error}") from error
