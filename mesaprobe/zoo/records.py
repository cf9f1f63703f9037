"""Stored evidence: what every line said of a network of known mechanism, one JSON file a member and budget.

The records ship inside the package, so that a verdict needs no zoo at hand. A figure is keyed by the hash of the
weights and by the hash of its line's version and settings: what is measured under the present protocol is not
measured again, and a record of another protocol gives no verdict.
"""

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mesaprobe.files import make_folder, read_json, write_json

Role = Literal["search", "heuristic", "decoy", "sanity", "subject"]


@dataclass(frozen=True)
class LineFigure:
    """What one line said of one network."""

    status: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    line_hash: str
    seconds: float


@dataclass(frozen=True)
class Shape:
    """What is compared when one asks whether the zoo holds networks of this architecture and size."""

    kind: str
    """Network class and normalisation, e.g. `TourGPT, LN`."""
    layers: int | None
    parameters: int


@dataclass(frozen=True)
class Performance:
    """How good a network is at the task; fractions of 1."""

    legal_fraction: float
    gap: tuple[float, float, float]
    """Mean gap of the greedy rollouts to the optimum, with its 95 % interval."""
    random_gap: tuple[float, float, float]
    """The same of uniformly random legal tours."""
    optimal_fraction: float


@dataclass(frozen=True)
class Record:
    """One network's evidence vector with all that the gates ask for."""

    name: str
    family: str
    role: Role
    degree: int
    disguise: str | None
    sealed: bool
    certificate: str
    """construction, imitation, interchange or none: how the label was shown to be true."""
    problem: str
    n: int
    weights_hash: str
    seed: int
    shape: Shape
    performance: Performance
    lines: Mapping[str, LineFigure]
    own_algorithms: tuple[str, ...] = ()
    """The algorithms of the library that are this network's own mechanism."""
    unaided: Mapping[str, LineFigure] = field(default_factory=dict)
    """The same lines where the measuring does not know these algorithms (method.md, amendment 2)."""

    @property
    def as_unknown(self) -> "Record":
        """The network as it is seen where nobody knows its algorithm; itself where the library has none of it."""
        return replace(self, lines=self.unaided, unaided={}) if self.unaided else self

    @property
    def search(self) -> bool:
        """Whether its mechanism counts as search (degree 3 and up)."""
        return self.role == "search"


def records_folder() -> Path:
    """Where the package keeps its records."""
    return Path(str(importlib.resources.files("mesaprobe.zoo"))) / "evidence"


def write_record(folder: Path, budget: str, record: Record) -> None:
    """Store one record, atomically."""
    write_json(make_folder(folder / budget) / f"{record.name}.json", record)


def read_record(path: Path) -> Record:
    """One stored record; UserError names a file that cannot be read."""
    data: dict[str, Any] = read_json(path)
    shape, performance = data.pop("shape"), data.pop("performance")
    lines, unaided = (
        {line: LineFigure(**figure) for line, figure in data.pop(key, {}).items()} for key in ("lines", "unaided")
    )
    data["own_algorithms"] = tuple(data.pop("own_algorithms", ()))
    performance |= {key: tuple(performance[key]) for key in ("gap", "random_gap")}
    return Record(**data, shape=Shape(**shape), performance=Performance(**performance), lines=lines, unaided=unaided)


def read_records(folder: Path, budget: str) -> list[Record]:
    """All records of a budget, by name; empty where none are stored."""
    return [read_record(path) for path in sorted((folder / budget).glob("*.json"))]
