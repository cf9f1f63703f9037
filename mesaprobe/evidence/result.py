"""The one result type of all lines of evidence, and the registry of lines (method.md section 5)."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from mesaprobe.models.subject import Subject
from mesaprobe.registry import Registry


@dataclass(frozen=True, eq=False)
class LineResult:
    """What one line says of one subject. A number that is not known is None, never made up."""

    status: Literal["ok", "na", "underpowered"]
    reason: str | None = None
    """Why the line does not apply, or cannot see enough; None if it is ok."""
    value: float | None = None
    """The line's statistic on its own scale (stated by the line)."""
    ci: tuple[float, float] | None = None
    """95 % interval of the value, resampling instances."""
    p: float | None = None
    """p-value against the strongest null."""
    null: Mapping[str, float] = field(default_factory=dict)
    """What the same statistic gives where there is nothing to find, by name."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Named figures of the line, JSON values only."""
    table: pd.DataFrame | None = None
    """Tidy rows, one per number with its null (evidence.parquet); not part of report.json."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the report draws (figures/ID.npz); not part of report.json."""
    id: str = ""
    name: str = ""
    seconds: float = 0.0
    """These three are set by `Line`."""


@dataclass(frozen=True)
class Line:
    """One line of evidence: how it is measured, and with how much at each budget."""

    id: str
    name: str
    measure: Callable[[Subject, Any, int], LineResult]
    """(subject, settings, seed) -> result."""
    settings: Mapping[str, Any]
    """By budget, a frozen dataclass of counts and thresholds; all of it enters the protocol hash."""
    version: int = 1
    """Raised when the line's code changes what its numbers mean."""
    asks_library: bool = False
    """Whether it compares with every algorithm of the library, not only with the rules that count as heuristics."""

    def __call__(self, subject: Subject, budget: str, seed: int) -> LineResult:
        """Measure the line on a subject at a named budget."""
        started = time.monotonic()
        result = self.measure(subject, self.settings[budget], seed)
        return dataclasses.replace(result, id=self.id, name=self.name, seconds=time.monotonic() - started)


LINES: Registry[Line] = Registry("line of evidence")
