"""One subject, analysed: behaviour, lines of evidence, gates, verdict."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mesaprobe.analysis import pictures, store
from mesaprobe.analysis.behaviour import Behaviour, measure_behaviour
from mesaprobe.analysis.history import training_curve
from mesaprobe.analysis.unfinished import FinishedLines
from mesaprobe.analysis.zoo_picture import zoo_picture
from mesaprobe.errors import UserError
from mesaprobe.evidence import BUDGETS, LINES, LineResult, draw_set, protocol_hash
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.solvers.exact.held_karp import MAX_CITIES
from mesaprobe.verdict import Gate, Verdict, decide
from mesaprobe.verdict.store import shipped_zoo
from mesaprobe.verdict.subject import subject_record
from mesaprobe.zoo.records import Performance

EXAMPLES = 24
"""Instances among which the patching pair is looked for."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that one run of the battery found out about a subject."""

    subject: Mapping[str, Any]
    behaviour: Behaviour
    lines: tuple[LineResult, ...]
    gates: tuple[Gate, ...]
    verdict: Verdict
    figures: Mapping[str, Mapping[str, np.ndarray]]
    protocol: Mapping[str, Any]
    seconds: float

    def frame(self) -> pd.DataFrame:
        """Tidy table: one row per number, with the line, quantity, site, arm (subject or null) and interval."""
        parts = [_behaviour_rows(self.behaviour), *(_line_rows(line) for line in self.lines)]
        return pd.concat([part.dropna(axis=1, how="all") for part in parts], ignore_index=True)

    def report(self) -> dict[str, Any]:
        """The contents of report.json (schema version 1)."""
        keys = ("id", "name", "status", "reason", "value", "ci", "p", "null", "details", "seconds")
        return {
            "schema": 1,
            "subject": dict(self.subject),
            "behaviour": self.behaviour.as_json(),
            "lines": [{key: getattr(line, key) for key in keys} for line in self.lines],
            "gates": [asdict(gate) for gate in self.gates],
            "verdict": asdict(self.verdict),
            "protocol": dict(self.protocol),
            "versions": versions(),
            "seconds": self.seconds,
        }

    def save(self, folder: str | Path) -> Path:
        """Write report.json, evidence.parquet and figures/ to `folder` (mesaprobe.report.render draws them)."""
        store.save_analysis(Path(folder), self.report(), self.frame(), self.figures)
        return Path(folder)

    def _repr_html_(self) -> str:
        import html

        gap = self.behaviour.gap
        rows = "".join(
            f"<tr><td>{line.id} {html.escape(line.name)}</td><td>{line.status}</td>"
            f"<td>{'not known' if line.value is None else f'{line.value:.3f}'}</td></tr>"
            for line in self.lines
        )
        return (
            f"<b>{html.escape(str(self.subject['name']))}: {self.verdict.label}</b> ({self.verdict.reason}), "
            f"mean gap {gap.value:.2%} ({gap.low:.2%} to {gap.high:.2%})<table>{rows}</table>"
        )


