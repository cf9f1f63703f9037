"""The calibrated zoo: what the rule compares a network with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from mesaprobe.verdict.conformal import ConformalP, conformal_p
from mesaprobe.verdict.likelihood import LikelihoodRatio, calibrate_likelihood
from mesaprobe.verdict.score import Scorer, fit_scorer, held_out_scores
from mesaprobe.verdict.vector import COMPONENTS, family_weights
from mesaprobe.zoo.records import Record

NEIGHBOURS = 3
"""Members whose mean distance says how far a network lies from the zoo's evidence (gate G3)."""
DISTANCE_QUANTILE = 0.95
MIN_PER_CLASS = 2
"""Families a class without which there is nothing to hold out."""


def fits(record: Record) -> bool:
    """Whether a record takes part in the fit: plain members (no decoys, no camouflage).

    Sealed families take part since they were opened; the error table also judges them without each other.
    """
    return record.role in ("search", "heuristic") and record.disguise is None


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fit to the families of the zoo, and every member's score by a fit to the other families, of what is measured
    where its own algorithm is not known."""

    records: tuple[Record, ...]
    components: tuple[str, ...]
    scorer: Scorer
    held_out: Float64[np.ndarray, " record"]
    likelihood: LikelihoodRatio
    reach: float
    """Gate G3: the largest distance to the zoo that still counts as inside."""

    @classmethod
    def fit(cls, records: Sequence[Record], *, components: Sequence[str] = tuple(COMPONENTS)) -> "Calibration":
        """Calibrate on the records that `fits` lets in. Raises ValueError with fewer than two families a class."""
        chosen = tuple(record for record in records if fits(record))
        if min(count_families(chosen)) < MIN_PER_CLASS:
            raise ValueError(f"a calibration needs {MIN_PER_CLASS} families a class, got {count_families(chosen)}")
        scorer = fit_scorer(chosen, components=components)
        held_out = held_out_scores(chosen, components=components)
        seen = [record.as_unknown for record in chosen]
        search = _search(chosen)
        likelihood = calibrate_likelihood(held_out, search, family_weights(chosen), count_families(chosen))
        distances = [_distance(scorer, chosen, record, record.family) for record in seen]
        return cls(
            chosen, tuple(components), scorer, held_out, likelihood, float(np.quantile(distances, DISTANCE_QUANTILE))
        )

    def without(self, family: str) -> "Calibration":
        """The calibration that a member of `family` is judged by: as if the family had never been there."""
        rest = [record for record in self.records if record.family != family]
        return Calibration.fit(rest, components=self.components)

    @property
    def search(self) -> Bool[np.ndarray, " record"]:
        """Which records are searchers."""
        return _search(self.records)

    @property
    def families(self) -> tuple[int, int]:
        """Number of families of search and of heuristic."""
        return count_families(self.records)

    def score(self, record: Record) -> float:
        """S of a network."""
        return float(self.scorer([record])[0])

    def p_under(self, score: float, *, search: bool) -> ConformalP:
        """Conformal p-value of a score under one class."""
        inside = self.search == search
        records = [record for record, kept in zip(self.records, inside, strict=True) if kept]
        return conformal_p(score, records, self.held_out[inside])

    def distance(self, record: Record) -> float:
        """Mean distance of the evidence vector to the nearest members, in ranks."""
        return _distance(self.scorer, self.records, record, None)

    def nearest_searcher(self, record: Record) -> Record:
        """The searcher whose evidence is most like this network's."""
        own = self.scorer.vectors_of([record])
        others = [other for other in self.records if other.search]
        gaps = np.linalg.norm(self.scorer.vectors_of(others) - own, axis=1)
        return others[int(gaps.argmin())]


def count_families(records: Sequence[Record]) -> tuple[int, int]:
    """Number of families of search and of heuristic."""
    return (
        len({record.family for record in records if record.search}),
        len({record.family for record in records if not record.search}),
    )


def _search(records: Sequence[Record]) -> Bool[np.ndarray, " record"]:
    return np.array([record.search for record in records], dtype=bool)


def _distance(scorer: Scorer, records: Sequence[Record], record: Record, family: str | None) -> float:
    """Mean distance to the nearest members outside `family`, over the components that both know."""
    own = scorer.measure([record])
    others = [other for other in records if other.family != family]
    values = scorer.measure(others)
    both = np.isfinite(own) & np.isfinite(values) & scorer.used
    differences = np.where(both, scorer.vectors(values) - scorer.vectors(own), 0.0)
    shared = both.sum(axis=1)
    gaps = np.sqrt((differences**2).sum(axis=1) / np.maximum(shared, 1))
    gaps[shared == 0] = np.inf
    return float(np.sort(gaps)[:NEIGHBOURS].mean())
