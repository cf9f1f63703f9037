"""Are p-values what they claim to be? Uniform under a true null, or at least not too small (method.md section 11)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import binomtest, kstest

LEVELS = (0.01, 0.05, 0.10)


@dataclass(frozen=True)
class Calibration:
    """p-values of tests whose null is true, against their claim."""

    uniform_p: float
    """Kolmogorov-Smirnov test of uniformity; small values speak against the test under study."""
    levels: tuple[float, ...]
    rejected: tuple[float, ...]
    """Fraction of p-values at or below each level."""
    excess_p: tuple[float, ...]
    """Binomial chance of so many rejections or more, were the claim true; small where the test is anti-conservative."""


def p_value_calibration(p_values: Float64[np.ndarray, " draw"], levels: Sequence[float] = LEVELS) -> Calibration:
    """Compare p-values under the null with the uniform distribution and count rejections at each level.

    >>> found = p_value_calibration((np.arange(100) + 0.5) / 100)
    >>> found.rejected, found.uniform_p > 0.99
    ((0.01, 0.05, 0.1), True)
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    counts = [int((p_values <= level).sum()) for level in levels]
    excess = [
        binomtest(k, len(p_values), level, alternative="greater").pvalue
        for k, level in zip(counts, levels, strict=True)
    ]
    return Calibration(
        uniform_p=float(kstest(p_values, "uniform").pvalue),
        levels=tuple(levels),
        rejected=tuple(k / len(p_values) for k in counts),
        excess_p=tuple(float(p) for p in excess),
    )
