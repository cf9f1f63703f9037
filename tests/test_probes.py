"""Probes find what was planted, at the strength at which it was planted, and nothing else; sweeps equal loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mesaprobe.probes import (
    BilinearClassifier,
    BilinearRegressor,
    LinearProbe,
    RidgeProbe,
    cross_fit_softmax,
    mlp_probe,
    ridge_sweep,
)
from mesaprobe.statistics.bootstrap import bootstrap_ratio

ALPHAS = (1.0, 10.0, 100.0, 1000.0)


def correlated(sites: int, instances: int, states: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations [site, sample, width] with correlated columns, off-centre, alike within an instance; groups."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.normal(size=(sites, instances, width)), states, axis=1)
    own = rng.normal(size=(sites, instances * states, width))
    mixing = rng.normal(size=(sites, width, width)) / np.sqrt(width)
    return (shared + own) @ mixing + rng.normal(size=(sites, 1, width)) * 3, np.repeat(np.arange(instances), states)


def planted(h: np.ndarray, r2: float, seed: int) -> np.ndarray:
    """A target of which a linear function of h explains the share r2."""
    rng = np.random.default_rng(seed)
    signal = (h - h.mean(axis=0)) @ rng.normal(size=h.shape[1])
    return np.sqrt(r2) * signal / signal.std() + np.sqrt(1 - r2) * rng.normal(size=len(h))


def test_the_sweep_is_the_nested_loop_of_scikit_learn() -> None:
    """Exactly: standardising, choosing the penalty and fitting inside each training set, one site and target a time."""
    h, groups = correlated(2, 60, 3, 8, seed=0)
    folds = groups % 4
    y = np.stack([planted(h[0], 0.5, 1), planted(h[1], 0.1, 2), np.random.default_rng(3).normal(size=180)], axis=1)
    sweep = ridge_sweep(h, y, folds, alphas=ALPHAS, groups=groups)
    assert sweep.predictions is not None
    for site in range(2):
        for target in range(3):
            for fold in range(4):
                kept = folds != fold
                splits = PredefinedSplit(folds[kept])
                pipeline = make_pipeline(StandardScaler(), Ridge())
                search = GridSearchCV(pipeline, {"ridge__alpha": ALPHAS}, cv=splits, scoring="neg_mean_squared_error")
                search.fit(h[site, kept], y[kept, target])
                assert sweep.alphas[site, fold, target] == search.best_params_["ridge__alpha"]
                expected = search.predict(h[site, ~kept])
                np.testing.assert_allclose(sweep.predictions[site, ~kept, target], expected, atol=1e-5)
            assert sweep.r2[site, target] == pytest.approx(
                r2_score(y[:, target], sweep.predictions[site, :, target]), abs=1e-5
            )


def test_the_sweep_scores_as_ridgecv_does() -> None:
    """RidgeCV standardises once for all inner folds, which moves nothing that matters."""
    h, groups = correlated(2, 400, 3, 32, seed=4)
    folds = groups % 5
    y = np.stack([planted(h[0], share, i) for i, share in enumerate((0.05, 0.5, 0.95))], axis=1)
    ours = ridge_sweep(h, y, folds, alphas=ALPHAS).r2
    for site in range(2):
        for target in range(3):
            guesses = np.empty(len(y))
            for fold in range(5):
                kept = folds != fold
                inner = RidgeCV(ALPHAS, cv=PredefinedSplit(folds[kept]), scoring="neg_mean_squared_error")
                probe = make_pipeline(StandardScaler(), inner).fit(h[site, kept], y[kept, target])
                guesses[~kept] = probe.predict(h[site, ~kept])
            assert ours[site, target] == pytest.approx(r2_score(y[:, target], guesses), abs=1e-3)


def test_planted_strength_is_recovered_within_its_interval_and_nothing_elsewhere() -> None:
    h, groups = correlated(4, 3000, 2, 16, seed=5)
    for share in (0.02, 0.2, 0.8):
        y = planted(h[2], share, 6)
        sweep = ridge_sweep(h, y, groups % 5, groups=groups)
        assert sweep.predictions is not None
        spread = (y - y.mean()) ** 2
        for site in range(4):
            gain = spread - (y - sweep.predictions[site, :, 0]) ** 2
            totals = [np.bincount(groups, weights=part) for part in (gain, spread)]
            found = bootstrap_ratio(*totals, np.random.default_rng(0), level=0.99)
            assert found.value == pytest.approx(sweep.r2[site, 0], abs=1e-6)
            assert found.low < (share if site == 2 else 0.0) < max(found.high, 1e-9), (share, site)
            assert site == 2 or sweep.r2[site, 0] < 0.003


def test_the_probes_of_a_sweep_are_those_of_the_estimator_and_serve_other_data() -> None:
    h, groups = correlated(3, 300, 2, 12, seed=26)
    y = np.stack([planted(h[1], 0.6, 27), planted(h[2], 0.6, 28)], axis=1)
    fitted, other = groups < 200, groups >= 200
    probes = ridge_sweep(h[:, fitted], y[fitted], groups[fitted] % 5).probes
    guesses = probes.predict(h[:, other])
    for site in range(3):
        expected = RidgeProbe().fit(h[site, fitted], y[fitted], groups[fitted]).predict(h[site, other])
        np.testing.assert_allclose(guesses[site], expected, atol=1e-5)
    r2 = 1 - ((y[other] - guesses) ** 2).sum(axis=1) / ((y[other] - y[other].mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(r2, [[0, 0], [0.6, 0], [0, 0.6]], atol=0.12)


def test_permuted_targets_are_those_of_a_sweep_of_their_own() -> None:
    h, groups = correlated(2, 50, 2, 6, seed=7)
    y, folds = np.stack([planted(h[0], 0.5, 8), planted(h[1], 0.5, 9)], axis=1), groups % 3
    permutations = np.stack([np.random.default_rng(i).permutation(100) for i in range(4)])
    sweep = ridge_sweep(h, y, folds, permutations=permutations, keep_predictions=False)
    assert sweep.predictions is None
    assert sweep.null_r2 is not None
    for index, permutation in enumerate(permutations):
        expected = ridge_sweep(h, y[permutation], folds).r2
        np.testing.assert_allclose(sweep.null_r2[index], expected, atol=1e-9)
    assert sweep.r2.diagonal().min() > sweep.null_r2.max() + 0.1


def test_neither_the_order_of_samples_nor_the_scale_of_columns_matters() -> None:
    h, groups = correlated(1, 80, 2, 5, seed=10)
    y, folds = planted(h[0], 0.4, 11), groups % 4
    sweep = ridge_sweep(h, y, folds)
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = ridge_sweep(h[:, order], y[order], folds[order] + 17)
    scaled = ridge_sweep(1e3 * h * np.array([1, 10, 1e-4, 5, 1]) - 40, 7 * y + 3, folds)
    assert sweep.predictions is not None
    assert shuffled.predictions is not None
    assert scaled.predictions is not None
    np.testing.assert_allclose(shuffled.predictions[0], sweep.predictions[0, order], atol=1e-6)
    np.testing.assert_allclose(scaled.predictions[0], 7 * sweep.predictions[0] + 3, atol=1e-5)


def test_columns_that_do_not_vary_and_half_precision_files_are_taken(tmp_path: Path) -> None:
    h, groups = correlated(2, 100, 2, 6, seed=12)
    y, folds = planted(h[1], 0.6, 13), groups % 5
    h = h.astype(np.float16)
    constant = np.concatenate([h, np.full((2, 200, 1), 1234.5, dtype=np.float16)], axis=2)
    np.save(tmp_path / "h.npy", constant)
    ours = ridge_sweep(np.load(tmp_path / "h.npy", mmap_mode="r"), y, folds)
    np.testing.assert_allclose(ours.r2, ridge_sweep(h.astype(np.float64), y, folds).r2, atol=1e-9)


def test_leaking_folds_and_missing_targets_are_refused() -> None:
    h, groups = correlated(1, 20, 2, 3, seed=14)
    y = planted(h[0], 0.5, 15)
    with pytest.raises(ValueError, match="lie in several folds"):
        ridge_sweep(h, y, np.arange(40) % 4, groups=groups)
    with pytest.raises(ValueError, match="at least 3 folds, got 2"):
        ridge_sweep(h, y, groups % 2)
    with pytest.raises(ValueError, match="40 samples, targets 39"):
        ridge_sweep(h, y[:-1], groups % 4)
    with pytest.raises(ValueError, match="targets must be finite"):
        ridge_sweep(h, np.where(np.arange(40) == 3, np.nan, y), groups % 4)
    with pytest.raises(ValueError, match="target 1 is constant"):
        ridge_sweep(h, np.stack([y, np.ones(40)], axis=1), groups % 4)


def test_softmax_probes_are_cross_fitted() -> None:
    rng = np.random.default_rng(16)
    h, groups = rng.normal(size=(2, 900, 6)).astype(np.float32), np.repeat(np.arange(300), 3)
    labels = torch.from_numpy(h[1, :, :3].argmax(axis=1))
    allowed = torch.ones(900, 3, dtype=torch.bool)
    found = cross_fit_softmax(h, labels, groups % 3, groups, allowed)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 900))
    accuracy = (found.argmax(-1) == labels).float().mean(-1)
    assert accuracy[1] > 0.95
    assert accuracy[0] < 0.4
    wrong = labels.clone()
    wrong[groups % 3 == 0] = (labels[groups % 3 == 0] + 1) % 3  # the fold's own labels must not reach its probes
    other = cross_fit_softmax(h, wrong, groups % 3, groups, allowed)
    torch.testing.assert_close(other[:, groups % 3 == 0], found[:, groups % 3 == 0])
    with pytest.raises(ValueError, match="lie in several folds"):
        cross_fit_softmax(h, labels, np.arange(900) % 3, groups, allowed)


def pairs(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of tokens of width 12, and what a rank-2 bilinear form of them says (no linear part)."""
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(2, samples, 12)) @ rng.normal(size=(12, 12)) / 3 + 1
    factors = np.random.default_rng(99).normal(size=(2, 12, 2))
    return np.hstack([left, right]), ((left - 1) @ factors[0] * ((right - 1) @ factors[1])).sum(axis=1)


