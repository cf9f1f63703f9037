"""The nuisance g(Z): what gradient-boosted trees tell of a target from rules, input and output (method.md section 4).

Trees take NaN as it is and need no scaling. Fitted on one instance set for others (`fit_mean_trees`), or cross-fitted
by instance inside one set (`cross_fit_means`): a sample never meets trees that saw its own instance.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from mesaprobe.statistics.folds import instance_folds, splits

SETTINGS: dict[str, Any] = {"learning_rate": 0.1, "max_leaf_nodes": 16, "early_stopping": False}
"""scikit-learn's early stopping holds out rows, not instances."""
TRIAL_TREES = 130
"""Of which the number is found that does best on a quarter of the instances, held out for that."""
PAST_BEST = 3
"""How many times that number of trees is grown for residuals. Stopped at their best, trees leave about a tenth of
what Z tells in the residual, shrunk but whole, and activations that hold Z predict it. Three times as many leave a
fiftieth, for a few per cent more noise, which depends on nothing that a probe can see (undersmoothing)."""


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """Trees a target: predicted means, or calibrated log-odds of binary targets."""

    models: tuple[HistGradientBoostingRegressor | HistGradientBoostingClassifier, ...]
    used: Bool[np.ndarray, " k"]
    """Columns of Z that held any number."""
    sharpness: Float64[np.ndarray, " target"]
    """Factor on log-odds (1 until `calibrated`); trees are too sure of what they have seen."""

    def predict(self, z: Float64[np.ndarray, "sample k"]) -> Float64[np.ndarray, "sample target"]:
        """Means, or log-odds that the label is 1."""
        rows = z[:, self.used]
        columns = [
            model.decision_function(rows) if isinstance(model, HistGradientBoostingClassifier) else model.predict(rows)
            for model in self.models
        ]
        return np.stack(columns, axis=1).astype(np.float64) * self.sharpness

    def calibrated(
        self, z: Float64[np.ndarray, "sample k"], labels: Bool[np.ndarray, "sample target"]
    ) -> "BoostedTrees":
        """The same trees, their log-odds scaled to the least log loss on these instances (others than fitted)."""
        return replace(self, sharpness=self.sharpness * log_odds_sharpness(self.predict(z), labels))


def fit_mean_trees(
    z: Float64[np.ndarray, "sample k"],
    y: Float64[np.ndarray, "sample target"],
    groups: Shaped[np.ndarray, " sample"],
    seed: int,
    trees: int | None = None,
) -> BoostedTrees:
    """Squared-error trees for each target; `groups` names the instance of a sample (at least 4 instances).

    For residuals y - g(Z), also of labels 0 and 1. There are `PAST_BEST` times as many trees as predict best, or
    `trees` of them, which saves the trial.

    >>> z = np.random.default_rng(0).integers(0, 2, size=(200, 1)).astype(float)
    >>> g = fit_mean_trees(z, 5 * z, np.arange(200), seed=0)
    >>> g.predict(np.array([[0.0], [1.0]])).round(2).ravel().tolist()
    [0.0, 5.0]
    """

    def tree_count(model: HistGradientBoostingRegressor, rows: np.ndarray, truth: np.ndarray) -> int:
        losses = [np.square(guess - truth).sum() for guess in model.staged_predict(rows)]
        return PAST_BEST * (1 + int(np.argmin(losses)))

    return _fit(z, np.asarray(y, np.float64), groups, seed, HistGradientBoostingRegressor, tree_count, trees)


def fit_log_odds_trees(
    z: Float64[np.ndarray, "sample k"],
    labels: Bool[np.ndarray, "sample target"],
    groups: Shaped[np.ndarray, " sample"],
    seed: int,
) -> BoostedTrees:
    """Log-loss trees for each binary target, as many as predict best; each value must occur in 8 instances or more.

    For log losses given Z. Scale them with `calibrated`.
    """
    labels = np.asarray(labels, dtype=np.bool_)
    holders = [len(np.unique(groups[column == value])) for column in labels.T for value in (False, True)]
    if min(holders) < 8:
        raise ValueError(f"a binary target must take both values in at least 8 instances each; got {min(holders)}")

    def tree_count(model: HistGradientBoostingClassifier, rows: np.ndarray, truth: np.ndarray) -> int:
        stages = model.staged_decision_function(rows)
        return 1 + int(np.argmin([log_losses(odds.ravel(), truth).sum() for odds in stages]))

    return _fit(z, labels, groups, seed, HistGradientBoostingClassifier, tree_count)


