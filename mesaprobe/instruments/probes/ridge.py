"""Ridge regression at all sites, targets, folds and penalties from one factorisation per site and training set.

Per fold f only the sums G_f = X'X, X'Y, Y'Y are kept. A training set is a sum of folds, so its standardised Gram
matrix is too (mean and scale come from the same sums), and one eigendecomposition C = V e V' answers every penalty,

    b(alpha) = V (e + alpha)^-1 V' X'y,      loss on fold f = y'y - 2 b'X_f'y + b'G_f b,

without another look at the data. The outer folds are predicted; the penalty of each is chosen by predicting the
other folds from one another (leave one fold out, nested), for every target apart. With K folds that takes
K (K - 1) / 2 + K factorisations a site, however many targets; a permuted target is one target more. All in float64.
Ridge penalties are scikit-learn's: alpha * |b|^2 against the sum of squares, on standardised columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64
from torch import Tensor

ALPHAS = (1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5)
"""Ridge penalties tried by default."""

_CONSTANT = 1e-12
"""A column whose variance is below this share of its mean square does not vary: it is left out."""

_BLOCK = 4_000_000
"""Target values that are held at once (32 MB)."""


@dataclass(frozen=True, eq=False)
class RidgeProbes:
    """Fitted ridge probes of every target at every site: prediction = activations @ weights + intercept."""

    weights: Float64[np.ndarray, "site d target"]
    """For activations as they are, not standardised."""
    intercept: Float64[np.ndarray, "site target"]
    alphas: Float64[np.ndarray, "site target"]
    """The penalty under which the folds predicted one another best."""

    def predict(self, activations: Float[np.ndarray, "site sample d"]) -> Float32[np.ndarray, "site sample target"]:
        """Predictions for other samples; activations may be mapped from a file."""
        pairs = zip(activations, self.weights, self.intercept, strict=True)
        return np.stack([(np.asarray(h, dtype=np.float64) @ w + b).astype(np.float32) for h, w, b in pairs])


@dataclass(frozen=True, eq=False)
class RidgeSweep:
    """Cross-fitted ridge probes: every sample is predicted by probes that saw no sample of its fold."""

    predictions: Float32[np.ndarray, "site sample target"] | None
    """None if they were not asked for."""
    alphas: Float64[np.ndarray, "site fold target"]
    """The penalty that the other folds chose for each outer fold."""
    r2: Float64[np.ndarray, "site target"]
    """1 - sum (y - prediction)^2 / sum (y - mean)^2 over all samples; below 0: worse than the mean."""
    null_r2: Float64[np.ndarray, "permutation site target"] | None
    """The same after each permutation of the targets' rows."""
    probes: RidgeProbes
    """Fitted to all samples, for data that took no part."""


