"""One cell of the study: a network trained under one arm from one seed, its checkpoints, and the one it is judged by.

On disk, in the study's folder: `cells/ARM-seedK/` holds the finished run, `checkpoints/STEP.safetensors` and
`accuracy.json`, and `matched.json` once its evidence is measured. What is there is not made again.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesaprobe.configs import parse_config
from mesaprobe.files import make_folder, read_json, write_json
from mesaprobe.models.checkpoint import load_tensors, load_weights, save_tensors
from mesaprobe.models.networks import build_network, network_subject
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import make_problem
from mesaprobe.studies.design import FixesDesign
from mesaprobe.studies.inner_evidence import InnerEvidence, measure_inner
from mesaprobe.studies.whole_system import DiscordantStates, single_pass_accuracy, system_accuracy
from mesaprobe.training.config import resolved
from mesaprobe.training.loop import train

_CHECKPOINTS, _ACCURACY, _MATCHED = "checkpoints", "accuracy.json", "matched.json"


@dataclass(frozen=True)
class CheckpointAccuracy:
    """Discordant accuracy at one checkpoint."""

    step: int
    system: float
    """Of the whole system: what checkpoints are matched on."""
    single_pass: float
    """Without the outer loop; the difference is how much the system depends on it."""


@dataclass(frozen=True)
class MatchedCell:
    """What a cell is judged by."""

    arm: str
    seed: int
    step: int
    instances_seen: int
    system: float
    single_pass: float
    inner: InnerEvidence


def cell_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where a cell lies."""
    return folder / "cells" / f"{arm}-seed{seed}"


def train_cell(
    design: FixesDesign, arm: str, seed: int, folder: Path, states: DiscordantStates
) -> list[CheckpointAccuracy]:
    """Train a cell, or go on with it, and measure its checkpoints; returns them in order."""
    own = cell_folder(folder, arm, seed)
    if (own / _ACCURACY).is_file():
        return [parse_config(CheckpointAccuracy, row, str(own / _ACCURACY)) for row in read_json(own / _ACCURACY)]
    kept = make_folder(own / _CHECKPOINTS)

    def keep(subject: Subject, step: int) -> None:
        assert isinstance(subject, ModuleSubject)
        save_tensors(kept / f"{step:06d}.safetensors", subject.module.state_dict())

    train(design.training(arm, seed), own, resume=True, keep=keep)
    found = []
    for path in sorted(kept.glob("*.safetensors")):
        subject = _subject_at(design, arm, seed, path)
        found.append(
            CheckpointAccuracy(
                step=int(path.stem),
                system=float(system_accuracy(subject, arm, states, design.editing).mean()),
                single_pass=float(single_pass_accuracy(subject, states).mean()),
            )
        )
    write_json(own / _ACCURACY, found)
    return found


def matching_level(design: FixesDesign, cells: dict[Any, list[CheckpointAccuracy]]) -> float:
    """The accuracy at which all cells are compared: the design's, or where a cell never reaches that, the highest that
    all reach (the common range)."""
    return min(design.level, *(max(point.system for point in points) for points in cells.values()))


def matched_checkpoint(points: list[CheckpointAccuracy], level: float) -> CheckpointAccuracy:
    """The first checkpoint at which the whole system reaches the level.

    >>> points = [CheckpointAccuracy(1, 0.2, 0.1), CheckpointAccuracy(2, 0.6, 0.5), CheckpointAccuracy(3, 0.7, 0.6)]
    >>> matched_checkpoint(points, 0.5).step
    2
    """
    return next(point for point in points if point.system >= level)


def judge_cell(design: FixesDesign, arm: str, seed: int, folder: Path, point: CheckpointAccuracy) -> MatchedCell:
    """The evidence of single forward passes at the matched checkpoint, measured once."""
    own = cell_folder(folder, arm, seed)
    if (own / _MATCHED).is_file():
        found = parse_config(MatchedCell, read_json(own / _MATCHED), str(own / _MATCHED))
        if found.step == point.step:
            return found
    subject = _subject_at(design, arm, seed, own / _CHECKPOINTS / f"{point.step:06d}.safetensors")
    inner = measure_inner(subject, design.lines, design.budget, seed=0)
    found = MatchedCell(arm, seed, point.step, point.step * design.batch_size, point.system, point.single_pass, inner)
    write_json(own / _MATCHED, found)
    return found


def _subject_at(design: FixesDesign, arm: str, seed: int, weights: Path) -> Subject:
    config = resolved(design.training(arm, seed), 1)
    problem = make_problem(config.problem)
    network = build_network(config.model, problem)
    load_weights(network, load_tensors(weights)[0], weights)
    return network_subject(network, problem, f"{arm} seed {seed} step {int(weights.stem)}", {"arm": arm})


def cell_row(cell: MatchedCell) -> dict[str, Any]:
    """A flat row for tables and `--json`."""
    data = dataclasses.asdict(cell)
    inner: dict[str, Any] = data.pop("inner")
    return data | inner
