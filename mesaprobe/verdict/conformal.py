"""Class-conditional conformal p-values with one member a family (method.md section 7.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mesaprobe.zoo.records import Record

DRAW = 20261128
"""Seed of the draw of one member a family, fixed before any network was scored."""
REDRAWS = 100


@dataclass(frozen=True)
class ConformalP:
    """How unusual a score is among one member of every family of a class."""

    value: float
    """With the one draw that the rule uses."""
    lowest: float
    highest: float
    """Over redraws of the members; shown, never averaged into the rule."""


def conformal_p(score: float, records: Sequence[Record], scores: Float64[np.ndarray, " record"]) -> ConformalP:
    """p of `score` under the class that all `records` belong to, from their held-out `scores`.

    Under heuristic large scores count against, under search small ones: p = (1 + families at least as extreme) /
    (families + 1). Single subsampling after Dunn, Wasserman and Ramdas (2023); valid up to the difference between
    held-out scores and the score of a new network.
    """
    extreme = scores <= score if records[0].search else scores >= score
    families = sorted({record.family for record in records})
    members = [[i for i, record in enumerate(records) if record.family == family] for family in families]

    def draw(rng: np.random.Generator) -> float:
        chosen = [part[int(rng.integers(len(part)))] for part in members]
        return float(1 + extreme[chosen].sum()) / (len(families) + 1)

    rng = np.random.default_rng(DRAW)
    value = draw(rng)
    others = [draw(rng) for _ in range(REDRAWS)]
    return ConformalP(value, min(value, *others), max(value, *others))