def ridge_sweep(
    activations: Float[np.ndarray, "site sample d"],
    targets: Float[np.ndarray, "sample target"] | Float[np.ndarray, " sample"],
    folds: Int[np.ndarray, " sample"],
    *,
    alphas: Sequence[float] = ALPHAS,
    groups: Int[np.ndarray, " sample"] | None = None,
    permutations: Int[np.ndarray, "permutation sample"] | None = None,
    keep_predictions: bool = True,
    device: str = "cpu",
) -> RidgeSweep:
    """Cross-fit a ridge probe of every target at every site.

    `folds` names the fold of each sample, at least 3 of them; samples of one instance belong in one fold, which is
    checked if their instances are given as `groups`. `permutations` holds row indices: targets are read in that
    order, activations stay (for max-T, keep the strata in which rows are exchangeable). `activations` may be mapped
    from a file and are read one site at a time. Memory: predictions, plus one site in float64.

    >>> rng = np.random.default_rng(0)
    >>> h = rng.normal(size=(2, 500, 8))
    >>> sweep = ridge_sweep(h, h[1, :, 0] + rng.normal(size=500), np.arange(500) % 5)
    >>> (sweep.r2[:, 0] > 0.3).tolist()
    [False, True]
    """
    y = np.asarray(targets, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    fold = _checked(activations, y, folds, groups, alphas)
    order = np.argsort(fold, kind="stable")
    sizes = np.bincount(fold)
    spread = _deviations(y)
    parts, probes = [], []
    for values in activations:
        site = RidgeSite(values, order, sizes, alphas, device)
        part = site.cross_fit(y[order], keep_predictions)
        r2 = 1 - part.loss / spread
        null = None if permutations is None else np.stack(list(_nulls(site, y, spread, permutations, order)))
        whole = site.fit(y[order])
        parts.append((_unsorted(part.predictions, order), part.alphas, r2, null))
        probes.append((whole.weights, whole.intercept, whole.alphas))
    predictions, chosen, scores, nulls = zip(*parts, strict=True)
    return RidgeSweep(
        predictions=np.stack(predictions) if keep_predictions else None,
        alphas=np.stack(chosen),
        r2=np.stack(scores),
        null_r2=None if permutations is None else np.stack(nulls, axis=1),
        probes=RidgeProbes(*(np.stack(part) for part in zip(*probes, strict=True))),
    )


def _checked(
    activations: np.ndarray, y: np.ndarray, folds: np.ndarray, groups: np.ndarray | None, alphas: Sequence[float]
) -> Int64[np.ndarray, " sample"]:
    """Folds numbered from 0."""
    if activations.ndim != 3 or len(activations) == 0:
        raise ValueError(f"activations must be [site, sample, d] with at least one site, got {activations.shape}")
    samples = activations.shape[1]
    if y.shape[0] != samples or np.shape(folds) != (samples,):
        raise ValueError(f"activations have {samples} samples, targets {y.shape[0]}, folds {np.shape(folds)}")
    if not np.isfinite(y).all():
        raise ValueError("targets must be finite: leave out the samples for which a target is not defined")
    if min(alphas) <= 0:
        raise ValueError(f"alphas must be above 0, got {tuple(alphas)}")
    names, fold = np.unique(folds, return_inverse=True)
    if len(names) < 3:
        raise ValueError(f"nested cross-fitting needs at least 3 folds, got {len(names)}")
    if groups is not None:
        pairs = np.unique(np.stack([np.asarray(groups), fold]), axis=1)
        if len(np.unique(pairs[0])) < pairs.shape[1]:
            raise ValueError("samples of one group (instance) lie in several folds")
    return fold


def _deviations(y: np.ndarray) -> Float64[np.ndarray, " target"]:
    spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    if (spread <= 0).any():
        raise ValueError(f"target {int(np.argmin(spread))} is constant")
    return spread


def _unsorted(predictions: np.ndarray | None, order: np.ndarray) -> np.ndarray | None:
    if predictions is None:
        return None
    restored = np.empty_like(predictions)
    restored[order] = predictions
    return restored


def _nulls(
    site: "RidgeSite", y: np.ndarray, spread: np.ndarray, permutations: np.ndarray, order: np.ndarray
) -> Iterator[Float64[np.ndarray, " target"]]:
    """R2 per permutation, several at once."""
    samples, targets = y.shape
    at_once = max(1, _BLOCK // (samples * targets))
    for start in range(0, len(permutations), at_once):
        block = permutations[start : start + at_once]
        permuted = y[block[:, order]].transpose(1, 0, 2).reshape(samples, -1)
        loss = site.cross_fit(permuted, keep_predictions=False).loss
        yield from 1 - loss.reshape(len(block), targets) / spread


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """One site's probes, fitted to all its samples."""

    weights: Float64[np.ndarray, "d target"]
    intercept: Float64[np.ndarray, " target"]
    alphas: Float64[np.ndarray, " target"]


@dataclass(frozen=True, eq=False)
class _CrossFit:
    predictions: Float32[np.ndarray, "sample target"] | None
    alphas: Float64[np.ndarray, "fold target"]
    loss: Float64[np.ndarray, " target"]


@dataclass(frozen=True, eq=False)
class _Targets:
    """Sums of one block of targets, centred as a whole, per fold."""

    level: Float64[Tensor, " target"]
    """Their means, taken off."""
    cross: Float64[Tensor, "fold d target"]
    """X_f' y_f."""
    sums: Float64[Tensor, "fold target"]
    squares: Float64[Tensor, "fold target"]


class RidgeSite:
    """The sums of one site per fold, and the factorisation of each training set that nested folds need.

    Samples are given in the order of their folds, which have the given sizes.
    """

    def __init__(
        self, values: np.ndarray, order: np.ndarray, sizes: np.ndarray, alphas: Sequence[float], device: str
    ) -> None:
        x = torch.from_numpy(np.asarray(values, dtype=np.float64)[order]).to(device)
        if not torch.isfinite(x).all():
            raise ValueError("activations hold NaN or infinite values")
        self.level = x.mean(0)
        self.x = x - self.level  # so that no sum of squares is mostly a mean
        self.sizes = sizes.tolist()
        parts = self.x.split(self.sizes)
        self.grams = torch.stack([part.T @ part for part in parts])  # [fold, d, d]
        self.sums = torch.stack([part.sum(0) for part in parts])  # [fold, d]
        self.counts = torch.tensor(self.sizes, dtype=torch.float64, device=device)
        self.alphas = torch.tensor(list(alphas), dtype=torch.float64, device=device)
        self._known: dict[frozenset[int], _Factor] = {}

    def factor(self, left_out: frozenset[int]) -> "_Factor":
        """Of the training set of all folds but these."""
        if left_out not in self._known:
            kept = [fold for fold in range(len(self.sizes)) if fold not in left_out]
            count, mean = self.counts[kept].sum(), self.sums[kept].sum(0) / self.counts[kept].sum()
            gram = self.grams[kept].sum(0) - count * mean[:, None] * mean
            variance = gram.diagonal() / count
            varies = variance > _CONSTANT * (variance + (mean + self.level) ** 2)
            inverse = torch.where(varies, variance.clamp(min=1e-300).rsqrt(), 0.0)
            values, vectors = torch.linalg.eigh(gram * inverse[:, None] * inverse)
            self._known[left_out] = _Factor(kept, mean, inverse[:, None] * vectors, values.clamp(min=0))
        return self._known[left_out]

    def targets(self, y: Float64[np.ndarray, "sample target"]) -> _Targets:
        tensor = torch.from_numpy(y).to(self.x.device)
        level = tensor.mean(0)
        pairs = list(zip(self.x.split(self.sizes), (tensor - level).split(self.sizes), strict=True))
        return _Targets(
            level,
            torch.stack([part.T @ target for part, target in pairs]),
            torch.stack([target.sum(0) for _, target in pairs]),
            torch.stack([target.square().sum(0) for _, target in pairs]),
        )

    def rotated(self, factor: "_Factor", known: _Targets) -> tuple[Tensor, Tensor]:
        """X'y of the training set in its eigenbasis [d, target], and the mean of y there [target]."""
        total = known.sums[factor.kept].sum(0)
        cross = known.cross[factor.kept].sum(0) - factor.mean[:, None] * total
        return factor.basis.T @ cross, total / self.counts[factor.kept].sum()

    def losses(
        self, factor: "_Factor", fold: int, known: _Targets, weights: Float64[Tensor, "d *alpha target"], centre: Tensor
    ) -> Float64[Tensor, "*alpha target"]:
        """Sum of squared errors on a fold of probes with these weights in the factor's eigenbasis."""
        count, mean, sums = self.counts[fold], factor.mean, self.sums[fold]
        gram = self.grams[fold] - sums[:, None] * mean - mean[:, None] * sums + count * mean[:, None] * mean
        gram = factor.basis.T @ gram @ factor.basis
        off_centre = known.sums[fold] - count * centre
        cross = factor.basis.T @ (known.cross[fold] - sums[:, None] * centre - mean[:, None] * off_centre)
        squares = known.squares[fold] - 2 * centre * known.sums[fold] + count * centre.square()
        fitted = (gram @ weights.flatten(1)).reshape(weights.shape)
        linear = torch.einsum("dt,d...t->...t", cross, weights)
        return squares - 2 * linear + (weights * fitted).sum(0)

    def cross_fit(self, y: Float64[np.ndarray, "sample target"], keep_predictions: bool) -> _CrossFit:
        """Predict every fold from the others, with the penalty that those others choose."""
        known, count = self.targets(y), len(self.sizes)
        inner = self._inner_losses(known)
        predictions, chosen, loss = [], [], torch.zeros(y.shape[1], dtype=torch.float64, device=self.x.device)
        for fold in range(count):
            factor = self.factor(frozenset([fold]))
            alpha = self.alphas[inner[fold].argmin(0)]
            rotated, centre = self.rotated(factor, known)
            weights = rotated / (factor.values[:, None] + alpha)
            loss += self.losses(factor, fold, known, weights, centre)
            chosen.append(alpha)
            if keep_predictions:
                centred = self.x.split(self.sizes)[fold] - factor.mean
                predictions.append(centred @ (factor.basis @ weights) + centre + known.level)
        return _CrossFit(
            torch.cat(predictions).float().cpu().numpy() if keep_predictions else None,
            torch.stack(chosen).cpu().numpy(),
            loss.cpu().numpy(),
        )

    def fit(self, y: Float64[np.ndarray, "sample target"]) -> RidgeFit:
        """Fit to all samples, with the penalty under which each fold is predicted best from all others."""
        known, folds = self.targets(y), len(self.sizes)
        total = torch.zeros(len(self.alphas), len(known.level), dtype=torch.float64, device=self.x.device)
        if len(self.alphas) > 1 and folds > 1:
            for fold in range(folds):
                factor = self.factor(frozenset([fold]))
                total += self.losses(factor, fold, known, *self._at_all_alphas(factor, known))
        alpha, factor = self.alphas[total.argmin(0)], self.factor(frozenset())
        rotated, centre = self.rotated(factor, known)
        weights = factor.basis @ (rotated / (factor.values[:, None] + alpha))
        intercept = known.level + centre - (self.level + factor.mean) @ weights
        return RidgeFit(*(part.cpu().numpy() for part in (weights, intercept, alpha)))

    def _at_all_alphas(self, factor: "_Factor", known: _Targets) -> tuple[Tensor, Tensor]:
        """Weights [d, alpha, target] in the eigenbasis of a training set, and the mean of y there."""
        rotated, centre = self.rotated(factor, known)
        return rotated[:, None] / (factor.values[:, None, None] + self.alphas[:, None]), centre

    def _inner_losses(self, known: _Targets) -> Float64[Tensor, "fold alpha target"]:
        """For every outer fold: the other folds' losses, each predicted from the rest without the outer one."""
        count = len(self.sizes)
        total = torch.zeros(count, len(self.alphas), len(known.level), dtype=torch.float64, device=self.x.device)
        if len(self.alphas) == 1:
            return total
        for first in range(count):
            for second in range(first):
                factor = self.factor(frozenset([first, second]))
                weights, centre = self._at_all_alphas(factor, known)
                total[first] += self.losses(factor, second, known, weights, centre)
                total[second] += self.losses(factor, first, known, weights, centre)
        return total


@dataclass(frozen=True, eq=False)
class _Factor:
    """A training set's standardised Gram matrix, diagonalised."""

    kept: list[int]
    """Its folds."""
    mean: Float64[Tensor, " d"]
    basis: Float64[Tensor, "d eigenvector"]
    """Eigenvectors, divided by the columns' scales: weights in it apply to centred columns."""
    values: Float64[Tensor, " eigenvector"]
