"""Nuisance, conditional information, net score, control tasks and online codes, on data with known answers."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import Ridge

from mesaprobe.statistics import (
    Losses,
    compression,
    cross_fit_log_odds,
    cross_fit_means,
    fit_log_odds_trees,
    fit_mean_trees,
    gaussian_code,
    gaussian_information,
    instance_blocks,
    instance_folds,
    instance_losses,
    label_residuals,
    log_losses,
    make_control_task,
    net_score,
    online_blocks,
    online_code_length,
    p_value_calibration,
    residual_max_t,
    residualised_predictions,
    signs_agree,
    usable_information,
)

STEPS = 4


class Synthetic:
    """Targets y = f(Z) + signal + noise, and activations that hold f(Z) openly; the signal only if `planted`."""

    def __init__(self, instances: int, rng: np.random.Generator, mixing: np.ndarray, *, planted: float = 0.0) -> None:
        self.groups = np.repeat(np.arange(instances), STEPS)
        self.steps = np.tile(np.arange(STEPS), instances)
        rows = len(self.groups)
        self.z = rng.integers(0, 8, size=(rows, 5)) / 8
        self.z[:, 0] = rng.integers(0, 8, size=instances)[self.groups] / 8
        f = (self.z[:, 0] > 0.4) + (self.z[:, 2] > 0.6) * (self.z[:, 3] > 0.3) + 0.5 * self.z[:, 1]
        signal = rng.normal(size=rows)
        noise = rng.normal(size=instances)[self.groups] + rng.normal(size=rows)
        self.y = (f + planted * signal + 0.3 * noise)[:, None]
        sources = np.column_stack([np.tanh(self.z), f, signal if planted else rng.normal(size=rows)])
        self.h = sources @ mixing + 0.5 * rng.normal(size=(rows, mixing.shape[1]))
        self.best = planted**2 / (planted**2 + 0.18)  # partial R2 of the signal itself


def both_forms(instances: int, seed: int, *, planted: float = 0.0):
    """Residuals on a test set and a probe's predictions of them, as they are and without what Z tells of them."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(7, 16))
    fitted, probe, test = (Synthetic(instances, rng, mixing, planted=planted) for _ in range(3))
    g = fit_mean_trees(fitted.z, fitted.y, fitted.groups, seed=0)
    residuals = [part.y - g.predict(part.z) for part in (probe, test)]
    direct = Ridge(10.0).fit(probe.h, residuals[0][:, 0]).predict(test.h)[:, None]
    fold = instance_folds(test.groups, 5, rng)
    residualised = residualised_predictions(direct, test.z, test.groups, fold, seed=0)
    return test, residuals[1], direct[None], residualised[None]


def test_trees_learn_the_nuisance_and_calibrate() -> None:
    rng = np.random.default_rng(0)
    train, other, test = (Synthetic(400, rng, np.zeros((7, 1))) for _ in range(3))
    g = fit_mean_trees(train.z, train.y, train.groups, seed=0)
    assert np.mean((test.y - g.predict(test.z)) ** 2) < 0.18 * 1.15  # the noise is 0.09 * 2
    labels = rng.random(test.y.shape) < 0.3
    odds = fit_log_odds_trees(train.z, rng.random(train.y.shape) < 0.3, train.groups, seed=0)
    odds = odds.calibrated(other.z, rng.random(other.y.shape) < 0.3)
    assert log_losses(odds.predict(test.z), labels).mean() < 0.64  # 0.611 nats know the share of .3 only
    assert abs(label_residuals(odds.predict(test.z), labels).mean()) < 0.08


def test_no_sample_meets_its_own_instance() -> None:
    rng = np.random.default_rng(1)
    data = Synthetic(80, rng, np.zeros((7, 1)))
    labels = data.y > 0.8
    fold = instance_folds(data.groups, 3, rng)
    train, test = fold != 1, fold == 1
    parts = data.z[train], data.groups[train]
    means = cross_fit_means(data.z, data.y, data.groups, fold, seed=0)
    alone = fit_mean_trees(parts[0], data.y[train], parts[1], seed=0).predict(data.z[test])
    np.testing.assert_array_equal(means[test], alone)
    odds = cross_fit_log_odds(data.z, labels, data.groups, fold, seed=0)
    alone = fit_log_odds_trees(parts[0], labels[train], parts[1], seed=0).predict(data.z[test])
    np.testing.assert_allclose(np.corrcoef(odds[test, 0], alone[:, 0])[0, 1], 1.0)  # up to the one factor
    assert log_losses(odds, labels).mean() < np.log(2)


