"""Max-T tests: one p-value for a whole table of cells, and adjusted ones for each (Westfall and Young 1993).

Under the null of a table the largest of its statistics is compared with the largest under each permutation, so that
the chance of any false alarm in the table (layers x positions x targets) is at most alpha, whatever the dependence
between cells. Two ways to permute:

- `residual_max_t`, fast: probes were fitted on other instances and give predictions of the residuals here. Only the
  residuals move, so a permutation costs a matrix product and no fit.
- `permutation_null`, general: any statistic, computed anew (a probe fitted anew) for each permutation of residuals.

Predictions that were cross-fitted on the very residuals under test depend on them and need the second way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from mesaprobe.statistics.blocks import Blocks

CHUNK_BYTES = 64 * 2**20
"""Working memory of a chunk of permutations."""


class NullTable(NamedTuple):
    """A table of statistics and the same table under each permutation (or flip)."""

    observed: Float64[np.ndarray, "*cell"]
    null: Float64[np.ndarray, "permutation *cell"]


@dataclass(frozen=True, eq=False)
class MaxT:
    """p-values of a table of cells; large statistics speak against the null (one-sided)."""

    p: float
    """Of the whole table: chance of a maximum at least as large (family-wise error rate)."""
    adjusted: Float64[np.ndarray, "*cell"]
    """Of each cell, adjusted for all cells."""
    raw: Float64[np.ndarray, "*cell"]
    """Of each cell alone, unadjusted."""
    observed: Float64[np.ndarray, "*cell"]
    maxima: Float64[np.ndarray, " permutation"]
    """The largest statistic of the table under each permutation."""

    def critical(self, alpha: float = 0.05) -> float:
        """What the largest statistic must exceed for p <= alpha: what the test could have seen (see `power`)."""
        ranked = np.sort(self.maxima)[::-1]
        allowed = int(np.floor(alpha * (1 + len(ranked)) + 1e-9))  # as many maxima, the observed one included
        return float(ranked[allowed - 1]) if allowed >= 1 else float("inf")


def max_t(table: NullTable, *, step_down: bool = False, standardise: bool = False) -> MaxT:
    """Single-step max-T p-values (1 + exceedances) / (1 + permutations), or step-down ones, which are smaller.

    Cells must share a scale, else the widest cell decides alone: give studentised statistics, or `standardise`, which
    scales every cell by its mean and deviation over observed and permuted values together (still exact).

    >>> null = np.random.default_rng(0).normal(size=(999, 4))
    >>> found = max_t(NullTable(np.array([6.0, 0.0, 0.0, 0.0]), null))
    >>> found.p, int(found.adjusted.argmin()), bool(found.adjusted[1] > found.raw[1])
    (0.001, 0, True)
    """
    shape = np.shape(table.observed)
    every = np.concatenate([np.reshape(table.observed, (1, -1)), np.reshape(table.null, (len(table.null), -1))])
    if every.shape[1] == 0 or not np.isfinite(every).all():
        raise ValueError("a max-T test needs at least one cell, and finite statistics everywhere")
    if standardise:
        spread = every.std(axis=0)
        every = (every - every.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    slack = 1e-9 * np.abs(every).max()  # a permutation that changes nothing must count as a tie
    observed, null = every[0], every[1:]
    order = np.argsort(-observed, kind="stable")
    # Column k: the maximum over the cells ranked k and below. Column 0 is the maximum of all.
    tails = np.maximum.accumulate(null[:, order][:, ::-1], axis=1)[:, ::-1]
    rivals = tails if step_down else tails[:, :1]
    ranked = (1 + (rivals >= observed[order] - slack).sum(axis=0)) / (1 + len(null))
    adjusted = np.empty_like(ranked)
    adjusted[order] = np.maximum.accumulate(ranked)
    raw = (1 + (null >= observed - slack).sum(axis=0)) / (1 + len(null))
    return MaxT(
        float(adjusted.min()), adjusted.reshape(shape), raw.reshape(shape), observed.reshape(shape), tails[:, 0]
    )


def residual_max_t(
    residuals: Float64[np.ndarray, "sample target"],
    predictions: Float64[np.ndarray, "site sample target"],
    blocks: Blocks,
    rng: np.random.Generator,
    *,
    permutations: int = 999,
    step_down: bool = False,
) -> MaxT:
    """Do probes predict the residuals r = y - g(Z) of instances they never saw? Cells are [site, target].

    The statistic is t = sum_i G_i / sqrt(sum_i G_i^2), where G_i = sum of r times the prediction over the samples of
    instance i, both less their mean in the slot. It is the first-order gain in squared error, and for r = label -
    probability and predicted changes of log-odds the gain in log loss. Studentising over instances keeps the test
    right when the spread of r goes with the size of the predictions (DiCiccio and Romano 2017). Predictions in which
    Z is still readable meet what g(Z) missed: see `residualised_predictions`.

    >>> from mesaprobe.statistics.blocks import instance_blocks
    >>> rng = np.random.default_rng(0)
    >>> h = rng.normal(size=(2, 300, 1))  # the second site predicts the residual, the first does not
    >>> found = residual_max_t(h[1] + rng.normal(size=(300, 1)), h, instance_blocks(np.arange(300) // 3), rng)
    >>> found.p, found.adjusted.ravel() < 0.05
    (0.001, array([False,  True]))
    """
    null = residual_null(residuals, predictions, blocks, rng, permutations=permutations)
    return max_t(null, step_down=step_down)


def residual_null(
    residuals: Float64[np.ndarray, "sample target"],
    predictions: Float64[np.ndarray, "site sample target"],
    blocks: Blocks,
    rng: np.random.Generator,
    *,
    permutations: int = 999,
) -> NullTable:
    """The studentised gains of `residual_max_t`, observed and permuted; all cells share the permutations.

    Targets that are defined on other samples need a call of their own; tables joined along the cells are then
    treated as independent, which is conservative for the joint maximum when they are positively dependent.
    """
    if predictions.ndim != 3 or predictions.shape[1:] != residuals.shape:
        raise ValueError(
            f"predictions must be [site, sample, target] for residuals {residuals.shape}; got {predictions.shape}"
        )
    own = np.arange(len(blocks.kinds))[None]
    sources = np.concatenate([own, blocks.permutations(rng, permutations)])
    statistics = np.empty((len(sources), len(predictions), residuals.shape[1]))
    for target in range(residuals.shape[1]):
        r = blocks.centred(residuals[:, target])
        guesses = blocks.centred(predictions[:, :, target].T)  # [instance, slot, site]
        chunk = max(1, CHUNK_BYTES // (8 * len(r) * (len(predictions) + r.shape[1])))
        for start in range(0, len(sources), chunk):
            moved = r[sources[start : start + chunk]].transpose(1, 0, 2)
            gains = np.matmul(moved, guesses)  # [instance, permutation, site]
            statistics[start : start + chunk, :, target] = studentised(gains, axis=0)
    return NullTable(statistics[0], statistics[1:])


def studentised(gains: Float64[np.ndarray, "*axes"], axis: int = -1) -> Float64[np.ndarray, "*rest"]:
    """Sum over independent instances divided by its standard error under a mean of 0; 0 where all gains are 0.

    >>> studentised(np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    total, square = gains.sum(axis=axis), np.square(gains).sum(axis=axis)
    return np.divide(total, np.sqrt(square), out=np.zeros_like(total), where=square > 0)


def permutation_null(
    statistic: Callable[[Float64[np.ndarray, "sample *rest"]], Float64[np.ndarray, "*cell"]],
    residuals: Float64[np.ndarray, "sample *rest"],
    blocks: Blocks,
    rng: np.random.Generator,
    *,
    permutations: int = 999,
) -> NullTable:
    """`statistic(residuals)` observed, and of residuals whose instance blocks are permuted within strata.

    >>> from mesaprobe.statistics.blocks import instance_blocks
    >>> h = np.array([0.1, -1.0, 0.7, 2.0, -0.4, 1.1])
    >>> null = permutation_null(lambda r: h @ r, h[:, None], instance_blocks(np.arange(6)), np.random.default_rng(0))
    >>> max_t(null).p < 0.01
    True
    """
    observed = np.asarray(statistic(residuals), dtype=np.float64)
    null = np.empty((permutations, *observed.shape))
    for k, sources in enumerate(blocks.permutations(rng, permutations)):
        null[k] = statistic(blocks.permute(residuals, sources))
    return NullTable(observed, null)
