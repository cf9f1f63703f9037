"""The rule. Without a zoo of known mechanism there is no error rate, and so no verdict but INCONCLUSIVE."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Verdict:
    """What may be said of a subject, always "with respect to zoo vX"; the fields are report.json's."""

    label: Literal["SEARCH", "HEURISTIC", "INCONCLUSIVE"]
    reason: str | None
    leaning: Literal["search", "heuristic"] | None = None
    objective: Mapping[str, Any] = field(default_factory=lambda: {"status": None, "why": "not measured yet"})
    kind: str | None = None
    log10_lr: float | None = None
    log10_lr_cap: float | None = None
    conformal_p_under_heuristic: float | None = None
    conformal_p_under_search: float | None = None
    error_rates: Mapping[str, float | None] = field(
        default_factory=lambda: {"false_search": None, "false_heuristic": None, "inconclusive": None}
    )
    zoo: Mapping[str, Any] = field(default_factory=lambda: {"hash": None, "members": 0, "families": 0})


def decide() -> Verdict:
    """The verdict that the evidence allows: INCONCLUSIVE, reason NO_ZOO, until a zoo is calibrated.

    >>> decide().label
    'INCONCLUSIVE'
    """
    return Verdict("INCONCLUSIVE", "NO_ZOO")
