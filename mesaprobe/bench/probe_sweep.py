"""Many ridge probes at once against one by one."""

import numpy as np

from mesaprobe.bench.table import BENCHES, BenchRow, bench_row, interleaved, one_thread

PROBE_SWEEP_GOAL = 20.0
"""Times as fast as the same probes one by one."""


@BENCHES.register("probe_sweep")
def probe_sweep() -> BenchRow:
    """Ridge probes of 8 targets at 3 sites of width 128, 3,000 samples of 1,000 instances, 5 folds, 7 penalties,
    chosen inside each training set on the same folds. The scores must agree to 1e-3, else RuntimeError."""
    from mesaprobe.instruments.probes import ridge_sweep

    rng = np.random.default_rng(0)
    activations = rng.normal(size=(3, 3000, 128)) @ rng.normal(size=(3, 128, 128))
    targets = activations[:, :, :8].sum(axis=0) + 20.0 * rng.normal(size=(3000, 8))
    folds = np.repeat(np.arange(1000) % 5, 3)
    with one_thread():
        few = _ridge_cv_scores(activations[:1], targets[:, :2], folds)
        apart = np.abs(ridge_sweep(activations, targets, folds).r2[:1, :2] - few)
        if apart.max() > 1e-3:
            raise RuntimeError(f"the sweep's scores differ from RidgeCV's by {apart.max():.2g}")
        ours, theirs = interleaved(
            lambda: ridge_sweep(activations, targets, folds),
            lambda: _ridge_cv_scores(activations[:1], targets[:, :2], folds),
            rounds=3,
        )
    assert theirs is not None
    rates = activations.shape[0] * targets.shape[1] / ours, few.size / theirs
    peer = "scikit-learn, StandardScaler and RidgeCV per site, target and fold, 1 thread"
    return bench_row("probe_sweep", rates[0], "probes/s", peer, rates[1], goal=PROBE_SWEEP_GOAL)


def _ridge_cv_scores(activations: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Cross-fitted R2 [site, target], as one writes it with scikit-learn."""
    from sklearn.linear_model import RidgeCV
    from sklearn.metrics import r2_score
    from sklearn.model_selection import PredefinedSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mesaprobe.instruments.probes import ALPHAS

    scores = np.empty((len(activations), targets.shape[1]))
    for site, target in np.ndindex(scores.shape):
        guesses = np.empty(len(targets))
        for fold in np.unique(folds):
            kept = folds != fold
            ridge = RidgeCV(ALPHAS, cv=PredefinedSplit(folds[kept]), scoring="neg_mean_squared_error")
            probe = make_pipeline(StandardScaler(), ridge).fit(activations[site, kept], targets[kept, target])
            guesses[~kept] = probe.predict(activations[site, ~kept])
        scores[site, target] = r2_score(targets[:, target], guesses)
    return scores
