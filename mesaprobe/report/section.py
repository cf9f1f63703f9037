"""One section of the page: what stands under a heading, and what it does and does not show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mesaprobe.report.markup import Html


@dataclass(frozen=True)
class Figures:
    """What a section draws from `figures/STEM.npz`."""

    stem: str
    arrays: tuple[str, ...]
    """The arrays that must be there."""
    draw: Callable[[dict[str, np.ndarray]], Html]
    line: str | None = None
    """The line of evidence whose reason says why the file is not there."""


@dataclass(frozen=True)
class Section:
    """One heading of the page."""

    id: str
    title: str
    shows: str
    limits: str
    """What it does not show."""
    numbers: Callable[[dict[str, Any]], Html] | None = None
    """What is written from report.json alone."""
    figures: Figures | None = None
