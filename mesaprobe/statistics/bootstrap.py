"""Bootstrap intervals with the instance as the unit of resampling (method.md section 4)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    value: float
    low: float
    high: float

    @property
    def ci(self) -> tuple[float, float]:
        """Lower and upper end of the interval."""
        return self.low, self.high


def bootstrap_mean(
    values: Float64[np.ndarray, " instance"],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Mean over instances with its percentile bootstrap interval.

    `values` holds one number per instance (average states within an instance first, or use
    `bootstrap_ratio`). Raises ValueError on an empty sample.

    >>> estimate = bootstrap_mean(np.array([1.0, 2.0, 3.0]), np.random.default_rng(0))
    >>> estimate.value, estimate.low <= 2.0 <= estimate.high
    (2.0, True)
    """
    return bootstrap_ratio(
        np.asarray(values, dtype=np.float64), np.ones(len(values)), rng, resamples=resamples, level=level
    )


def bootstrap_ratio(
    totals: Float64[np.ndarray, " instance"],
    counts: Float64[np.ndarray, " instance"],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """sum(totals) / sum(counts), e.g. right answers over states, resampling whole instances."""
    if len(totals) == 0 or np.sum(counts) <= 0:
        raise ValueError("a bootstrap needs at least one instance with a positive count")
    pairs = np.stack([totals, counts]).astype(np.float64)
    draws = np.empty(resamples)
    for start in range(0, resamples, 100):
        block = draws[start : start + 100]
        picked = rng.integers(0, len(totals), size=(len(block), len(totals)))
        sums = pairs[:, picked].sum(axis=-1)
        block[:] = sums[0] / np.maximum(sums[1], 1e-300)
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(float(pairs[0].sum() / pairs[1].sum()), float(low), float(high))
