"""Linear probes of choices: softmax regression, fitted at many sites and penalties at once.

The fit is exact and needs one factorisation a site. Boehning (1992) bounds the curvature of the multinomial
likelihood by X'X / 2 for every class, so in the eigenbasis of X'X the preconditioned gradient step is a division,
shared by all penalties; Nesterov's momentum with restarts (O'Donoghue and Candes 2015) does the rest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""L2 penalties tried by default, per sample, on standardised activations."""


@dataclass(frozen=True, eq=False)
class SoftmaxProbe:
    """Fitted probes, one per site: log p(class) = offset + standardised activations @ weights + intercept."""

    mean: Float[Tensor, "site d"]
    scale: Float[Tensor, "site d"]
    weights: Float[Tensor, "site d n"]
    intercept: Float[Tensor, "site n"]
    penalty: Float[Tensor, " site"]

    def log_probabilities(
        self,
        activations: Float[Tensor, "site sample d"],
        allowed: Bool[Tensor, "sample n"],
        offset: Float[Tensor, "sample n"] | None = None,
    ) -> Float[Tensor, "site sample n"]:
        """Log-probabilities over the allowed classes (-inf elsewhere)."""
        standardised = (activations - self.mean[:, None]) / self.scale[:, None]
        logits = standardised @ self.weights + self.intercept[:, None]
        if offset is not None:
            logits = logits + offset
        return logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)


def fit_softmax_probe(
    activations: Float[Tensor, "site sample d"],
    labels: Int[Tensor, " sample"],
    groups: Int[Tensor, " sample"],
    allowed: Bool[Tensor, "sample n"],
    *,
    offset: Float[Tensor, "sample n"] | None = None,
    penalties: tuple[float, ...] = PENALTIES,
    iterations: int = 80,
    chunk: int = 4,
) -> SoftmaxProbe:
    """Softmax regression of `labels` on activations, separately at every site.

    `allowed` marks the classes that are possible for a sample; the label is one of them. `offset` holds
    log-odds that are known already (a baseline's), which the probe only adds to: what it then gains is usable
    information beyond the baseline (Hewitt et al. 2021). The penalty of each site is the one with the smallest
    log loss on a quarter of the groups (instances) that the fit does not see; then all samples are fitted again.
    `chunk` sites are fitted at a time, which bounds the memory.
    """
    if len(activations) == 0:
        raise ValueError("activations must hold at least one site")
    if not allowed[torch.arange(len(labels)), labels].all():
        raise ValueError("every label must be one of the allowed classes of its sample")
    known = torch.zeros(allowed.shape) if offset is None else offset
    known = known.float().masked_fill(~allowed, -torch.inf)
    unique = torch.unique(groups)
    held_out = torch.isin(groups, unique[3::4] if len(unique) > 3 else unique[-1:])
    parts = []
    for sites in activations.split(chunk):
        penalty = torch.full((len(sites),), penalties[0])
        if len(penalties) > 1:
            trial = _fit(
                sites[:, ~held_out], labels[~held_out], known[~held_out], torch.tensor(penalties), iterations // 2
            )
            losses = _log_losses(trial, sites[:, held_out], labels[held_out], known[held_out])
            penalty = torch.tensor(penalties)[losses.argmin(dim=1)]
        mean, scale, beta = _fit(sites, labels, known, penalty[:, None], iterations)
        parts.append((mean, scale, beta[:, 0, :-1], beta[:, 0, -1], penalty))
    return SoftmaxProbe(*(torch.cat(values) for values in zip(*parts, strict=True)))


def cross_fit_softmax(
    activations: Float[Tensor, "site sample d"] | np.ndarray,
    labels: Int[Tensor, " sample"],
    folds: Int[Tensor, " sample"] | np.ndarray,
    groups: Int[Tensor, " sample"] | np.ndarray,
    allowed: Bool[Tensor, "sample n"],
    *,
    offset: Float[Tensor, "sample n"] | None = None,
    penalties: tuple[float, ...] = PENALTIES,
    iterations: int = 80,
) -> Float[Tensor, "site sample n"]:
    """Log-probabilities of every sample by probes that saw no sample of its fold; -inf where not allowed.

    Every fold has its own penalty, chosen on groups (instances) of the other folds. Groups must not straddle folds.
    """
    fold, group = torch.as_tensor(folds), torch.as_tensor(groups)
    if len(torch.unique(torch.stack([fold, group]), dim=1).T) > len(torch.unique(group)):
        raise ValueError("samples of one group (instance) lie in several folds")
    parts = []
    for values in activations:
        site = torch.as_tensor(np.asarray(values, dtype=np.float32))[None]
        result = torch.empty(allowed.shape)
        for held_out in torch.unique(fold):
            kept, tested = fold != held_out, fold == held_out
            known = (None, None) if offset is None else (offset[kept], offset[tested])
            probe = fit_softmax_probe(
                site[:, kept],
                labels[kept],
                group[kept],
                allowed[kept],
                offset=known[0],
                penalties=penalties,
                iterations=iterations,
            )
            result[tested] = probe.log_probabilities(site[:, tested], allowed[tested], known[1])[0]
        parts.append(result)
    return torch.stack(parts)


