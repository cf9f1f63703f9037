"""How a noisy user of costs would choose, and which of several is the likeliest (method.md section 5, E1).

p(a | s) = (1 - eps) softmax(-beta c(s, a)) + eps / |U|        over the unvisited cities U

beta and eps are fitted on other states than those that are scored, so a likelihood needs no penalty for them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import digamma, gammaln, log_softmax, logsumexp

SHARPNESS = np.geomspace(0.03, 100.0, 13)
"""First grid of beta, in units of one over the mean cost above the best."""
LAPSES = np.array([0.002, 0.01, 0.03, 0.08, 0.2, 0.4, 0.7, 1.0])
"""First grid of eps; 1 is uniform guessing."""
LEAST_LAPSE = 1e-3
_FINER = (np.array([0.6, 0.78, 1.0, 1.28, 1.66]), np.array([0.86, 0.93, 1.0, 1.08, 1.17]))
"""Factors on both, around the best so far, one round after the other."""


@dataclass(frozen=True)
class NoiseModel:
    """Fitted beta (per unit of cost) and eps."""

    sharpness: float
    lapse: float

    def log_p(
        self, costs: Float64[np.ndarray, "state n"], free: Bool[np.ndarray, "state n"]
    ) -> Float64[np.ndarray, "state n"]:
        """log p(a | s); -inf for visited cities."""
        return _log_p(costs, free, self.sharpness, self.lapse)


def fit_noise(
    costs: Float64[np.ndarray, "state n"], free: Bool[np.ndarray, "state n"], chances: Float64[np.ndarray, "state n"]
) -> tuple[NoiseModel, float]:
    """The model with the highest mean of sum_a chances(a) log p(a) on a grid, and that mean.

    >>> costs, free = np.array([[0.0, 1.0], [1.0, 0.0]]), np.ones((2, 2), dtype=bool)
    >>> model, score = fit_noise(costs, free, np.array([[0.9, 0.1], [0.1, 0.9]]))
    >>> np.round(np.exp(model.log_p(costs, free)[0]), 1).tolist(), round(score, 2)
    ([0.9, 0.1], -0.33)
    """
    best = np.where(free, costs, np.inf).min(axis=1, keepdims=True)
    above = np.where(free, costs - best, 0.0)
    unit = float(above.sum()) / max(int(free.sum()) - len(free), 1)
    counts = free.sum(axis=1, keepdims=True)
    best_score, sharpness, lapse = -np.inf, 0.0, 1.0
    grids = [(SHARPNESS / (unit if unit > 0 else 1.0), LAPSES)]
    for round_ in range(1 + len(_FINER)):
        for trial in grids[round_][0]:
            chosen = np.exp(log_softmax(np.where(free, -trial * above, -np.inf), axis=1))
            for eps in grids[round_][1]:
                mixed = np.log(np.where(free, (1.0 - eps) * chosen + eps / counts, 1.0))
                score = float((chances * mixed).sum()) / len(free)
                if score > best_score:
                    best_score, sharpness, lapse = score, float(trial), float(eps)
        if round_ < len(_FINER):
            factors = _FINER[round_]
            grids.append((sharpness * factors, np.unique(np.clip(lapse * factors, LEAST_LAPSE, 1.0))))
    return NoiseModel(sharpness, lapse), best_score


def expected_log_likelihood(
    model: NoiseModel,
    costs: Float64[np.ndarray, "state n"],
    free: Bool[np.ndarray, "state n"],
    chances: Float64[np.ndarray, "state n"],
) -> Float64[np.ndarray, " state"]:
    """sum_a chances(a) log p(a | s) at every state."""
    return (chances * np.where(free, model.log_p(costs, free), 0.0)).sum(axis=1)


def _log_p(costs: np.ndarray, free: np.ndarray, sharpness: float, lapse: float) -> np.ndarray:
    best = np.where(free, costs, np.inf).min(axis=1, keepdims=True)
    chosen = np.exp(log_softmax(np.where(free, -sharpness * np.where(free, costs - best, 0.0), -np.inf), axis=1))
    mixed = (1.0 - lapse) * chosen + lapse / free.sum(axis=1, keepdims=True)
    return np.where(free, np.log(np.where(free, mixed, 1.0)), -np.inf)


def exceedance_probabilities(
    log_evidence: Float64[np.ndarray, "unit model"], rng: np.random.Generator, *, draws: int = 20_000
) -> Float64[np.ndarray, " model"]:
    """Random-effects model selection: the probability that each model is the most frequent one among the units.

    Every unit follows one model, drawn from unknown frequencies with a flat Dirichlet prior; variational Bayes after
    Stephan et al. (2009). Protected as in Rigoux et al. (2014): mixed with equal chances in the proportion of the
    posterior probability that all models are equally frequent.

    >>> evidence = np.tile([0.0, -3.0, -3.0], (30, 1))
    >>> exceedance_probabilities(evidence, np.random.default_rng(0)).round(2).tolist()
    [1.0, 0.0, 0.0]
    """
    units, models = log_evidence.shape
    prior, counts = np.ones(models), np.ones(models) + units / models
    for _ in range(500):
        expected = digamma(counts) - digamma(counts.sum())
        share = np.exp(log_softmax(log_evidence + expected, axis=1))
        updated = prior + share.sum(axis=0)
        done, counts = np.abs(updated - counts).max() < 1e-6, updated
        if done:
            break
    frequencies = rng.dirichlet(counts, size=draws)
    winners = np.bincount(frequencies.argmax(axis=1), minlength=models) / draws
    alike = _chance_of_equal_frequencies(log_evidence, share, counts)
    return (1.0 - alike) * winners + alike / models


def _chance_of_equal_frequencies(log_evidence: np.ndarray, share: np.ndarray, counts: np.ndarray) -> float:
    """Bayesian omnibus risk (Rigoux et al. 2014, equations 20 to 22): evidence of equal frequencies against free
    ones, both from their variational bounds."""
    models = log_evidence.shape[1]
    expected = digamma(counts) - digamma(counts.sum())
    entropy = -(share * np.log(np.maximum(share, 1e-300))).sum()
    free = (share * (log_evidence + expected)).sum() + entropy
    free += gammaln(models) + ((1.0 - counts) * expected).sum() - gammaln(counts.sum()) + gammaln(counts).sum()
    equal = logsumexp(log_evidence - np.log(models), axis=1).sum()
    return float(1.0 / (1.0 + np.exp(np.clip(free - equal, -700, 700))))
