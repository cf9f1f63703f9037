"""The fixes study: do changes of the training set-up prevent inner search? (method.md section 8)

Runs cell by cell and stores each; the same command goes on where it stopped and ends with the same numbers.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesaprobe.errors import UserError
from mesaprobe.files import make_folder, plain, read_json, write_json
from mesaprobe.problems import make_problem
from mesaprobe.studies.cells import (
    CheckpointAccuracy,
    MatchedCell,
    cell_row,
    judge_cell,
    matched_checkpoint,
    matching_level,
    train_cell,
)
from mesaprobe.studies.contrasts import POSITIVES, Contrast, Mean, contrasts, mean_over_seeds
from mesaprobe.studies.design import PLAIN, FixesDesign
from mesaprobe.studies.inner_evidence import negatives_bound
from mesaprobe.studies.retention import RetentionPoint, retained, retention_course, retention_row
from mesaprobe.studies.whole_system import discordant_states
from mesaprobe.verdict.store import shipped_zoo

RESULTS_FILE = "results.json"
_DESIGN_FILE = "design.json"


@dataclass(frozen=True)
class ArmResult:
    """One arm over its seeds."""

    arm: str
    networks: int
    system: Mean
    single_pass: Mean
    score: Mean
    log10_lr: Mean
    e7: Mean
    step: Mean


@dataclass(frozen=True)
class FixesResults:
    """Everything that the page and the table show."""

    design: dict[str, Any]
    hash: str
    level: float
    level_asked: float
    discordant_states: int
    negatives: float | None
    plain_classed_search: float
    gate: str
    """What the gate of method.md section 8 says: whether there is inner search to prevent."""
    arms: list[ArmResult]
    contrasts: list[Contrast]
    cells: list[dict[str, Any]]
    courses: dict[str, list[CheckpointAccuracy]]
    retention: list[dict[str, Any]]
    retained: list[dict[str, Any]]


def run_fixes(
    design: FixesDesign, folder: Path, zoo: Path, show: Callable[[str], None] = lambda _: None
) -> FixesResults:
    """Train, match, measure, compare; writes `results.json`. Raises UserError if the folder holds another study."""
    _check_folder(design, folder)
    states = discordant_states(make_problem(design.problem), design.discordant_instances)
    courses = {}
    for seed in design.seeds:
        for arm in design.arms:
            show(f"training {arm}, seed {seed}")
            courses[arm, seed] = train_cell(design, arm, seed, folder, states)
    level, matched = matching_level(design, courses), []
    for seed in design.seeds:
        for arm in design.arms:
            show(f"evidence of {arm}, seed {seed}")
            point = matched_checkpoint(courses[arm, seed], level)
            matched.append(judge_cell(design, arm, seed, folder, point))
    trained_on = []
    for searcher in design.retention.searchers:
        for arm in design.retention.arms:
            for seed in design.retention.seeds:
                show(f"retention of {searcher} under {arm}, seed {seed}")
                trained_on.append(retention_course(design, searcher, arm, seed, folder, zoo))
    found = _results(design, level, len(states.steps), courses, matched, trained_on)
    write_json(folder / RESULTS_FILE, found)
    return found


def _results(
    design: FixesDesign,
    level: float,
    states: int,
    courses: dict[tuple[str, int], list[CheckpointAccuracy]],
    matched: list[MatchedCell],
    trained_on: list[list[RetentionPoint]],
) -> FixesResults:
    by_arm = {arm: [cell for cell in matched if cell.arm == arm] for arm in design.arms}
    negatives = negatives_bound(shipped_zoo(design.budget, design.problem.family, design.problem.n))
    searching = sum(cell.inner.label == "SEARCH" for cell in by_arm[PLAIN]) / len(by_arm[PLAIN])
    gate = (
        "at least half of the plain networks are classed SEARCH"
        if searching >= POSITIVES
        else "no inner search to prevent at this scale: the question moves to retention"
    )
    return FixesResults(
        design=plain(design),
        hash=design_hash(design),
        level=level,
        level_asked=design.level,
        discordant_states=states,
        negatives=negatives,
        plain_classed_search=searching,
        gate=gate,
        arms=[_arm(arm, of_arm) for arm, of_arm in by_arm.items()],
        contrasts=contrasts(
            [cell.inner.score for cell in by_arm[PLAIN]],
            {arm: [cell.inner.score for cell in of_arm] for arm, of_arm in by_arm.items() if arm != PLAIN},
            negatives,
            {arm: _all(cell.inner.powered for cell in of_arm) for arm, of_arm in by_arm.items()},
        ),
        cells=[cell_row(cell) for cell in matched],
        courses={f"{arm}-seed{seed}": points for (arm, seed), points in courses.items()},
        retention=[retention_row(point) for points in trained_on for point in points],
        retained=[
            {
                "searcher": points[0].searcher,
                "arm": points[0].arm,
                "seed": points[0].seed,
                "retained": retained(points),
            }
            for points in trained_on
        ],
    )


def _arm(arm: str, of_arm: list[MatchedCell]) -> ArmResult:
    return ArmResult(
        arm=arm,
        networks=len(of_arm),
        system=mean_over_seeds([cell.system for cell in of_arm]),
        single_pass=mean_over_seeds([cell.single_pass for cell in of_arm]),
        score=mean_over_seeds([cell.inner.score for cell in of_arm]),
        log10_lr=mean_over_seeds([cell.inner.log10_lr for cell in of_arm]),
        e7=mean_over_seeds([cell.inner.e7 for cell in of_arm]),
        step=mean_over_seeds([cell.step for cell in of_arm]),
    )


def _all(values: Any) -> bool | None:
    known = list(values)
    return None if any(value is None for value in known) else all(known)


def design_hash(design: FixesDesign) -> str:
    """Hash of all that the numbers depend on, but for the code."""
    return hashlib.sha256(json.dumps(plain(design), sort_keys=True).encode()).hexdigest()[:16]


def _check_folder(design: FixesDesign, folder: Path) -> None:
    stored = make_folder(folder) / _DESIGN_FILE
    if stored.is_file() and read_json(stored) != json.loads(json.dumps(plain(design))):
        raise UserError(f"{folder} holds a study of another design; choose another --out")
    write_json(stored, design)


def table_rows(results: FixesResults) -> list[dict[str, Any]]:
    """One row an arm, with the decision word: what the command prints."""
    words = {contrast.arm: contrast for contrast in results.contrasts}
    rows = []
    for arm in results.arms:
        contrast = words.get(arm.arm)
        rows.append(
            {
                "arm": arm.arm,
                "networks": arm.networks,
                **{
                    f"{name}{part}": getattr(getattr(arm, name), bound)
                    for name in ("system", "single_pass", "score", "log10_lr", "e7")
                    for part, bound in (("", "value"), ("_low", "low"), ("_high", "high"))
                },
                "difference": None if contrast is None else contrast.difference.value,
                "difference_low": None if contrast is None else contrast.difference.low,
                "difference_high": None if contrast is None else contrast.difference.high,
                "p_holm": None if contrast is None else contrast.p_holm,
                "word": None if contrast is None else contrast.word,
                "why": None if contrast is None else contrast.why,
                "gate": results.gate,
            }
        )
    return rows
