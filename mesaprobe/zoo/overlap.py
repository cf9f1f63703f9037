"""Do the classes differ in mechanism alone? What accuracy and architecture by themselves tell of the class.

A detector could learn to tell good from bad, or wide from narrow, and be called a detector of search. Both are
printed beside every result; an area under the curve far from 0.5 means that the zoo must be rebalanced.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TOLERANCE = 0.2
"""Largest distance of an area under the curve from 0.5 that passes."""


@dataclass(frozen=True)
class Overlap:
    """How well something that is no mechanism tells search from heuristic."""

    name: str
    auroc: float | None
    distance: float | None
    """From 0.5."""
    passed: bool | None
    members: int
    why: str


@dataclass(frozen=True)
class Described:
    """What is compared of one certified member."""

    family: str
    search: bool
    optimal_fraction: float
    architecture: tuple[float, ...]
    """Layers, and logarithms of width, hidden units, heads and parameters; then normalisation and activation."""


def accuracy_alone(members: Sequence[Described]) -> Overlap:
    """Share of optimal tours as the score; every family counts the same."""
    return _overlap("accuracy alone", members, np.array([m.optimal_fraction for m in members]))


def architecture_alone(members: Sequence[Described]) -> Overlap:
    """A logistic score on the architecture, each family scored by a fit to the others."""
    shapes, search = np.array([m.architecture for m in members]), np.array([m.search for m in members])
    families = np.array([m.family for m in members])
    scores = held_out_logistic(shapes, search, families)
    known = np.isfinite(scores).all()
    return _overlap("architecture alone", members if known else [], scores if known else scores[:0])


def held_out_logistic(
    shapes: Float64[np.ndarray, "member feature"], search: Bool[np.ndarray, " member"], families: np.ndarray
) -> Float64[np.ndarray, " member"]:
    """A logistic score on features, each family scored by a fit to the others; NaN where these are of one class."""
    scores = np.full(len(shapes), np.nan)
    for family in np.unique(families):
        held = families == family
        if len(np.unique(search[~held])) == 2:
            model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
            model.fit(shapes[~held], search[~held], logisticregression__sample_weight=_weights(families[~held]))
            scores[held] = model.decision_function(shapes[held])
    return scores


def _weights(families: np.ndarray) -> Float64[np.ndarray, " member"]:
    """Members share the weight of their family."""
    _, index, counts = np.unique(families, return_inverse=True, return_counts=True)
    return 1.0 / counts[index]


def _overlap(name: str, members: Sequence[Described], scores: Float64[np.ndarray, " member"]) -> Overlap:
    search: Bool[np.ndarray, " member"] = np.array([m.search for m in members], dtype=bool)
    if len(np.unique(search)) < 2:
        return Overlap(name, None, None, None, len(members), "needs certified members of both classes")
    auroc = float(roc_auc_score(search, scores, sample_weight=_weights(np.array([m.family for m in members]))))
    distance = abs(auroc - 0.5)
    passed = distance <= TOLERANCE
    mend = "" if passed else f"; more than {TOLERANCE}: the zoo needs {_MENDS[name]}"
    return Overlap(name, auroc, distance, passed, len(members), f"AUROC {auroc:.3f}, {distance:.3f} from 0.5{mend}")


_MENDS = {
    "accuracy alone": "heuristics that are good at the task and searchers that are bad at it",
    "architecture alone": "trained searchers in the shape of the imitators, and negatives in the compiled shells",
}