def cross_fit(
    fit_predict: Callable[[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]], Float64[np.ndarray, "test *rest"]],
    fold: Int64[np.ndarray, " sample"],
) -> Float64[np.ndarray, "sample *rest"]:
    """`fit_predict(train, test)` for every fold in turn, put together in the order of the samples.

    >>> y = np.array([1.0, 3.0, 5.0, 7.0])
    >>> cross_fit(lambda train, test: np.full(len(test), y[train].mean()), np.array([0, 0, 1, 1])).tolist()
    [6.0, 6.0, 2.0, 2.0]
    """
    parts = [(split.test, fit_predict(split.train, split.test)) for split in splits(fold)]
    found = np.empty((len(fold), *parts[0][1].shape[1:]))
    for rows, values in parts:
        found[rows] = values
    return found


def cross_fit_means(
    z: Float64[np.ndarray, "sample k"],
    y: Float64[np.ndarray, "sample target"],
    groups: Shaped[np.ndarray, " sample"],
    fold: Int64[np.ndarray, " sample"],
    seed: int,
    trees: int | None = None,
) -> Float64[np.ndarray, "sample target"]:
    """g(Z) by folds of instances; the residual of the targets is y - g(Z)."""
    return cross_fit(
        lambda train, test: fit_mean_trees(z[train], y[train], groups[train], seed, trees).predict(z[test]), fold
    )


def cross_fit_log_odds(
    z: Float64[np.ndarray, "sample k"],
    labels: Bool[np.ndarray, "sample target"],
    groups: Shaped[np.ndarray, " sample"],
    fold: Int64[np.ndarray, " sample"],
    seed: int,
) -> Float64[np.ndarray, "sample target"]:
    """Log-odds given Z by folds of instances, scaled by one factor a target that calibrates all held-out samples."""
    raw = cross_fit(
        lambda train, test: fit_log_odds_trees(z[train], labels[train], groups[train], seed).predict(z[test]), fold
    )
    return raw * log_odds_sharpness(raw, labels)


def log_odds_sharpness(
    log_odds: Float64[np.ndarray, "sample target"], labels: Bool[np.ndarray, "sample target"]
) -> Float64[np.ndarray, " target"]:
    """The factor in [0, 3] on each target's log-odds with the least log loss.

    >>> odds = np.array([[3.0], [3.0], [3.0], [-3.0], [-3.0], [-3.0]])
    >>> labels = np.array([[True], [True], [False], [True], [False], [False]])
    >>> np.round(3.0 * log_odds_sharpness(odds, labels), 2)  # two in three are right: log 2
    array([0.69])
    """
    return np.array(
        [
            minimize_scalar(lambda c, s=s, y=y: log_losses(c * s, y).mean(), bounds=(0, 3), method="bounded").x
            for s, y in zip(np.asarray(log_odds).T, np.asarray(labels).T, strict=True)
        ]
    )


def log_losses(
    log_odds: Float64[np.ndarray, "*shape"], labels: Bool[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """Log loss in nats of binary labels; their residual is label - expit(log-odds).

    >>> log_losses(np.zeros(1), np.array([True])).round(3)
    array([0.693])
    """
    return np.logaddexp(0.0, np.where(labels, -log_odds, log_odds))


def label_residuals(
    log_odds: Float64[np.ndarray, "*shape"], labels: Bool[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """label - probability: what is left of a binary target, and the slope of its log loss in the log-odds."""
    return np.asarray(labels, dtype=np.float64) - expit(log_odds)


def _fit(
    z: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    seed: int,
    estimator: type[Any],
    tree_count: Callable[[Any, np.ndarray, np.ndarray], int],
    trees: int | None = None,
) -> BoostedTrees:
    used = np.isfinite(z).any(axis=0)
    if z.ndim != 2 or y.ndim != 2 or not len(z) == len(y) == len(groups) or not used.any():
        raise ValueError(
            f"trees need Z [sample, k] with some numbers, targets [sample, target] and one group a sample; "
            f"got {z.shape}, {y.shape} and {np.shape(groups)}"
        )
    rows = z[:, used]
    trial = splits(instance_folds(groups, 4, np.random.default_rng(seed)))[0]
    models = []
    # Sums over threads round as the threads come: one thread, so that the same seed gives the same trees.
    with threadpool_limits(limits=1, user_api="openmp"):
        for target in y.T:
            count = trees
            if count is None:
                model = estimator(max_iter=TRIAL_TREES, random_state=seed, **SETTINGS).fit(
                    rows[trial.train], target[trial.train]
                )
                count = tree_count(model, rows[trial.test], target[trial.test])
            models.append(estimator(max_iter=count, random_state=seed, **SETTINGS).fit(rows, target))
    return BoostedTrees(tuple(models), used, np.ones(y.shape[1]))