def test_bilinear_probes_read_what_only_the_pair_says() -> None:
    X, value = pairs(3000, 17)
    train, test = slice(0, 2000), slice(2000, 3000)
    assert RidgeProbe().fit(X[train], value[train]).score(X[test], value[test]) < 0.1
    scores = [BilinearRegressor(rank=r).fit(X[train], value[train]).score(X[test], value[test]) for r in (1, 2, 8)]
    assert scores[0] < 0.95 < 0.99 < min(scores[1:])
    positive = value > np.median(value)
    classifier = BilinearClassifier(rank=2).fit(X[train], positive[train])
    assert classifier.score(X[test], positive[test]) > 0.95
    assert np.linalg.matrix_rank(classifier.weights_) == 2
    shuffled = np.random.default_rng(0).permutation(positive)
    assert BilinearClassifier(penalty=0.1).fit(X[train], shuffled[train]).score(X[test], shuffled[test]) < 0.56


def test_a_bilinear_probe_without_pairs_is_the_linear_one() -> None:
    """Rank 0 leaves linear terms, whose optimum ridge regression knows; the penalties' scales differ by n / 2... n."""
    X, _ = pairs(500, 18)
    y = planted(X, 0.7, 19)
    standardised = (X - X.mean(axis=0)) / X.std(axis=0)
    expected = Ridge(alpha=1e-2 * 500).fit(standardised, (y - y.mean()) / y.std()).coef_
    found = BilinearRegressor(rank=0, penalty=1e-2, max_iter=500).fit(X, y)
    np.testing.assert_allclose(found.linear_, expected, atol=1e-3)


