"""The rule: from an evidence vector, the calibrated zoo and the gates to one word (method.md 7.5, amendment 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mesaprobe.verdict.calibration import Calibration
from mesaprobe.verdict.gates import ALPHA, Gate, gates, significant_components
from mesaprobe.verdict.vector import CAUSAL, COMPONENTS, PROBES
from mesaprobe.zoo.records import Record

MIN_FAMILIES = 10
"""Certified families a class without which neither SEARCH nor HEURISTIC may be said."""
LEANING = 0.25
"""Conformal p up to which a network is held to lean away from a class."""
KINDS = {3: "look-ahead", 4: "local search", 5: "dynamic programming or exhaustive"}

Label = Literal["SEARCH", "HEURISTIC", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Verdict:
    """What may be said of a subject, always "with respect to zoo vX"; the fields are report.json's."""

    label: Label
    reason: str | None
    leaning: Literal["search", "heuristic"] | None = None
    objective: Mapping[str, Any] = field(default_factory=lambda: {"status": None, "why": "not measured"})
    kind: str | None = None
    log10_lr: float | None = None
    log10_lr_cap: float | None = None
    conformal_p_under_heuristic: float | None = None
    conformal_p_under_search: float | None = None
    error_rates: Mapping[str, float | None] = field(
        default_factory=lambda: {"false_search": None, "false_heuristic": None, "inconclusive": None}
    )
    zoo: Mapping[str, Any] = field(default_factory=lambda: {"hash": None, "members": 0, "families": 0})


@dataclass(frozen=True)
class Judgement:
    """A verdict with the gates and the numbers that led to it."""

    label: Label
    reason: str | None
    leaning: Literal["search", "heuristic"] | None
    gates: tuple[Gate, ...]
    score: float | None = None
    p_heuristic: float | None = None
    p_search: float | None = None
    log10_lr: float | None = None
    kind: str | None = None


def judge(record: Record, zoo: Calibration | None, *, min_families: int = MIN_FAMILIES) -> Judgement:
    """Apply the rule to one network.

    SEARCH needs p under heuristic <= .10, p under search > .10 and gates G1 to G6; HEURISTIC the reverse with G1, G2,
    G3 and G7; all else is INCONCLUSIVE with the first reason that holds. `min_families` is lowered by one where a
    family is held out to measure error rates.
    """
    found = tuple(gates(record, zoo))
    passed = {gate.id: gate.passed is True for gate in found}
    if zoo is None:
        return Judgement("INCONCLUSIVE", "NO_ZOO", None, found)
    score = zoo.score(record)
    p_heuristic = zoo.p_under(score, search=False).value
    p_search = zoo.p_under(score, search=True).value
    leaning = _leaning(p_heuristic, p_search)
    label, reason = _word(record, passed, p_heuristic, p_search)
    if min(zoo.families) < min_families and (reason is None or reason == "LOW_POWER"):
        label, reason = "INCONCLUSIVE", "SMALL_ZOO"
    if reason in ("INCOMPLETE", "INCOMPETENT", "OUT_OF_ZOO"):
        leaning = None
    toward_search = label == "SEARCH" or leaning == "search"
    return Judgement(
        label,
        reason,
        leaning,
        found,
        score,
        p_heuristic,
        p_search,
        float(zoo.likelihood(np.array(score))),
        KINDS.get(zoo.nearest_searcher(record).degree) if toward_search else None,
    )


def _word(record: Record, passed: Mapping[str, bool], p_heuristic: float, p_search: float) -> tuple[Label, str | None]:
    """The word that the numbers allow if the zoo is large enough, and why not another."""
    if not all(_measured(record, component) for component in COMPONENTS):
        return "INCONCLUSIVE", "INCOMPLETE"
    if not passed["G1"]:
        return "INCONCLUSIVE", "INCOMPETENT"
    if not (passed["G2"] and passed["G3"]):
        return "INCONCLUSIVE", "OUT_OF_ZOO"
    if p_heuristic <= ALPHA and p_search <= ALPHA:
        return "INCONCLUSIVE", "NEITHER"
    if p_heuristic <= ALPHA and all(passed[gate] for gate in ("G4", "G5", "G6")):
        return "SEARCH", None
    if p_search <= ALPHA and passed["G7"]:
        return "HEURISTIC", None
    return "INCONCLUSIVE", _why_not(record, passed, p_heuristic, p_search)


def _why_not(record: Record, passed: Mapping[str, bool], p_heuristic: float, p_search: float) -> str:
    significant = significant_components(record)
    causal = passed["G4"] or bool(significant & set(CAUSAL))
    if not causal and p_search > ALPHA:
        if passed["G6"]:
            return "FUNCTION_ONLY"
        if significant & set(PROBES):
            return "DECODABLE_NOT_USED"
    if (p_heuristic <= ALPHA) != (p_search <= ALPHA) and causal != (p_heuristic <= ALPHA):
        return "LINES_CONFLICT"
    return "LOW_POWER"


def _measured(record: Record, component: str) -> bool:
    """Whether at least one of the component's lines was run (it may have found that it does not apply)."""
    return any(line in record.lines for line in COMPONENTS[component])


def _leaning(p_heuristic: float, p_search: float) -> Literal["search", "heuristic"] | None:
    if p_heuristic <= LEANING < p_search:
        return "search"
    if p_search <= LEANING < p_heuristic:
        return "heuristic"
    return None


def objective_axis(record: Record) -> dict[str, str | None]:
    """Whether the tour cost itself is represented, apart from whether it is searched (line E5)."""
    figure = record.lines.get("E5")
    if figure is None or figure.value is None:
        return {"status": None, "why": "line E5 gave no value"}
    shown = "E5" in significant_components(record) and figure.low is not None and figure.low > 0
    words = f"line E5 gives {figure.value:.3f} beyond its nulls, another objective among them"
    if shown:
        return {"status": "represented", "why": f"values of the tour cost can be read: {words}"}
    return {"status": "not shown", "why": f"no values of the tour cost beyond the nulls: {words}"}
