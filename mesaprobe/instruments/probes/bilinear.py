"""Bilinear probes of pairs: is it written, in two tokens together, what holds between them?

    f(l, r) = c + u'l + v'r + l'W r,     W = A B' of rank <= 8           (method.md section 4; Jenner et al. 2024)

on standardised l and r. The linear part takes what each token says alone. Penalising |A|^2 + |B|^2 penalises the
nuclear norm of W. The fit starts from the best W of that rank near 0 (the leading singular vectors of the loss
gradient there), not from noise, so it needs no seed.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor


class _Bilinear(BaseEstimator):
    """Shared by both probes; `X` holds the left token's activations, then the right one's."""

    _loss: Literal["squared", "logistic"]

    def __init__(self, rank: int = 8, penalty: float = 1e-3, left: int | None = None, max_iter: int = 150) -> None:
        self.rank = rank
        self.penalty = penalty
        self.left = left
        self.max_iter = max_iter

    def _fit(self, X: Float64[np.ndarray, "sample d"], y: Float64[np.ndarray, " sample"]) -> None:
        if X.shape[1] < 2:
            raise ValueError(f"a pair needs at least 2 columns, got {X.shape[1]} feature(s)")
        split = X.shape[1] // 2 if self.left is None else self.left
        if not 0 < split < X.shape[1]:
            raise ValueError(f"left must leave columns on both sides of {X.shape[1]}, got {split}")
        mean, scale = X.mean(axis=0), X.std(axis=0)
        scale[scale <= 1e-6 * np.abs(mean)] = np.inf  # a column that does not vary says nothing
        scale[scale == 0] = np.inf
        tokens = torch.from_numpy(((X - mean) / scale).astype(np.float32))
        left, right = tokens[:, :split], tokens[:, split:]
        self.n_iter_, fitted = _minimise(
            left, right, torch.from_numpy(y.astype(np.float32)), self._loss, self.rank, self.penalty, self.max_iter
        )
        self.mean_, self.scale_, self.split_ = mean, scale, split
        self.intercept_, self.linear_, self.left_factors_, self.right_factors_ = (
            part.double().numpy() for part in fitted
        )

    @property
    def weights_(self) -> Float64[np.ndarray, "d_left d_right"]:
        """W, for standardised activations."""
        check_is_fitted(self)
        return self.left_factors_ @ self.right_factors_.T

    def _scores(self, X: np.ndarray) -> Float64[np.ndarray, " sample"]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        tokens = (X - self.mean_) / self.scale_
        left, right = tokens[:, : self.split_], tokens[:, self.split_ :]
        both = ((left @ self.left_factors_) * (right @ self.right_factors_)).sum(axis=1)
        return self.intercept_ + tokens @ self.linear_ + both


class BilinearRegressor(RegressorMixin, _Bilinear):
    """A value that belongs to a pair of tokens (say, the regret of a city at a state), in scikit-learn's manner.

    `X [sample, d]` holds the left token's activations in its first `left` columns (default: half), then the right
    one's. `penalty` is per sample. Fitted: `weights_` [d_left, d_right] and `linear_`, for standardised columns.

    >>> pairs = np.random.default_rng(0).normal(size=(400, 6))
    >>> product = pairs[:, 0] * pairs[:, 3]
    >>> BilinearRegressor(rank=1).fit(pairs, product).score(pairs, product) > 0.95
    True
    """

    _loss = "squared"

    def fit(self, X: np.ndarray, y: np.ndarray) -> "BilinearRegressor":
        """Fit to pairs X and values y."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        self.level_, spread = float(np.mean(y)), float(np.std(y))
        self.spread_ = spread if spread > 0 else 1.0
        self._fit(X, (y - self.level_) / self.spread_)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predicted values."""
        scores = self._scores(X)
        return self.level_ + self.spread_ * scores


class BilinearClassifier(ClassifierMixin, _Bilinear):
    """A yes or no that belongs to a pair of tokens (say, whether an edge is in the plan), in scikit-learn's manner.

    As `BilinearRegressor`, with logistic loss and two classes.

    >>> pairs = np.random.default_rng(0).normal(size=(400, 6))
    >>> same_sign = pairs[:, 0] * pairs[:, 3] > 0
    >>> BilinearClassifier(rank=1).fit(pairs, same_sign).score(pairs, same_sign) > 0.95
    True
    """

    _loss = "logistic"

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: np.ndarray, y: np.ndarray) -> "BilinearClassifier":
        """Fit to pairs X and two classes y."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        if type_of_target(y, input_name="y") != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {type_of_target(y)}.")
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a probe needs 2 classes, got {len(self.classes_)} class")
        self._fit(X, index.astype(np.float64))
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Log-odds of the second class."""
        return self._scores(X)

    def predict_proba(self, X: np.ndarray) -> Float64[np.ndarray, "sample 2"]:
        """Probabilities of both classes."""
        chance = expit(self._scores(X))
        return np.stack([1 - chance, chance], axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likelier class of each pair."""
        second = self._scores(X) > 0
        return self.classes_[second.astype(int)]


def _minimise(
    left: Float[Tensor, "sample l"],
    right: Float[Tensor, "sample r"],
    y: Float[Tensor, " sample"],
    loss: Literal["squared", "logistic"],
    rank: int,
    penalty: float,
    max_iter: int,
) -> tuple[int, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Iterations taken; intercept, linear weights [l + r], A [l, rank] and B [r, rank]; L-BFGS on the mean loss."""
    tokens = torch.cat([left, right], dim=1)
    mean = y.mean()
    intercept = mean if loss == "squared" else torch.logit(mean)
    residual, curvature = y - mean, 1.0 if loss == "squared" else float(mean * (1 - mean))
    u, s, v = torch.linalg.svd(left.T @ (residual[:, None] * right) / len(y) / curvature, full_matrices=False)
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    parameters = [intercept.clone(), torch.zeros(tokens.shape[1]), u[:, :rank] * root, v[:rank].T * root]
    parameters = [parameter.detach().contiguous().requires_grad_() for parameter in parameters]
    optimiser = torch.optim.LBFGS(parameters, max_iter=max_iter, history_size=10, line_search_fn="strong_wolfe")
    measure = (
        torch.nn.functional.mse_loss if loss == "squared" else torch.nn.functional.binary_cross_entropy_with_logits
    )

    def objective() -> Tensor:
        optimiser.zero_grad()
        constant, linear, a, b = parameters
        score = constant + tokens @ linear + ((left @ a) * (right @ b)).sum(1)
        total = measure(score, y) + penalty * sum(weights.square().sum() for weights in (linear, a, b))
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(objective)
    constant, linear, a, b = (parameter.detach() for parameter in parameters)
    return int(optimiser.state[parameters[0]]["n_iter"]), (constant, linear, a, b)
