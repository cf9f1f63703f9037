"""The score S: a ridge logistic regression on the evidence vector that may only add evidence up (method.md 7.1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize

from mesaprobe.verdict.vector import COMPONENTS, Ranks, family_weights, sure_values
from mesaprobe.zoo.records import Record

PENALTY = 0.05
"""Ridge penalty on the weights, against a mean log loss; fixed before any network was scored."""


Measure: TypeAlias = Callable[[Sequence[Record]], np.ndarray]
"""Records to [record, component]."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """S(x) = intercept + weights . ranks(x), weights never negative; above 0 looks like search."""

    ranks: Ranks
    weights: Float64[np.ndarray, " component"]
    intercept: float
    used: Bool[np.ndarray, " component"]
    measure: Measure = sure_values

    def __call__(self, records: Sequence[Record]) -> Float64[np.ndarray, " record"]:
        """Scores of records."""
        return self.vectors_of(records) @ self.weights + self.intercept

    def of_values(self, values: Float64[np.ndarray, "record component"]) -> Float64[np.ndarray, " record"]:
        """Scores of evidence vectors, NaN where a component is not known."""
        return self.vectors(values) @ self.weights + self.intercept

    def vectors_of(self, records: Sequence[Record]) -> Float64[np.ndarray, "record component"]:
        """What is scored of records."""
        return self.vectors(self.measure(records))

    def vectors(self, values: Float64[np.ndarray, "record component"]) -> Float64[np.ndarray, "record component"]:
        """The ranks that are scored, 0 in components that are left out."""
        return np.where(self.used, self.ranks(values), 0.0)


def fit_scorer(
    records: Sequence[Record], *, components: Sequence[str] = tuple(COMPONENTS), measure: Measure = sure_values
) -> Scorer:
    """Fit on records of both classes, families weighing the same; `components` leaves the others out.

    Raises ValueError if a class is missing.
    """
    search = np.array([record.search for record in records], dtype=bool)
    if search.all() or not search.any():
        raise ValueError("a score needs records of both classes")
    values, weights = measure(records), family_weights(records)
    ranks = Ranks(values, weights)
    used = np.array([name in components for name in COMPONENTS])
    vectors = np.where(used, ranks(values), 0.0)
    coefficients, intercept = _ridge_logistic(vectors, search, weights)
    return Scorer(ranks, coefficients, intercept, used, measure)


def _ridge_logistic(
    vectors: Float64[np.ndarray, "record component"],
    search: Bool[np.ndarray, " record"],
    weights: Float64[np.ndarray, " record"],
) -> tuple[Float64[np.ndarray, " component"], float]:
    """Weighted mean log loss plus the ridge, over weights >= 0 (L-BFGS-B; convex)."""
    sign = np.where(search, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margins = sign * (vectors @ parameters[:-1] + parameters[-1])
        slopes = -sign * weights * 0.5 * (1 - np.tanh(margins / 2))
        gradient = np.append(vectors.T @ slopes + PENALTY * parameters[:-1], slopes.sum())
        value = float(weights @ np.logaddexp(0, -margins) + PENALTY / 2 * parameters[:-1] @ parameters[:-1])
        return value, gradient

    size = vectors.shape[1]
    bounds = [(0.0, None)] * size + [(None, None)]
    found = minimize(loss, np.zeros(size + 1), jac=True, method="L-BFGS-B", bounds=bounds, options={"gtol": 1e-9})
    return found.x[:-1], float(found.x[-1])


def held_out_scores(
    records: Sequence[Record],
    *,
    components: Sequence[str] = tuple(COMPONENTS),
    measure: Measure = sure_values,
    unknown: bool = True,
) -> Float64[np.ndarray, " record"]:
    """Every record's score by a fit to the other families (leave one family out), as it is measured where its own
    algorithm is not known either (leave one rule out); `unknown=False` gives the easier scores.

    NaN where leaving the family out leaves a class empty.
    """
    seen = [record.as_unknown if unknown else record for record in records]
    scores = np.full(len(records), np.nan)
    for family in sorted({record.family for record in records}):
        held = [i for i, record in enumerate(records) if record.family == family]
        rest = [record for record in records if record.family != family]
        if len({record.search for record in rest}) == 2:
            scores[held] = fit_scorer(rest, components=components, measure=measure)([seen[i] for i in held])
    return scores
