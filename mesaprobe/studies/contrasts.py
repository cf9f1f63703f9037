"""Paired contrasts of arms with the plain one, and the words that may be said of them (method.md section 8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from scipy.stats import t

from mesaprobe.statistics.multiplicity import holm

Word = Literal["prevents", "reduced", "not shown"]
ALPHA = 0.05
POSITIVES = 0.5
"""Share of plain networks that must be classed SEARCH, else there is no inner search to prevent."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95 % Student interval; None where fewer than two are known."""

    value: float | None
    low: float | None
    high: float | None
    upper: float | None
    """One-sided upper 95 % bound."""


@dataclass(frozen=True)
class Contrast:
    """One arm against the plain one."""

    arm: str
    difference: Mean
    """Mean paired difference of the score, arm minus plain."""
    p: float | None
    """Exact one-sided sign-flip test that the arm's score is lower."""
    p_holm: float | None
    below_negatives: bool | None
    """The arm's upper 95 % bound lies below the zoo's 90th percentile of negatives."""
    powered: bool | None
    """Gate G7 in this architecture, for every seed."""
    word: Word
    why: str


def mean_over_seeds(values: Sequence[float | None]) -> Mean:
    """Mean with a Student interval over networks.

    >>> mean_over_seeds([1.0, 2.0, 3.0]).value
    2.0
    """
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) == 0:
        return Mean(None, None, None, None)
    centre = float(known.mean())
    if len(known) == 1:
        return Mean(centre, None, None, None)
    error = known.std(ddof=1) / np.sqrt(len(known))
    two, one = (float(t.ppf(level, len(known) - 1) * error) for level in (0.975, 0.95))
    return Mean(centre, centre - two, centre + two, centre + one)


def exact_sign_flip(differences: Sequence[float]) -> float:
    """p-value of mean < 0 against symmetry around 0, over all 2^n flips; never below 2^-n.

    >>> exact_sign_flip([-1.0, -2.0, -0.5, -0.1])
    0.0625
    """
    values = np.asarray(differences, dtype=np.float64)
    signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
    return float(((signs @ values) <= values.sum() + 1e-12).mean())


def contrasts(
    plain: Sequence[float | None],
    arms: dict[str, Sequence[float | None]],
    negatives: float | None,
    powered: dict[str, bool | None],
) -> list[Contrast]:
    """All arms against the plain one, seeds paired, Holm over the arms.

    `prevents` asks for a lower score than the plain arm's (Holm-adjusted p <= .05), an upper 95 % bound of the arm's
    mean score below `negatives`, and power (gate G7). The first alone is `reduced`; all else is `not shown`.
    """
    pairs = {
        arm: [b - a for a, b in zip(plain, values, strict=True) if a is not None and b is not None]
        for arm, values in arms.items()
    }
    tested = {arm: exact_sign_flip(found) for arm, found in pairs.items() if found}
    adjusted = dict(zip(tested, holm(np.array(list(tested.values()))).tolist(), strict=True)) if tested else {}
    return [
        _contrast(arm, pairs[arm], tested.get(arm), adjusted.get(arm), arms[arm], negatives, powered.get(arm))
        for arm in arms
    ]


def _contrast(
    arm: str,
    differences: Sequence[float],
    p: float | None,
    p_holm: float | None,
    scores: Sequence[float | None],
    negatives: float | None,
    powered: bool | None,
) -> Contrast:
    upper = mean_over_seeds(scores).upper
    below = None if upper is None or negatives is None else upper < negatives
    lower = p_holm is not None and p_holm <= ALPHA
    if not lower:
        least = 0.5 ** len(differences) if differences else 1.0
        why = "the score is not shown to be lower than the plain arm's"
        if least > ALPHA:
            why += f"; with {len(differences)} pairs no exact test can go below p = {least:.3g}"
        return Contrast(arm, mean_over_seeds(differences), p, p_holm, below, powered, "not shown", why)
    if below and powered:
        why = "lower than the plain arm, below the zoo's heuristics, and a searcher would have been detected"
        return Contrast(arm, mean_over_seeds(differences), p, p_holm, below, powered, "prevents", why)
    lacking = [text for text, met in (("not below the zoo's heuristics", below), ("no power (G7)", powered)) if not met]
    why = "lower than the plain arm, but " + " and ".join(lacking)
    return Contrast(arm, mean_over_seeds(differences), p, p_holm, below, powered, "reduced", why)