def test_trees_stop_before_they_learn_noise() -> None:
    """Targets that Z does not tell: what is predicted for other instances must do next to no harm."""
    rng = np.random.default_rng(12)
    groups = np.repeat(np.arange(150), 4)
    z, y = rng.normal(size=(600, 6)), (rng.normal(size=150)[groups] + rng.normal(size=600))[:, None]
    g = fit_mean_trees(z[:300], y[:300], groups[:300], seed=0)
    harm = np.mean((y[300:] - g.predict(z[300:])) ** 2) / np.mean((y[300:] - y[:300].mean()) ** 2)
    assert harm < 1.1


def test_missing_numbers_and_empty_columns_are_taken() -> None:
    rng = np.random.default_rng(2)
    data = Synthetic(60, rng, np.zeros((7, 1)))
    z = np.column_stack([data.z, np.full(len(data.z), np.nan)])
    z[::3, 1] = np.nan
    assert np.isfinite(fit_mean_trees(z, data.y, data.groups, seed=0).predict(z)).all()
    with pytest.raises(ValueError, match="both values"):
        fit_log_odds_trees(z, np.ones((len(z), 1), dtype=bool), data.groups, seed=0)
    with pytest.raises(ValueError, match=r"Z \[sample, k\]"):
        fit_mean_trees(z, data.y[:, 0], data.groups, seed=0)


def test_information_of_a_known_share() -> None:
    rng = np.random.default_rng(4)
    groups = np.arange(4000) // 4
    predictions = rng.normal(size=(2, 4000, 1))
    residuals = 0.5 * predictions[0] + rng.normal(size=(4000, 1))
    found = gaussian_information(residuals, 0.5 * predictions, groups, rng)
    assert found.low[0, 0] < 0.25 / 1.25 < found.high[0, 0]
    assert found.value[1, 0] < 0  # a wrong probe does harm, and says so
    odds = rng.normal(size=4000) * 2
    labels = rng.random(4000) < expit(odds)
    bits = usable_information(log_losses(np.zeros(4000), labels), log_losses(odds, labels), groups, rng)
    grid = np.linspace(-12, 12, 4001)
    density = np.exp(-(grid**2) / 8) / np.sqrt(8 * np.pi)
    entropy = np.trapezoid(density * (expit(grid) * np.log1p(np.exp(-grid)) * 2), grid)
    assert bits.low < 1 - entropy / np.log(2) < bits.high
    with pytest.raises(ValueError, match="leaves nothing open"):
        usable_information(np.zeros(4), np.zeros(4), np.arange(4), rng)


def test_a_planted_signal_is_recovered_by_both_forms() -> None:
    test, residuals, direct, residualised = both_forms(600, seed=5, planted=0.3)
    rng = np.random.default_rng(5)
    one, two = (gaussian_information(residuals, p, test.groups, rng) for p in (direct, residualised))
    assert signs_agree(one, two).all()
    # 16 noisy copies of 7 sources know the signal nearly: between half and all of what it could tell.
    for found in (one, two):
        assert 0.5 * test.best < found.value[0, 0] < test.best + 3 * found.error[0, 0]
    blocks = instance_blocks(test.groups, test.steps)
    assert residual_max_t(residuals, residualised, blocks, rng, permutations=199).p == 0.005
    # Activations with other instances' residuals: nothing, as often as it should be.
    p_values = []
    for sources in blocks.permutations(rng, 100):
        shuffled = blocks.permute(residuals, sources)
        p_values.append(residual_max_t(shuffled, residualised, blocks, rng, permutations=99).p)
    assert gaussian_information(shuffled, residualised, test.groups, rng).value[0, 0] < 0
    assert p_value_calibration(np.array(p_values)).uniform_p > 0.01


@pytest.mark.slow
def test_the_residualised_form_forgives_what_the_direct_one_does_not() -> None:
    """No signal beyond Z, but activations hold f(Z) better than trees could learn it from noisy targets."""
    p_values = []
    for seed in range(200):
        test, residuals, direct, residualised = both_forms(300, seed)
        blocks, rng = instance_blocks(test.groups, test.steps), np.random.default_rng(seed)
        p_values.append([residual_max_t(residuals, p, blocks, rng, permutations=99).p for p in (direct, residualised)])
    direct, residualised = (p_value_calibration(np.array(column)) for column in zip(*p_values, strict=True))
    assert direct.rejected[1] > 0.12
    assert residualised.uniform_p > 0.01
    assert min(residualised.excess_p) > 0.01


def test_net_score_by_hand() -> None:
    base = np.full((2, 5), 2.0)
    subject, control = Losses(base, base * [[0.5], [0.9]]), Losses(base, base * [[0.8], [0.7]])
    twins = [Losses(base, base * 0.6), Losses(base, base * 1.0)]  # mean information 0.2
    found = net_score(subject, [control], twins, np.random.default_rng(6))
    np.testing.assert_allclose(found.net.value, [0.5 - 0.2, 0.1 - 0.3])
    np.testing.assert_allclose(found.twins.value, [0.2, 0.2])
    harmful = Losses(base, base * 1.5)
    np.testing.assert_allclose(net_score(subject, [harmful], [], np.random.default_rng(6)).net.value, [0.5, 0.1])
    with pytest.raises(ValueError, match="share cells and instances"):
        net_score(subject, [Losses(base[:1], base[:1])], [], np.random.default_rng(6))


