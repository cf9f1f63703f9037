"""Slopes of log odds, with instances as clusters."""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import expit

from mesaprobe.statistics import Estimate, instance_sums

_PENALTY = 1e-3
"""Ridge on standardised slopes, so that separated answers still have a slope."""


def logit_slopes(
    columns: Float64[np.ndarray, "state k"],
    right: Bool[np.ndarray, " state"],
    groups: Int64[np.ndarray, " state"],
) -> list[Estimate] | None:
    """Slopes of logit P(right) on all columns together, per unit of each, with intervals from the sandwich estimator
    clustered by instance (in place of a random effect). None if all answers are alike or a column does not vary.

    >>> x = np.random.default_rng(0).normal(size=(4000, 1))
    >>> right = np.random.default_rng(1).random(4000) < expit(2 * x[:, 0])
    >>> logit_slopes(x, right, np.arange(4000))[0].low < 2 < logit_slopes(x, right, np.arange(4000))[0].high
    True
    """
    spread = columns.std(axis=0)
    if right.all() or not right.any() or (spread < 1e-12).any():
        return None
    x = np.concatenate([np.ones((len(columns), 1)), (columns - columns.mean(axis=0)) / spread], axis=1)
    penalty = np.diag([0.0] + [_PENALTY * len(x)] * columns.shape[1]) * 0.1
    beta = np.zeros(x.shape[1])
    for _ in range(60):
        chance = expit(x @ beta)
        bread = (x * (chance * (1 - chance))[:, None]).T @ x + penalty + 1e-9 * np.eye(len(beta))
        step = np.linalg.solve(bread, x.T @ (right - chance) - penalty @ beta)
        beta += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-8:
            break
    meat = instance_sums((x * (right - expit(x @ beta))[:, None]).T, groups)
    inverse = np.linalg.inv(bread)
    errors = np.sqrt(np.diag(inverse @ (meat @ meat.T) @ inverse))[1:] / spread
    slopes = beta[1:] / spread
    return [Estimate(float(b), float(b - 1.96 * e), float(b + 1.96 * e)) for b, e in zip(slopes, errors, strict=True)]
