"""Intervals cover, p-values are uniform under the null: simulated, with tolerances from the binomial."""

import numpy as np
import pytest
from scipy.stats import kstest

from mesaprobe.statistics.bootstrap import bootstrap_mean, bootstrap_ratio
from mesaprobe.statistics.sign_flip import sign_flip_p


def test_bootstrap_intervals_cover_the_truth_at_their_level() -> None:
    rng = np.random.default_rng(0)
    trials, covered = 400, 0
    for _ in range(trials):
        counts = rng.integers(1, 4, size=150)
        totals = rng.binomial(counts, 0.3)  # clusters: an instance holds 1 to 3 states
        estimate = bootstrap_ratio(totals, counts, rng, resamples=300)
        covered += estimate.low <= 0.3 <= estimate.high
    # 95 % of 400 is 380; 4 standard errors of the binomial are 17.4, and percentile intervals are a little short.
    assert 358 <= covered <= 398


def test_instances_are_resampled_whole() -> None:
    """Repeating each instance's state ten times adds no information, so the interval must not shrink."""
    rng = np.random.default_rng(1)
    right = (rng.random(200) < 0.4).astype(float)
    once = bootstrap_mean(right, np.random.default_rng(2))
    tenfold = bootstrap_ratio(10 * right, np.full(200, 10.0), np.random.default_rng(2))
    assert tenfold == once


def test_empty_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean(np.array([]), np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one"):
        sign_flip_p(np.array([]), np.random.default_rng(0))


def test_sign_flip_p_values_are_uniform_under_symmetry() -> None:
    rng = np.random.default_rng(3)
    found = [sign_flip_p(rng.standard_t(3, size=60), rng, flips=199) for _ in range(400)]
    assert kstest(found, "uniform").pvalue > 0.001
    assert np.mean(np.array(found) <= 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)


def test_sign_flip_sees_a_shift_and_looks_one_way_only() -> None:
    rng = np.random.default_rng(4)
    shifted = rng.normal(0.5, 1.0, size=100)
    assert sign_flip_p(shifted, rng) <= 0.002
    assert sign_flip_p(-shifted, rng) >= 0.99