def test_net_score_cancels_luck_that_the_arms_share() -> None:
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(200), 3)
    base = rng.exponential(size=600)
    subject = instance_losses(base, 0.7 * base + 0.05 * rng.normal(size=600), groups)
    control = instance_losses(base, 0.8 * base + 0.05 * rng.normal(size=600), groups)
    found = net_score(subject, [control], [], rng)
    assert found.net.low < 0.1 < found.net.high
    assert found.net.error < 0.01


def test_control_labels_are_a_function_of_local_features_with_the_targets_marginal() -> None:
    rng = np.random.default_rng(8)
    local = rng.integers(1, 65, size=(20_000, 3)).astype(float)
    local[::7, 2] = np.nan
    for y in (rng.choice(4, 20_000, p=[0.6, 0.2, 0.15, 0.05]), rng.gamma(2.0, size=20_000)):
        task = make_control_task(local[:10_000], y[:10_000], seed=1)
        labels = task.labels(local)
        cells = np.column_stack([np.searchsorted(edge, local[:, k], side="right") for k, edge in enumerate(task.edges)])
        _, cell = np.unique(np.where(np.isnan(local), -1, cells), axis=0, return_inverse=True)
        for index in range(cell.max() + 1):
            assert len(np.unique(labels[cell.ravel() == index])) == 1
        grid = np.quantile(y, [0.1, 0.3, 0.5, 0.7, 0.9])
        for part in (labels[:10_000], labels[10_000:]):  # instances it was made from, and new ones
            assert np.abs((part[:, None] <= grid).mean(0) - (y[:, None] <= grid).mean(0)).max() < 0.03
        assert np.array_equal(labels, make_control_task(local[:10_000], y[:10_000], seed=1).labels(local))
        other = make_control_task(local[:10_000], y[:10_000], seed=2).labels(local)
        assert abs(np.corrcoef(labels, other)[0, 1]) < 0.25  # another draw of ~200 cells
        assert abs(np.corrcoef(labels, y)[0, 1]) < 0.05


def test_online_code_of_a_known_model() -> None:
    """Laplace's rule pays for n heads the same total under any blocks of single instances: log(n + 1)."""
    labels = np.ones(64, dtype=int)
    blocks = online_blocks(np.arange(64), np.random.default_rng(9), orders=3, fractions=np.arange(1, 65) / 64)

    def laplace(train: np.ndarray, block: np.ndarray) -> float:
        return -len(block) * np.log((labels[train].sum() + 1) / (len(train) + 2))

    np.testing.assert_allclose(online_code_length(laplace, blocks), np.log(65))


def test_blocks_hold_whole_instances_once() -> None:
    groups = np.repeat(np.arange(300), 4)
    blocks = online_blocks(groups, np.random.default_rng(10))
    assert len(blocks) == 5
    assert not np.array_equal(blocks[0][-1], blocks[1][-1])
    for order in blocks:
        assert [len(block) // 4 for block in order] == [1, 1, 3, 5, 9, 19, 37, 75, 150]
        assert sorted(np.concatenate(order)) == list(range(1200))
        for block in order:
            assert (np.bincount(groups[block], minlength=300) % 4 == 0).all()


def test_activations_that_know_the_label_shorten_its_code() -> None:
    rng = np.random.default_rng(11)
    groups = np.arange(1200) // 3
    h = rng.normal(size=(2, 1200))  # one that tells and one that does not
    y = h[0] + rng.normal(size=1200)
    blocks = online_blocks(groups, rng)

    def code(x: np.ndarray):
        def length(train: np.ndarray, block: np.ndarray) -> float:
            if len(train) < 6:
                return float(gaussian_code(y[block], 2.0, 0.01).sum())
            slope = (x[train] @ y[train]) / (x[train] @ x[train] + 1.0)
            variance = (np.square(y[train] - slope * x[train]).sum() + 2.0) / (len(train) + 1)
            return float(gaussian_code(y[block] - slope * x[block], variance, 0.01).sum())

        return online_code_length(length, blocks)

    base, tells, silent = code(np.zeros(1200)), code(h[0]), code(h[1])
    # 1200 * log(sqrt 2) nats are saved of about 1200 * log(sqrt(4 pi e) / 0.01).
    assert compression(base, tells).mean() == pytest.approx(0.347 / (6.37 - 0.347), rel=0.25)
    assert (compression(base, silent) < 0.002).all()
    with pytest.raises(ValueError, match="positive"):
        compression(base, -base)
