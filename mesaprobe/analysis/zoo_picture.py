"""The subject beside the zoo's networks: components, scores, thresholds and error counts, stored for the report."""

from typing import Any

import numpy as np

from mesaprobe.verdict.calibration import Calibration, fits
from mesaprobe.verdict.gates import ALPHA, significant_components
from mesaprobe.verdict.rule import MIN_FAMILIES
from mesaprobe.verdict.store import Shipped, read_table
from mesaprobe.verdict.vector import COMPONENTS, LARGER, Lines, component_p, component_value, component_values
from mesaprobe.zoo.records import Record

Arrays = dict[str, np.ndarray]

_WRONG = {
    "false_search": ("heuristic", lambda row: row["label"] == "SEARCH"),
    "false_heuristic": ("search", lambda row: row["label"] == "HEURISTIC"),
    "false_leaning_search": ("heuristic", lambda row: row["label"] == "SEARCH" or row["leaning"] == "search"),
    "false_leaning_heuristic": ("search", lambda row: row["label"] == "HEURISTIC" or row["leaning"] == "heuristic"),
}
"""Whom an error rate counts, and which row of the error table is an error."""


def zoo_picture(record: Record, zoo: Shipped) -> Arrays:
    """What the report draws of a subject's evidence vector among the members that the rule is fitted to.

    Decoys and disguised members are left out, as in the fit. A zoo that is too small to calibrate
    still gives its members' components; scores, thresholds and rates are then NaN or empty.
    """
    members = [each for each in zoo.records if fits(each)] if zoo.calibration is None else zoo.calibration.records
    ends = np.array([component_interval(record.lines, name) for name in COMPONENTS])
    standing_out = significant_components(record)
    return {
        "components": np.array(list(COMPONENTS)),
        "lines": np.array([", ".join(part) for part in COMPONENTS.values()]),
        "value": component_values([record])[0],
        "low": ends[:, 0],
        "high": ends[:, 1],
        "p": np.array([_nan(component_p(record.lines, name)) for name in COMPONENTS]),
        "stands_out": np.array([name in standing_out for name in COMPONENTS]),
        "names": np.array([each.name for each in members], dtype=np.str_),
        "families": np.array([each.family for each in members], dtype=np.str_),
        "is_search": np.array([each.search for each in members], dtype=np.bool_),
        "member_values": component_values(members),
        **_scores(record, zoo.calibration, len(members)),
        **_rates(read_table(zoo)),
        "alpha": np.array(ALPHA),
        "families_asked": np.array(MIN_FAMILIES),
    }


def component_interval(lines: Lines, component: str) -> tuple[float, float]:
    """95 % interval of a component's value: its line's; of the larger of two; or the mean of its parts' ends, which
    is never too narrow. NaN where a part has none.

    >>> from mesaprobe.zoo.records import LineFigure
    >>> values, units = (LineFigure("ok", v, v - 0.1, v + 0.1, 0.01, "", 0.0) for v in (0.25, 0.6))
    >>> component_interval({"E7": values, "E7c": units}, "E7")
    (0.5, 0.7)
    """
    found = [figure for line in COMPONENTS[component] if (figure := lines.get(line)) and figure.value is not None]
    if component in LARGER:
        found = [figure for figure in found if figure.value == component_value(lines, component)][:1]
    if not found:
        return float("nan"), float("nan")
    return tuple(float(np.mean([_nan(getattr(figure, end)) for figure in found])) for end in ("low", "high"))  # type: ignore[return-value]


def thresholds(zoo: Calibration) -> tuple[float, float]:
    """Above which score p under heuristic is small enough for SEARCH, and below which p under search is for HEURISTIC.

    NaN where no score is enough: with F families the smallest p is 1 / (F + 1).
    """
    ends = []
    for search, order in ((False, 1), (True, -1)):
        scores = np.unique(zoo.held_out[zoo.search == search])[::order]
        enough = [
            s for s in scores if zoo.p_under(float(np.nextafter(s, order * np.inf)), search=search).value <= ALPHA
        ]
        ends.append(float(enough[0]) if enough else float("nan"))
    return ends[0], ends[1]


def _scores(record: Record, zoo: Calibration | None, members: int) -> Arrays:
    if zoo is None:
        unknown = np.full(len(COMPONENTS), np.nan)
        return {
            "member_scores": np.full(members, np.nan),
            "score": np.array(np.nan),
            "weights": unknown,
            "vector": unknown,
            "search_above": np.array(np.nan),
            "heuristic_below": np.array(np.nan),
        }
    above, below = thresholds(zoo)
    return {
        "member_scores": zoo.held_out,
        "score": np.array(zoo.score(record)),
        "weights": zoo.scorer.weights,
        "vector": zoo.scorer.vectors_of([record])[0],
        "search_above": np.array(above),
        "heuristic_below": np.array(below),
    }


def _rates(table: dict[str, Any] | None) -> Arrays:
    """Errors of the rule on members judged without their own family, with upper 95 % bounds."""
    rows = []
    if table is not None:
        plain = [row for row in table["members"] if not row["disguise"]]
        for name, (role, is_wrong) in _WRONG.items():
            judged, bound = [row for row in plain if row["class"] == role], table["bounds"][name]
            rows.append((name, sum(map(is_wrong, judged)), len(judged), bound["models"], bound["families"]))
    names, wrong, models, models_bound, families_bound = zip(*rows, strict=True) if rows else ((),) * 5
    return {
        "rate_names": np.array(names, dtype=np.str_),
        "rate_wrong": np.array(wrong, dtype=np.int64),
        "rate_models": np.array(models, dtype=np.int64),
        "rate_models_bound": np.array(models_bound, dtype=np.float64),
        "rate_families_bound": np.array(families_bound, dtype=np.float64),
    }


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