def test_the_small_network_reads_what_a_linear_probe_cannot() -> None:
    X = np.random.default_rng(20).normal(size=(3000, 4))
    y = np.abs(X[:, 0])
    assert RidgeProbe().fit(X[:2000], y[:2000]).score(X[2000:], y[2000:]) < 0.05
    probe = mlp_probe("values", seed=0)
    assert clone(probe).fit(X[:2000], y[:2000]).score(X[2000:], y[2000:]) > 0.9
    assert mlp_probe("classes", seed=0).fit(X[:2000], y[:2000] > 1).score(X[2000:], y[2000:] > 1) > 0.9


def test_ridge_probe_chooses_penalties_on_whole_instances() -> None:
    """Labels that belong to instances at random: within an instance samples look alike, across they say nothing."""
    h, groups = correlated(1, 60, 6, 80, seed=21)
    y = np.repeat(np.random.default_rng(0).normal(size=60), 6)
    by_sample, by_instance = RidgeProbe().fit(h[0], y), RidgeProbe().fit(h[0], y, groups)
    assert by_instance.alpha_ > 10 * by_sample.alpha_


def test_ridge_probe_is_ridge_at_the_penalty_that_it_chose() -> None:
    h, groups = correlated(1, 100, 2, 6, seed=22)
    y = np.stack([planted(h[0], 0.5, 23), planted(h[0], 0.9, 24)], axis=1)
    probe = RidgeProbe().fit(h[0], y, groups)
    for target in range(2):
        peer = make_pipeline(StandardScaler(), Ridge(alpha=probe.alpha_[target])).fit(h[0], y[:, target])
        np.testing.assert_allclose(probe.predict(h[0])[:, target], peer.predict(h[0]), atol=1e-8)


def test_probes_work_inside_pipelines_and_searches() -> None:
    X, value = pairs(600, 25)
    groups = np.arange(600) // 3
    search = GridSearchCV(BilinearRegressor(), {"rank": [0, 2]}, cv=GroupKFold(3)).fit(X, value, groups=groups)
    assert search.best_params_ == {"rank": 2}
    assert make_pipeline(StandardScaler(), RidgeProbe()).fit(X, X[:, 0]).score(X, X[:, 0]) > 0.99


@parametrize_with_checks(
    [RidgeProbe(), LinearProbe(iterations=20), BilinearRegressor(max_iter=30), BilinearClassifier(max_iter=30)]
)
def test_probes_are_scikit_learn_estimators(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]
