"""From stored lines to the evidence vector: ten components, each between -1 and 1 by rank within the zoo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mesaprobe.zoo.records import LineFigure, Record

COMPONENTS: dict[str, tuple[str, ...]] = {
    "E1": ("E1",),
    "E2": ("E2", "E2b"),
    "E3": ("E3",),
    "E4": ("E4",),
    "E5": ("E5",),
    "E6": ("E6",),
    "E7": ("E7", "E7c"),
    "E8": ("E8",),
    "E9": ("E9",),
    "E10": ("E10a", "E10b", "E10c"),
}
"""The lines behind each component (method.md section 7.1). E2 is the larger of look-ahead by exact values and by the
network's own completions (searchers that are bad at the task have only the second); E7 the larger of interchange on
values and of units that stand for whole tours, since enumerators have only the second (amendments 1 and 5); E10 is the
mean of the parts that exist."""
LARGER = ("E2", "E7")

BEHAVIOUR = ("E1", "E2", "E3", "E4")
PROBES = ("E5", "E6")
CAUSAL = ("E7", "E8", "E9")

Lines = Mapping[str, LineFigure]


def component_value(lines: Lines, component: str) -> float:
    """Value of one component; NaN where no line behind it gave one.

    >>> figure = LineFigure("ok", 0.5, 0.4, 0.6, 0.01, "", 0.0)
    >>> component_value({"E10a": figure, "E10c": figure}, "E10"), component_value({}, "E3")
    (0.5, nan)
    """
    values = [lines[line].value for line in COMPONENTS[component] if line in lines]
    found = [value for value in values if value is not None]
    if not found:
        return float("nan")
    return float(max(found) if component in LARGER else np.mean(found))


def sure_value(lines: Lines, component: str) -> float:
    """The part of a component that its lines' 95 % intervals leave no doubt of; NaN where no line gave a value.

    Of each line the end of the interval that is nearer to 0, and 0 where the interval holds 0, so that noise about a
    null has no rank. (Method.md amendment 8 asks for the like of E4; here it holds for all lines.)

    >>> unsure, sure = (LineFigure("ok", v, v - 0.1, v + 0.1, 0.01, "", 0.0) for v in (0.05, 0.5))
    >>> sure_value({"E3": unsure}, "E3"), round(sure_value({"E3": sure}, "E3"), 3)
    (0.0, 0.4)
    """
    figures = [lines[line] for line in COMPONENTS[component] if line in lines]
    found = [_sure(figure) for figure in figures if figure.value is not None]
    if not found:
        return float("nan")
    return float(max(found) if component in LARGER else np.mean(found))


def _sure(figure: LineFigure) -> float:
    if figure.low is None or figure.high is None:
        return 0.0
    return figure.low if figure.low > 0 else min(figure.high, 0.0)


def component_p(lines: Lines, component: str) -> float | None:
    """p-value of one component: the smallest of its lines', times their number; None where there is none."""
    found = [p for line in COMPONENTS[component] if line in lines and (p := lines[line].p) is not None]
    return min(1.0, min(found) * len(found)) if found else None


def component_values(records: Sequence[Record]) -> Float64[np.ndarray, "record component"]:
    """The components of every record, NaN where unknown."""
    return np.array([[component_value(record.lines, c) for c in COMPONENTS] for record in records]).reshape(
        len(records), len(COMPONENTS)
    )


def sure_values(records: Sequence[Record]) -> Float64[np.ndarray, "record component"]:
    """What is ranked and scored: `sure_value` of every record, NaN where unknown."""
    return np.array([[sure_value(record.lines, c) for c in COMPONENTS] for record in records]).reshape(
        len(records), len(COMPONENTS)
    )


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where a value stands among the zoo's: families count the same, ties take the middle.

    A rank needs no scale, so that a line measured in nats and one that is a probability weigh the same.
    """

    values: Float64[np.ndarray, "member component"]
    weights: Float64[np.ndarray, " member"]

    def __call__(self, values: Float64[np.ndarray, "record component"]) -> Float64[np.ndarray, "record component"]:
        """2 F - 1, with F the weighted share of members below (half of those equal); unknown values become 0.

        >>> ranks = Ranks(np.array([[0.0], [1.0], [2.0], [np.nan]]), np.ones(4))
        >>> ranks(np.array([[1.0], [9.0], [-1.0], [np.nan]]))[:, 0].tolist()
        [0.0, 1.0, -1.0, 0.0]
        """
        known = np.isfinite(self.values)
        weights = np.where(known, self.weights[:, None], 0.0)
        below = (weights * (self.values < values[:, None])).sum(axis=1)
        equal = (weights * (self.values == values[:, None])).sum(axis=1)
        total = weights.sum(axis=0)
        ranked = 2 * (below + equal / 2) / np.where(total > 0, total, 1.0) - 1
        return np.where(np.isfinite(values) & (total > 0), ranked, 0.0)


def family_weights(records: Sequence[Record]) -> Float64[np.ndarray, " record"]:
    """Members share the weight of their family; the families of a class share that of the class, half of all."""
    families = [record.family for record in records]
    of_class = {search: {r.family for r in records if r.search is search} for search in (True, False)}
    shares = [1.0 / families.count(record.family) / len(of_class[record.search]) for record in records]
    return np.array(shares) / 2
