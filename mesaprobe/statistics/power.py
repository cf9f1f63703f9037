"""Minimum detectable effects: what a line would have seen, so that "no evidence" can be read.

A test rejects where the estimate exceeds a critical value, and an estimate falls around the true effect with its
standard error. So an effect is found with the asked power when

    effect = critical value + z_power * standard error .

Closed form where that holds (means, ratios, information with many instances); by planting where it might not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import norm
from sklearn.isotonic import isotonic_regression

from mesaprobe.statistics.sign_flip import sign_flip_p


def minimum_detectable_effect(
    error: float, *, alpha: float = 0.05, power: float = 0.8, critical: float | None = None
) -> float:
    """Least true effect that a one-sided test finds with `power`, in the units of the standard error `error`.

    `critical` is what estimate / error must exceed: the normal quantile of 1 - alpha by default, `MaxT.critical(alpha)`
    for a cell of a max-T table (whose t is such a ratio), or a quantile of null estimates divided by `error`.
    A large effect widens the estimate and the t's denominator: with 200 instances an effect that is named detectable
    in a max-T table is found in about 72 % rather than 80 %, from 1,000 on the difference is small.

    >>> round(minimum_detectable_effect(0.01), 4)  # (1.645 + 0.842) standard errors
    0.0249
    """
    if not error >= 0:
        raise ValueError(f"a standard error must be a number of at least 0, got {error}")
    threshold = norm.ppf(1 - alpha) if critical is None else critical
    return float((threshold + norm.ppf(power)) * error)


def detectable_from_null(
    null: Float64[np.ndarray, " draw"], error: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The same from draws of the estimate under the null (permutations, random twins), in the estimate's units.

    >>> null = np.random.default_rng(0).normal(0.0, 0.01, size=9999)
    >>> round(detectable_from_null(null, 0.01), 3)
    0.025
    """
    return float(np.quantile(null, 1 - alpha)) + float(norm.ppf(power)) * error


@dataclass(frozen=True, eq=False)
class PowerCurve:
    """How often planted effects were found."""

    effects: Float64[np.ndarray, " effect"]
    detected: Float64[np.ndarray, " effect"]
    """Fraction of draws with p <= alpha."""
    detectable: float | None
    """Effect found with the asked power, interpolated on the rising curve; None if no planted effect reached it."""


def detectable_by_planting(
    p_value: Callable[[float, np.random.Generator], float],
    effects: Sequence[float],
    rng: np.random.Generator,
    *,
    draws: int = 200,
    alpha: float = 0.05,
    power: float = 0.8,
) -> PowerCurve:
    """Run a whole test on data with planted effects; `p_value(effect, rng)` draws, plants and tests once.

    Nothing is assumed of the test. The standard error of a detected fraction is at most 0.5 / sqrt(draws).
    """
    grid = np.sort(np.asarray(effects, dtype=np.float64))
    if len(grid) < 2:
        raise ValueError("a power curve needs at least 2 effects")
    detected = np.array([np.mean([p_value(float(effect), rng) <= alpha for _ in range(draws)]) for effect in grid])
    rising = np.asarray(isotonic_regression(detected))
    if rising[-1] < power:
        return PowerCurve(grid, detected, None)
    first = int(np.argmax(rising >= power))
    if first == 0:
        return PowerCurve(grid, detected, float(grid[0]))
    share = (power - rising[first - 1]) / (rising[first] - rising[first - 1])
    return PowerCurve(grid, detected, float(grid[first - 1] + share * (grid[first] - grid[first - 1])))


def planted_mean(
    differences: Float64[np.ndarray, " instance"], *, flips: int = 199
) -> Callable[[float, np.random.Generator], float]:
    """A sign-flip test of instances resampled from centred differences plus an effect, for `detectable_by_planting`.

    >>> rng = np.random.default_rng(0)
    >>> curve = detectable_by_planting(planted_mean(rng.normal(size=100)), [0.0, 0.2, 0.4], rng, draws=40)
    >>> 0.2 < curve.detectable < 0.3  # closed form: 2.49 / sqrt(100)
    True
    """
    centred = np.asarray(differences, dtype=np.float64) - np.mean(differences)

    def p_value(effect: float, rng: np.random.Generator) -> float:
        return sign_flip_p(rng.choice(centred, size=len(centred)) + effect, rng, flips=flips)

    return p_value
