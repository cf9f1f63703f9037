"""The training curve that lies beside a saved model."""

import json
from pathlib import Path

import numpy as np

from mesaprobe.errors import UserError
from mesaprobe.models.subject import Subject
from mesaprobe.training.loop import HISTORY_FILE


def training_curve(subject: Subject) -> dict[str, np.ndarray] | None:
    """Columns of history.jsonl, one value per evaluation; None for a subject without one, and for one that was taught
    with a lesson, whose history holds the lesson's own figures."""
    path = subject.description.get("path")
    if path is None or not (Path(path) / HISTORY_FILE).is_file():
        return None
    source = Path(path) / HISTORY_FILE
    try:
        rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line]
        if not rows or "instances_seen" not in rows[0]:
            return None
        return {key: np.array([row[key] for row in rows], dtype=np.float64) for key in rows[0]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} is no training history: {error}") from error