def analyze(
    subject: Subject,
    *,
    budget: str = "quick",
    lines: Sequence[str] | None = None,
    seed: int = 0,
    show: Callable[[str], None] | None = None,
    finished: FinishedLines | None = None,
) -> Analysis:
    """Analyse a subject: behaviour against references, the lines of evidence, the verdict.

    `budget` is quick, standard or full; `lines` picks lines by id (default: all that exist); `show` is told what
    is going on; `finished` keeps lines as they are done and gives them back to a run that goes on. The same seed
    gives the same numbers on the same machine. Raises UserError for an unknown budget or line, or a problem too
    large to label exactly.
    """
    started, tell = time.monotonic(), show or (lambda _: None)
    spent = BUDGETS[budget]
    chosen = list(LINES) if lines is None else list(lines)
    for line in chosen:
        LINES[line]  # an unknown name says so before anything runs
    if subject.problem.n > MAX_CITIES:
        raise UserError(f"exact labels reach to n = {MAX_CITIES}, the subject has n = {subject.problem.n}")
    tell("behaviour against references")
    instances = draw_set(subject.problem, "behaviour", spent.behaviour_instances, seed)
    behaviour = measure_behaviour(subject, instances, seed)
    results = []
    for line in chosen:
        known = None if finished is None else finished.read(line)
        tell(f"line {line}" + (", measured before" if known else ""))
        result = known or LINES[line](subject, budget, seed)
        if finished is not None and known is None:
            finished.write(result)
        results.append(result)
    tell("attention and patching of single instances")
    found = _figures(subject, instances, behaviour, results, seed)
    record = subject_record(subject, _performance(behaviour), tuple(results), budget, seed)
    zoo = shipped_zoo(budget, record.problem, record.n)
    verdict, gates = decide(record, budget, shipped=zoo)
    return Analysis(
        subject=_describe(subject),
        behaviour=behaviour,
        lines=tuple(results),
        gates=gates,
        verdict=verdict,
        figures=found | {"zoo": zoo_picture(record, zoo)},
        protocol={"hash": protocol_hash(budget, chosen), "budget": budget, "seed": seed},
        seconds=time.monotonic() - started,
    )


def _figures(
    subject: Subject, instances: Instances, behaviour: Behaviour, results: Sequence[LineResult], seed: int
) -> dict[str, Mapping[str, np.ndarray]]:
    """What the report draws, but for the zoo; a picture that the network has no hook points for is left out."""
    found: dict[str, Mapping[str, np.ndarray] | None] = {
        "instances": pictures.instance_pictures(instances, behaviour, seed),
        "training": training_curve(subject),
        "gaps": pictures.gap_distributions(behaviour),
        "dstar": pictures.dstar_accuracies(behaviour),
        "attention": pictures.attention_picture(subject, instances[:1], seed),
        "patching": pictures.patching_picture(subject, instances[:EXAMPLES], seed),
        "explorer": pictures.explored_states(subject, instances, behaviour, seed),
    }
    drawn = {name: arrays for name, arrays in found.items() if arrays is not None}
    return drawn | {line.id: line.arrays for line in results if line.arrays}


def _performance(behaviour: Behaviour) -> Performance:
    gap, random_gap = behaviour.gap, behaviour.random_gap
    return Performance(
        legal_fraction=behaviour.legal_fraction,
        gap=(gap.value, *gap.ci),
        random_gap=(random_gap.value, *random_gap.ci),
        optimal_fraction=behaviour.optimal_fraction,
    )


def _describe(subject: Subject) -> dict[str, Any]:
    """The `subject` object of report.json; what is not known of a user's own network is null."""
    known = ("path", "parameters", "layers", "d_model", "attention", "teacher", "arm")
    return {
        "name": subject.name,
        "problem": asdict(subject.problem.config),
        **{key: subject.description.get(key) for key in known},
        "weights_hash": subject.weights_hash,
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("mesaprobe", "torch", "transformer-lens", "scikit-learn", "numpy", "numba", "ortools", "plotly")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _behaviour_rows(behaviour: Behaviour) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"line": "behaviour", "quantity": "gap", "arm": name, "value": float(gaps.mean())}
        for name, gaps in behaviour.gaps.items()
    ]
    rows[0] |= {"low": behaviour.gap.low, "high": behaviour.gap.high}
    for name, by_bin in behaviour.dstar_accuracy.items():
        for label, estimate in by_bin.items():
            if estimate is not None:
                bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
                rows.append(
                    {"line": "behaviour", "quantity": "accuracy", "arm": name, "site": f"d* = {label}", **bounds}
                )
    return pd.DataFrame(rows)


def _line_rows(line: LineResult) -> pd.DataFrame:
    low, high = line.ci or (None, None)
    rows: list[dict[str, Any]] = [
        {"line": line.id, "quantity": "value", "arm": "subject", "value": line.value, "low": low, "high": high}
    ]
    rows += [{"line": line.id, "quantity": "null", "arm": name, "value": value} for name, value in line.null.items()]
    head = pd.DataFrame(rows)
    return head if line.table is None else pd.concat([head, line.table.assign(line=line.id)], ignore_index=True)
