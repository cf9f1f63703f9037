"""Description length of labels by probes that learn as they go (Voita and Titov 2020; method.md section 4).

Labels are sent block by block, in `statistics.online_blocks` of instances; each block is coded by the probe that all
blocks before it have taught. So a code pays for samples that a probe needs, and for what it believes wrongly: between
two sites (or two targets) of equal score the shorter code is the easier one to read. A tie-breaker, never a gate.

Three things keep a code honest when little has been sent. A probe fitted to `m` samples is mixed with the prior as
m : c (c classes; c = 2 for a mean and a variance), which for a probe without activations is Laplace's rule. From fewer
than `FEWEST` instances nothing is fitted. And the base, which the code is compared with, learns online as well: it is
the same probe without activations, so that frequencies of classes, or what `known` says, are not credited to them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from scipy.stats import norm

from mesaprobe.instruments.probes.ridge import ALPHAS, ridge_sweep
from mesaprobe.instruments.probes.softmax import PENALTIES, fit_softmax_probe
from mesaprobe.statistics import compression, instance_folds, online_blocks, online_code_length
from mesaprobe.statistics.mdl import FRACTIONS

FEWEST = 4
"""Instances from which a probe is fitted at all."""
FOLDS = 3
"""Folds of what has been sent, by instance, that choose the penalty of a ridge probe and tell its variance."""

_Densities = Callable[[Int64[np.ndarray, " train"], Int64[np.ndarray, " block"]], Float64[np.ndarray, " block"]]
"""Log-probabilities (or log-densities) of a block by what was learnt from `train`."""


@dataclass(frozen=True, eq=False)
class OnlineCode:
    """Code lengths in bits, for each of several random orders of the instances."""

    bits: Float64[np.ndarray, "site order"]
    """Given the activations of a site."""
    base_bits: Float64[np.ndarray, " order"]
    """Given what is known without them."""
    prior_bits: float
    """Without learning anything: the uniform code of classes, or that of `known`, or of one normal distribution."""

    @property
    def saved(self) -> Float64[np.ndarray, " site"]:
        """Bits that the activations save, mean over orders; below 0 where learning to use them costs more."""
        return (self.base_bits - self.bits).mean(axis=1)

    @property
    def compression(self) -> Float64[np.ndarray, " site"]:
        """base_bits / bits - 1, mean over orders (of values it depends on the precision that was asked for)."""
        return compression(self.base_bits, self.bits).mean(axis=1)


def online_class_code(
    activations: Float[np.ndarray, "site sample d"],
    labels: Shaped[np.ndarray, " sample"],
    groups: Shaped[np.ndarray, " sample"],
    *,
    known: Float[np.ndarray, "sample class"] | None = None,
    seed: int = 0,
    orders: int = 5,
    fractions: Sequence[float] = FRACTIONS,
    penalties: tuple[float, ...] = PENALTIES,
) -> OnlineCode:
    """Bits to send the classes `labels`, by softmax probes of each site (`fit_softmax_probe`).

    `groups` names the instance of a sample; an instance is sent whole. `known` holds log-odds of the classes in sorted
    order that are there already (a baseline's, the output's; -inf where a class is impossible): the probe adds to
    them, and the prior is theirs; without, the prior is uniform. All sites are sent in the same orders.
    Raises ValueError on shapes that do not fit, fewer than 2 classes, or a label that `known` calls impossible.

    >>> rng = np.random.default_rng(0)
    >>> h = rng.normal(size=(2, 600, 4))  # the label stands in the first site and not in the second
    >>> code = online_class_code(h, h[0, :, 0] > 0, np.arange(600) // 2)
    >>> round(code.prior_bits), (code.compression > 1).tolist(), (code.saved > 0).tolist()
    (600, [True, False], [True, False])
    """
    classes, index = np.unique(labels, return_inverse=True)
    _check(activations, index, groups)
    if len(classes) < 2:
        raise ValueError(f"a code of classes needs at least 2 of them, got {len(classes)}")
    prior = np.zeros((len(index), len(classes))) if known is None else np.asarray(known, dtype=np.float64)
    if prior.shape != (len(index), len(classes)):
        raise ValueError(f"known must be [sample, class]: expected {(len(index), len(classes))}, got {prior.shape}")
    allowed = torch.from_numpy(np.isfinite(prior))
    label, group = torch.from_numpy(index), torch.from_numpy(np.unique(groups, return_inverse=True)[1])
    if not allowed[torch.arange(len(label)), label].all():
        raise ValueError("known calls a label impossible that occurs")
    offset = torch.from_numpy(prior).float().masked_fill(~allowed, -torch.inf)
    prior_log = offset.double().log_softmax(-1)[torch.arange(len(label)), label].numpy()

    def densities(h: np.ndarray, tried: tuple[float, ...]) -> _Densities:
        tokens = torch.from_numpy(np.asarray(h, dtype=np.float32))[None]

        def after(train: np.ndarray, block: np.ndarray) -> np.ndarray:
            probe = fit_softmax_probe(
                tokens[:, train], label[train], group[train], allowed[train], offset=offset[train], penalties=tried
            )
            found = probe.log_probabilities(tokens[:, block], allowed[block], offset[block])[0].double()
            return found[torch.arange(len(block)), label[block]].numpy()

        return after

    nothing = densities(np.zeros((len(index), 1)), penalties[:1])  # an intercept alone
    sites = [densities(h, penalties) for h in activations]
    return _codes(nothing, sites, prior_log, groups, len(classes), seed, orders, fractions)


def online_value_code(
    activations: Float[np.ndarray, "site sample d"],
    values: Float[np.ndarray, " sample"],
    groups: Shaped[np.ndarray, " sample"],
    *,
    precision: float,
    seed: int = 0,
    orders: int = 5,
    fractions: Sequence[float] = FRACTIONS,
    alphas: Sequence[float] = ALPHAS,
) -> OnlineCode:
    """Bits to send `values` rounded to `precision` (in their own units), by ridge probes of each site.

    A block is coded by normal distributions around what the probe predicts, with the variance of its errors on folds
    of what was sent before. To condition on Z, give the residuals y - g(Z). The prior is one normal distribution with
    the mean and deviation of all values, which every code is told. `precision` should be well below that deviation;
    it adds the same to all codes, so `saved` does not depend on it.
    Raises ValueError on shapes that do not fit, constant values, or a precision that is not above 0.

    >>> rng = np.random.default_rng(0)
    >>> h = rng.normal(size=(2, 600, 4))
    >>> code = online_value_code(h, h[0, :, 0] + rng.normal(size=600), np.arange(600) // 2, precision=0.01)
    >>> bool(200 < code.saved[0] < 300), bool(code.saved[1] < 10)  # of 600 * log2(2) / 2 bits
    (True, True)
    """
    y = np.asarray(values, dtype=np.float64)
    _check(activations, y, groups)
    if precision <= 0:
        raise ValueError(f"precision must be above 0, got {precision}")
    if np.ptp(y) == 0:
        raise ValueError("values are constant: there is nothing to send")
    prior_log = norm.logpdf(y, y.mean(), y.std()) + np.log(precision)

    def densities(h: np.ndarray) -> _Densities:
        def after(train: np.ndarray, block: np.ndarray) -> np.ndarray:
            if np.ptp(y[train]) == 0:
                return prior_log[block]
            fold = instance_folds(np.asarray(groups)[train], FOLDS, np.random.default_rng([seed, 1]))
            sweep = ridge_sweep(h[None, train], y[train], fold, alphas=alphas, keep_predictions=False)
            centre = sweep.probes.predict(h[None, block])[0, :, 0].astype(np.float64)
            variance = (1 - float(sweep.r2[0, 0])) * y[train].var()
            return norm.logpdf(y[block], centre, np.sqrt(max(variance, precision**2 / 12))) + np.log(precision)

        return after

    nothing = densities(np.zeros((len(y), 1)))  # a mean alone
    return _codes(nothing, [densities(h) for h in activations], prior_log, groups, 2, seed, orders, fractions)


def _check(activations: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> None:
    if activations.ndim != 3 or len(activations) == 0 or targets.shape != activations.shape[1:2]:
        raise ValueError(
            f"activations must be [site, sample, d] with one target a sample; got {activations.shape}, {targets.shape}"
        )
    if np.shape(groups) != targets.shape:
        raise ValueError(
            f"groups must name the instance of each sample: expected {targets.shape}, got {np.shape(groups)}"
        )


def _codes(
    nothing: _Densities,
    sites: Sequence[_Densities],
    prior_log: Float64[np.ndarray, " sample"],
    groups: np.ndarray,
    prior_weight: int,
    seed: int,
    orders: int,
    fractions: Sequence[float],
) -> OnlineCode:
    blocks = online_blocks(groups, np.random.default_rng(seed), orders=orders, fractions=fractions)

    def bits(densities: _Densities) -> Float64[np.ndarray, " order"]:
        def code(train: np.ndarray, block: np.ndarray) -> float:
            prior = prior_log[block]
            if len(np.unique(np.asarray(groups)[train])) < FEWEST:
                return -float(prior.sum())
            share = prior_weight / (len(train) + prior_weight)
            return -float(np.logaddexp(np.log1p(-share) + densities(train, block), np.log(share) + prior).sum())

        return online_code_length(code, blocks) / np.log(2)

    return OnlineCode(np.stack([bits(site) for site in sites]), bits(nothing), -float(prior_log.sum()) / np.log(2))
