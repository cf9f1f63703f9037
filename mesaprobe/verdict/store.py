"""The zoo as it ships: records of one problem and budget, checked against the present protocol, and the error table."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesaprobe.evidence import LINES, line_hash
from mesaprobe.files import plain, read_json, write_json
from mesaprobe.solvers.known_rules import leaving_out
from mesaprobe.verdict.calibration import MIN_PER_CLASS, Calibration, count_families, fits
from mesaprobe.verdict.vector import COMPONENTS
from mesaprobe.zoo.records import LineFigure, Record, read_records, records_folder

RULE_VERSION = 3
"""Raised whenever the score, the gates or the rule change. 1 ranked point estimates and left sealed families out of the
fit; 2 ranks what the intervals leave no doubt of, after a first error table (AUROC .770) had opened them; 3 scores a
family that is held out by what is measured without its algorithms (method.md, amendment 2)."""


@dataclass(frozen=True, eq=False)
class Shipped:
    """What the package knows of networks of known mechanism, for one family of problems and one budget."""

    budget: str
    records: tuple[Record, ...]
    calibration: Calibration | None
    """None where there are too few families, or where the records were measured under another protocol."""
    problem: str | None = None
    """Why there is no calibration: NO_ZOO, OTHER_PROTOCOL or OUT_OF_ZOO; None where there is one."""

    @property
    def hash(self) -> str | None:
        """Hash of all that a verdict depends on; None without a calibration."""
        return zoo_hash(self.records) if self.calibration else None


def shipped_zoo(budget: str, family: str, n: int, *, folder: Path | None = None) -> Shipped:
    """The zoo that a network on `family` problems of n cities is compared with."""
    found = read_records(records_folder() if folder is None else folder, budget)
    alike = tuple(record for record in found if record.problem == family and record.n == n)
    if not alike:
        return Shipped(budget, (), None, "OUT_OF_ZOO" if found else "NO_ZOO")
    fresh = tuple(record for record in alike if is_current(record, budget))
    usable = [record for record in fresh if fits(record)]
    if min(count_families(usable)) < MIN_PER_CLASS:
        stale = min(count_families([record for record in alike if fits(record)])) >= MIN_PER_CLASS
        return Shipped(budget, fresh, None, "OTHER_PROTOCOL" if stale else "NO_ZOO")
    return Shipped(budget, fresh, Calibration.fit(fresh))


def is_current(record: Record, budget: str) -> bool:
    """Whether every component was measured, with every line as it is now, and without the network's own algorithm where
    the library has it."""
    lines = [line for part in COMPONENTS.values() for line in part if line in LINES]

    def current(figures: Mapping[str, LineFigure], forgotten: Sequence[str]) -> bool:
        with leaving_out(forgotten):
            return all(line in figures and figures[line].line_hash == line_hash(line, budget) for line in lines)

    known = current(record.lines, ())
    return known and (not record.own_algorithms or current(record.unaided, record.own_algorithms))


def zoo_hash(records: Sequence[Record]) -> str:
    """Hash over the rule and the weights, labels and figures of the records."""
    ordered = [plain(record) for record in sorted(records, key=lambda r: r.name)]
    contents = json.dumps([RULE_VERSION, ordered], sort_keys=True)
    return hashlib.sha256(contents.encode()).hexdigest()[:16]


def table_path(budget: str, folder: Path | None = None) -> Path:
    """Where the error table of a budget is stored."""
    return (records_folder() if folder is None else folder) / f"{budget}.table.json"


def write_table(budget: str, table: dict[str, Any], folder: Path | None = None) -> None:
    """Store an error table beside the records."""
    write_json(table_path(budget, folder), table)


def read_table(shipped: Shipped, folder: Path | None = None) -> dict[str, Any] | None:
    """The stored error table, or None where it is absent or belongs to other records."""
    path = table_path(shipped.budget, folder)
    if shipped.calibration is None or not path.is_file():
        return None
    table: dict[str, Any] = read_json(path)
    return table if table["zoo"] == shipped.hash else None