def _fit(
    x: Float[Tensor, "site sample d"],
    labels: Int[Tensor, " sample"],
    known: Float[Tensor, "sample n"],
    penalties: Tensor,
    iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and scale [site, d] and weights [site, penalty, d + 1, n], the intercept last and not penalised.

    `penalties` is [penalty], the same at each site, or [site, penalty].
    """
    site, sample, width = x.shape
    mean, scale = x.mean(1), x.std(1, correction=0).clamp(min=1e-6)
    design = torch.cat([(x - mean[:, None]) / scale[:, None], torch.ones(site, sample, 1)], dim=2)
    # The intercept is orthogonal to the centred columns, so it is an eigenvector of its own.
    values, vectors = torch.linalg.eigh(design[:, :, :-1].mT @ design[:, :, :-1])
    basis = torch.zeros(site, width + 1, width + 1)
    basis[:, :-1, :-1], basis[:, -1, -1] = vectors, 1.0
    rotated = design @ basis
    curvature = torch.cat([values.clamp(min=0), torch.full((site, 1), float(sample))], dim=1) / 2
    shrink = sample * penalties.expand(site, -1)[:, :, None] * torch.cat([torch.ones(width), torch.zeros(1)])
    step = 1 / (curvature[:, None] + shrink).clamp(min=1e-9)  # [site, penalty, d + 1]
    target = torch.nn.functional.one_hot(labels, known.shape[1]).float()
    weights = torch.zeros(site, shrink.shape[1], width + 1, known.shape[1])
    momentum, age = weights, torch.zeros(site, shrink.shape[1], 1, 1)
    for _ in range(iterations):
        chance = (torch.einsum("std,spdn->sptn", rotated, momentum) + known).softmax(-1)
        gradient = torch.einsum("std,sptn->spdn", rotated, chance - target) + shrink[..., None] * momentum
        moved = momentum - step[..., None] * gradient
        restart = ((momentum - moved) * (moved - weights)).sum((2, 3), keepdim=True) > 0
        age = torch.where(restart, 0.0, age + 1)
        weights, momentum = moved, moved + age / (age + 3) * (moved - weights)
    return mean, scale, torch.einsum("sdk,spkn->spdn", basis, weights)


def _log_losses(
    fitted: tuple[Tensor, Tensor, Tensor], x: Tensor, labels: Tensor, known: Tensor
) -> Float[Tensor, "site penalty"]:
    mean, scale, beta = fitted
    standardised = (x - mean[:, None]) / scale[:, None]
    logits = torch.einsum("std,spdn->sptn", standardised, beta[:, :, :-1]) + beta[:, :, -1:, :] + known
    picked = logits.log_softmax(-1)[:, :, torch.arange(len(labels)), labels]
    return -picked.mean(-1)


class LinearProbe(ClassifierMixin, BaseEstimator):
    """Softmax regression on the activations of one site, in scikit-learn's manner.

    A thin face of `fit_softmax_probe` for notebooks: `fit(X [sample, d], y, groups=None)`, `predict`,
    `predict_proba`, `score` (accuracy). With `groups` (the instance of each sample) the penalty is chosen on
    whole instances. Fitted: `classes_`, `coef_` [n, d] and `intercept_` [n] for raw activations, `penalty_`.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 5))
    >>> y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 1)
    >>> LinearProbe().fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.8
    True
    """

    def __init__(self, penalties: tuple[float, ...] = PENALTIES, iterations: int = 80) -> None:
        self.penalties = penalties
        self.iterations = iterations

    def fit(self, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> "LinearProbe":
        """Fit to activations X [sample, d] and labels y [sample]."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a probe needs at least 2 classes, got {len(self.classes_)} class")
        group = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
        allowed = torch.ones(len(y), len(self.classes_), dtype=torch.bool)
        fitted = fit_softmax_probe(
            torch.from_numpy(X)[None],
            torch.from_numpy(index),
            torch.from_numpy(group),
            allowed,
            penalties=self.penalties,
            iterations=self.iterations,
        )
        self.coef_ = (fitted.weights[0] / fitted.scale[0][:, None]).T.numpy()
        self.intercept_ = fitted.intercept[0].numpy() - self.coef_ @ fitted.mean[0].numpy()
        self.penalty_ = float(fitted.penalty[0])
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities [sample, class]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        logits = torch.from_numpy(X @ self.coef_.T + self.intercept_)
        return logits.softmax(-1).numpy()

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most likely class of each sample."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
