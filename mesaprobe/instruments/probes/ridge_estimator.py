"""Ridge regression on the activations of one site, in scikit-learn's manner."""

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from mesaprobe.instruments.probes.ridge import ALPHAS, RidgeSite


class RidgeProbe(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression on the activations of one site, in scikit-learn's manner.

    `fit(X [sample, d], y [sample] or [sample, target], groups=None)`: columns are standardised, the penalty of every
    target is the one under which `folds` parts of the groups (instances; samples if not given) predict one another
    best, then all samples are fitted. Fitted: `coef_` and `intercept_` for raw activations, `alpha_`.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 5))
    >>> RidgeProbe().fit(X[:200], X[:200, 0]).score(X[200:], X[200:, 0]) > 0.99
    True
    """

    def __init__(self, alphas: Sequence[float] = ALPHAS, folds: int = 5) -> None:
        self.alphas = alphas
        self.folds = folds

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "RidgeProbe":
        """Fit to activations X and targets y."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        targets = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        group = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
        fold = group % min(self.folds, int(group.max()) + 1)
        order = np.argsort(fold, kind="stable")
        fitted = RidgeSite(X, order, np.bincount(fold), self.alphas, "cpu").fit(targets[order])
        single = y.ndim == 1
        self.coef_ = fitted.weights[:, 0] if single else fitted.weights.T
        self.intercept_ = float(fitted.intercept[0]) if single else fitted.intercept
        self.alpha_ = float(fitted.alphas[0]) if single else fitted.alphas
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predicted targets."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_.T + self.intercept_
