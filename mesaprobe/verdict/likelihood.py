"""From scores to a likelihood ratio that knows its limits: Platt calibration, Cllr, and a cap (method.md 7.2)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression


@dataclass(frozen=True)
class LikelihoodRatio:
    """log10 LR of search against heuristic as a linear function of the score, capped."""

    slope: float
    offset: float
    low: float
    high: float
    """log10 of the empirical lower and upper bound (ELUB)."""

    def __call__(self, scores: Float64[np.ndarray, "*record"]) -> Float64[np.ndarray, "*record"]:
        """log10 likelihood ratios, clipped to the bounds."""
        return np.clip(self.uncapped(scores), self.low, self.high)

    def uncapped(self, scores: Float64[np.ndarray, "*record"]) -> Float64[np.ndarray, "*record"]:
        """log10 likelihood ratios as the calibration extrapolates them."""
        return (self.slope * np.asarray(scores) + self.offset) / np.log(10)


def calibrate_likelihood(
    scores: Float64[np.ndarray, " record"],
    search: Bool[np.ndarray, " record"],
    weights: Float64[np.ndarray, " record"],
    families: tuple[int, int],
) -> LikelihoodRatio:
    """Platt's logistic on held-out scores with equal priors; `families` counts those of search and of heuristic.

    `weights` sum to 1/2 in each class, so that posterior odds are likelihood ratios (Platt 1999; Vergeer et al. 2016
    for the bounds).
    """
    target = np.where(search, (families[0] + 1) / (families[0] + 2), 1 / (families[1] + 2))

    def loss(parameters: np.ndarray) -> float:
        logits = parameters[0] * scores + parameters[1]
        return float(weights @ (np.logaddexp(0, logits) - target * logits))

    found = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    slope, offset = map(float, found.x)
    log10_lr = (slope * scores + offset) / np.log(10)
    low, high = empirical_bounds(log10_lr, search, weights, families)
    return LikelihoodRatio(slope, offset, low, high)


def empirical_bounds(
    log10_lr: Float64[np.ndarray, " record"],
    search: Bool[np.ndarray, " record"],
    weights: Float64[np.ndarray, " record"],
    families: tuple[int, int],
) -> tuple[float, float]:
    """ELUB: the range of thresholds in which the ratios, with one misleading family added to each class, still lead
    to fewer errors than a ratio of 1 would (Vergeer et al. 2016). The unit is the family; (0, 0) says none.

    >>> lr = np.array([2.0] * 10 + [-2.0] * 10)
    >>> low, high = empirical_bounds(lr, lr > 0, np.full(20, 0.05), (10, 10))
    >>> round(low, 2), round(high, 2)
    (-0.95, 0.95)
    """
    grid = np.arange(0.0, 4.001, 0.005)
    share = 2 * weights

    def useful(threshold: float) -> bool:
        missed = share[search & (log10_lr < threshold)].sum() + 1 / families[0]
        false = share[~search & (log10_lr >= threshold)].sum() + 1 / families[1]
        odds = 10.0**threshold
        return bool(missed + odds * false <= min(1.0, odds))

    def last(sign: int) -> float:
        bad = [t for t in grid if not useful(sign * t)]
        return sign * float(bad[0] - 0.005 if bad else grid[-1])

    # At threshold 1 exactly half a family a class may already be too much: then nothing may be said.
    return (min(0.0, last(-1)), max(0.0, last(1)))


def log_likelihood_cost(
    log10_lr: Float64[np.ndarray, " record"],
    search: Bool[np.ndarray, " record"],
    weights: Float64[np.ndarray, " record"],
) -> tuple[float, float]:
    """Cllr and its minimum over monotone recalibrations, in bits: 0 is perfect, 1 says nothing (Bruemmer 2006).

    >>> cost, best = log_likelihood_cost(np.zeros(4), np.array([True, True, False, False]), np.full(4, 0.25))
    >>> cost, best
    (1.0, 1.0)
    """

    def cost(log_odds: np.ndarray) -> float:
        signed = np.where(search, -log_odds, log_odds)
        return float(weights @ np.logaddexp(0, signed) / np.log(2))

    monotone = IsotonicRegression(y_min=0, y_max=1).fit(log10_lr, search.astype(float), sample_weight=weights)
    posterior = monotone.predict(log10_lr)
    with np.errstate(divide="ignore"):
        best = np.log(posterior) - np.log1p(-posterior)
    return cost(log10_lr * np.log(10)), cost(best)
