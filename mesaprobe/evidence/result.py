"""The one result type of all lines of evidence, and the registry of lines (method.md section 5)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from mesaprobe.evidence.protocol import Budget
from mesaprobe.models.subject import Subject
from mesaprobe.registry import Registry


@dataclass(frozen=True, eq=False)
class LineResult:
    """What one line says of one subject. A number that is not known is None, never made up."""

    id: str
    name: str
    status: Literal["ok", "na", "underpowered"]
    reason: str | None
    """Why the line does not apply, or cannot see enough; None if it is ok."""
    value: float | None
    """The line's statistic on its own scale (stated by the line)."""
    ci: tuple[float, float] | None
    """95 % interval of the value, resampling instances."""
    p: float | None
    """p-value against the strongest null."""
    null: Mapping[str, float] = field(default_factory=dict)
    """What the same statistic gives where there is nothing to find, by name."""
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    table: pd.DataFrame | None = None
    """Tidy rows, one per number with its null (evidence.parquet); not part of report.json."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the report draws (figures/*.npz); not part of report.json."""


Line = Callable[[Subject, Budget, int], LineResult]
"""(subject, budget, seed) -> result."""

LINES: Registry[Line] = Registry("line of evidence")
