"""Records of networks that do not exist: a zoo with known effects."""

import dataclasses

import numpy as np

from mesaprobe.evidence import LINES, line_hash
from mesaprobe.verdict.vector import COMPONENTS
from mesaprobe.zoo.records import LineFigure, Performance, Record, Role, Shape

ALL_LINES = tuple(line for part in COMPONENTS.values() for line in part)


def record(
    name: str,
    role: Role,
    values: dict[str, float | None],
    *,
    family: str | None = None,
    degree: int | None = None,
    gap: float = 0.1,
    kind: str = "TourGPT, LN",
    legal: float = 1.0,
    disguise: str | None = None,
    sealed: bool = False,
) -> Record:
    """A record whose lines all have an interval of half width .05 and p = .001 where the value is above .1."""

    def figure(line: str) -> LineFigure:
        value = values.get(line)
        hash_ = line_hash(line, "quick") if line in LINES else "none"
        if value is None:
            return LineFigure("na", None, None, None, None, hash_, 0.0)
        return LineFigure("ok", value, value - 0.05, value + 0.05, 0.001 if value > 0.1 else 0.6, hash_, 0.0)

    return Record(
        name=name,
        family=family or name,
        role=role,
        degree=(4 if role == "search" else 1) if degree is None else degree,
        disguise=disguise,
        sealed=sealed,
        certificate="construction",
        problem="matrix",
        n=8,
        weights_hash=name,
        seed=1,
        shape=Shape(kind, 4, 800_000),
        performance=Performance(legal, (gap, gap - 0.01, gap + 0.01), (1.2, 1.1, 1.3), 0.5),
        lines={line: figure(line) for line in ALL_LINES},
    )


def values_around(level: float, rng: np.random.Generator, spread: float = 0.05) -> dict[str, float | None]:
    """Every line near one level."""
    return {line: float(level + spread * rng.standard_normal()) for line in ALL_LINES}


def zoo(families: int, *, search: float = 0.6, heuristic: float = 0.0, seed: int = 0, members: int = 2) -> list[Record]:
    """`families` families a class with two members each, at the given levels."""
    rng = np.random.default_rng(seed)
    levels: tuple[tuple[Role, float], ...] = (("search", search), ("heuristic", heuristic))
    return [
        record(f"{role}-{f}-{m}", role, values_around(level, rng), family=f"{role}-{f}")
        for role, level in levels
        for f in range(families)
        for m in range(members)
    ]


def renamed(found: Record, **changes: object) -> Record:
    """A record with other fields."""
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]
