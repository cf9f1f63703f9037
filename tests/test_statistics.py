"""Folds, intervals, sign flips and several tests at once: exact facts, then coverage and uniformity by simulation."""

import numpy as np
import pytest
from scipy.stats import kstest

from mesaprobe.statistics import (
    benjamini_hochberg,
    bootstrap_mean,
    bootstrap_of_sums,
    bootstrap_ratio,
    bootstrap_ratios,
    cluster_bootstrap,
    gaussian_information,
    holm,
    instance_folds,
    instance_sums,
    nested_splits,
    resampled_counts,
    sign_flip_p,
    splits,
    strata_codes,
)


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


def test_no_instance_stands_on_two_sides() -> None:
    rng = np.random.default_rng(5)
    groups = rng.permutation(np.repeat(np.arange(37), rng.integers(1, 6, size=37)))
    for outer in nested_splits(groups, 5, 3, rng):
        assert not set(groups[outer.train]) & set(groups[outer.test])
        assert sorted(np.concatenate([outer.train, outer.test])) == list(range(len(groups)))
        for inner in outer.inner:
            assert not set(groups[inner.train]) & set(groups[inner.test])
            assert sorted(np.concatenate([inner.train, inner.test])) == sorted(outer.train)
    judged = np.concatenate([split.test for split in splits(instance_folds(groups, 5, rng))])
    assert sorted(judged) == list(range(len(groups)))


def test_folds_spread_every_stratum() -> None:
    groups = np.repeat(np.arange(60), 2)
    cities = np.where(groups < 15, 10, 8)
    fold = instance_folds(groups, 5, np.random.default_rng(6), strata=cities)
    assert np.bincount(fold[cities == 10]).tolist() == [6] * 5
    with pytest.raises(ValueError, match="belongs to an instance"):
        instance_folds(groups, 5, np.random.default_rng(6), strata=np.arange(120))
    with pytest.raises(ValueError, match="as many instances"):
        instance_folds(groups[:6], 5, np.random.default_rng(6))


def test_strata_are_combinations() -> None:
    codes = strata_codes(np.array([8, 8, 10, 10, 8]), np.array([1, 2, 1, 2, 1]))
    assert codes.tolist() == [0, 1, 2, 3, 0]


def test_resamples_are_multinomial() -> None:
    counts = resampled_counts(50, np.random.default_rng(7), 4000)
    assert (counts.sum(axis=1) == 50).all()
    assert abs(counts.var() - (1 - 1 / 50)) < 0.02
    assert np.abs(counts.mean(axis=0) - 1).max() < 4.5 / np.sqrt(4000)


def test_a_table_of_cells_equals_its_cells() -> None:
    rng = np.random.default_rng(8)
    totals, counts = rng.normal(size=(3, 2, 40)), rng.integers(1, 5, size=40).astype(float)
    table = bootstrap_ratios(totals, counts, np.random.default_rng(9), resamples=250)
    single = bootstrap_ratio(totals[2, 1], counts, np.random.default_rng(9), resamples=250)
    assert table[2, 1].ci == pytest.approx(single.ci)
    assert table.value[2, 1] == pytest.approx(totals[2, 1].sum() / counts.sum())


def test_sums_and_rows_resample_alike() -> None:
    """The two general forms agree on a statistic that both can compute."""
    rng = np.random.default_rng(10)
    groups = np.repeat(np.arange(80), rng.integers(1, 5, size=80))
    x = rng.normal(size=80)[groups] + rng.normal(size=len(groups))
    totals = instance_sums(np.stack([x, np.ones(len(x))]), groups)
    fast = bootstrap_of_sums(lambda s: s[:, 0] / s[:, 1], totals, rng, resamples=4000)
    slow = cluster_bootstrap(lambda rows: x[rows].mean(), groups, rng, resamples=4000)
    assert fast.value == pytest.approx(x.mean())
    assert fast.error == pytest.approx(slow.error, rel=0.06)
    assert fast.low == pytest.approx(slow.low, abs=0.15 * slow.error)


def test_paired_differences_share_their_resamples() -> None:
    """Two networks that err on the same hard instances differ by far less than either varies."""
    rng = np.random.default_rng(11)
    hard = rng.normal(size=300)
    both = np.stack([hard + 0.1, hard])
    difference = bootstrap_of_sums(lambda s: (s[:, 0] - s[:, 1]) / 300, both, rng)
    assert difference.low == pytest.approx(0.1)
    assert difference.high == pytest.approx(0.1)


def test_adjusted_p_values_by_hand() -> None:
    p = np.array([0.04, 0.01, 0.02, 0.5])
    np.testing.assert_allclose(holm(p), [0.08, 0.04, 0.06, 0.5])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.16 / 3, 0.04, 0.04, 0.5])
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(np.array([1.5]))


def coverage(draws: int, resamples: int, seed: int) -> tuple[float, float, float]:
    """How often 95 % intervals hold the truth: a mean, a partial R2, a difference of two; dependent states."""
    rng = np.random.default_rng(seed)
    held = np.zeros(3)
    for _ in range(draws):
        states = rng.integers(1, 7, size=300)
        groups = np.repeat(np.arange(300), states)
        signal = (rng.normal(size=(2, 300))[:, groups] + rng.normal(size=(2, len(groups)))) / np.sqrt(2)
        noise = (rng.normal(size=300)[groups] + rng.normal(size=len(groups))) / np.sqrt(2)
        # Both signals add 0.4 and 0.3 to the residual; its variance is 1 + 0.16 + 0.09.
        residual = 0.4 * signal[0] + 0.3 * signal[1] + noise
        truths = (1.0, 0.16 / 1.25, (0.16 - 0.09) / 1.25)
        mean = bootstrap_ratio(instance_sums(1 + residual, groups), states.astype(float), rng, resamples=resamples)
        predictions = np.stack([0.4 * signal[0], 0.3 * signal[1]])[..., None]
        share = gaussian_information(residual[:, None], predictions, groups, rng, resamples=resamples)[0, 0]
        losses = np.square(np.stack([residual - 0.3 * signal[1], residual - 0.4 * signal[0], residual]))
        gap = bootstrap_of_sums(
            lambda s: (s[:, 0] - s[:, 1]) / s[:, 2], instance_sums(losses, groups), rng, resamples=resamples
        )
        held += [e.low <= truth <= e.high for e, truth in zip((mean, share, gap), truths, strict=True)]
    return tuple(held / draws)


def test_intervals_of_dependent_states_cover() -> None:
    assert all(0.92 <= share <= 0.98 for share in coverage(400, 400, seed=12))


@pytest.mark.slow
def test_intervals_of_dependent_states_cover_in_two_thousand_draws() -> None:
    assert all(0.93 <= share <= 0.965 for share in coverage(2000, 2000, seed=13))
