"""Bootstrap intervals with the instance as the unit of resampling (method.md section 4)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped

CHUNK = 100
"""Resamples drawn at a time."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float

    @property
    def ci(self) -> tuple[float, float]:
        """Lower and upper end of the interval."""
        return self.low, self.high


@dataclass(frozen=True, eq=False)
class Estimates:
    """A table of numbers with their intervals, from the same resamples."""

    value: Float64[np.ndarray, "*cell"]
    low: Float64[np.ndarray, "*cell"]
    high: Float64[np.ndarray, "*cell"]
    error: Float64[np.ndarray, "*cell"]
    """Standard error: deviation over resamples."""

    def __getitem__(self, cell: int | tuple[int, ...]) -> Estimate:
        """One cell."""
        return Estimate(float(self.value[cell]), float(self.low[cell]), float(self.high[cell]))


def bootstrap_mean(
    values: Float64[np.ndarray, " instance"],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Mean over instances with its percentile bootstrap interval.

    `values` holds one number per instance (average states within an instance first, or use
    `bootstrap_ratio`); of a paired difference, give the differences. Raises ValueError on an empty sample.

    >>> estimate = bootstrap_mean(np.array([1.0, 2.0, 3.0]), np.random.default_rng(0))
    >>> estimate.value, estimate.low <= 2.0 <= estimate.high
    (2.0, True)
    """
    return bootstrap_ratio(
        np.asarray(values, dtype=np.float64), np.ones(len(values)), rng, resamples=resamples, level=level
    )


def bootstrap_ratio(
    totals: Float64[np.ndarray, " instance"],
    counts: Float64[np.ndarray, " instance"],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """sum(totals) / sum(counts), e.g. right answers over states, resampling whole instances."""
    return bootstrap_ratios(totals, counts, rng, resamples=resamples, level=level)[()]


def bootstrap_ratios(
    totals: Float64[np.ndarray, "*cell instance"],
    counts: Float64[np.ndarray, "*cell instance"],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimates:
    """sum(totals) / sum(counts) of many cells on the same resamples; `counts` may be shared by all ([instance]).

    >>> found = bootstrap_ratios(np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([2.0, 2.0]), np.random.default_rng(0))
    >>> found.value.tolist(), found[1]
    ([0.75, 0.0], Estimate(value=0.0, low=0.0, high=0.0))
    """
    totals, counts = np.broadcast_arrays(np.asarray(totals, np.float64), np.asarray(counts, np.float64))
    if totals.shape[-1] == 0 or (counts.sum(axis=-1) <= 0).any():
        raise ValueError("a bootstrap needs at least one instance with a positive count")
    both = np.stack([totals, counts])
    return bootstrap_of_sums(
        lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1e-300), both, rng, resamples=resamples, level=level
    )


def bootstrap_of_sums(
    statistic: Callable[[Float64[np.ndarray, "draw term *cell"]], Float64[np.ndarray, "draw *result"]],
    totals: Float64[np.ndarray, "term *cell instance"],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimates:
    """Any statistic that is a function of sums over instances, with percentile intervals, as one matrix product.

    `totals` holds what each instance adds to each term; `statistic` gets the sums of all resamples at once. Terms
    share the resamples, so differences and maxima of dependent numbers have honest intervals.

    >>> right = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])  # of two networks; states
    >>> difference = bootstrap_of_sums(lambda s: (s[:, 0] - s[:, 1]) / s[:, 2], right, np.random.default_rng(0))
    >>> round(float(difference.value), 2)
    0.33
    """
    totals = np.asarray(totals, dtype=np.float64)
    flat = totals.reshape(-1, totals.shape[-1])
    sums = np.empty((resamples, len(flat)))
    for start in range(0, resamples, CHUNK):
        block = sums[start : start + CHUNK]
        block[:] = resampled_counts(totals.shape[-1], rng, len(block)) @ flat.T
    draws = statistic(sums.reshape(resamples, *totals.shape[:-1]))
    value = statistic(flat.sum(axis=1).reshape(1, *totals.shape[:-1]))[0]
    return _percentiles(value, draws, level)


def cluster_bootstrap(
    statistic: Callable[[Int64[np.ndarray, " row"]], Float64[np.ndarray, "*result"] | float],
    groups: Shaped[np.ndarray, " sample"],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimates:
    """Any statistic of samples (a quantile, a rank correlation, a refit), resampling whole instances.

    `statistic(rows)` gets sample indices, all samples of an instance as often as the instance was drawn. One call a
    resample: where the statistic is a function of sums, `bootstrap_of_sums` is hundreds of times faster.

    >>> y = np.array([1.0, 2.0, 3.0, 4.0])
    >>> found = cluster_bootstrap(lambda rows: np.median(y[rows]), np.array([0, 0, 1, 1]), np.random.default_rng(0))
    >>> float(found.value), float(found.low), float(found.high)
    (2.5, 1.5, 3.5)
    """
    groups = np.asarray(groups)
    if len(groups) == 0:
        raise ValueError("a bootstrap needs at least one instance")
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.unique(groups, return_counts=True)[1])[:-1])
    drawn = rng.integers(0, len(members), size=(resamples, len(members)))
    draws = np.stack([np.asarray(statistic(np.concatenate([members[i] for i in picked]))) for picked in drawn])
    return _percentiles(np.asarray(statistic(np.arange(len(groups))), dtype=np.float64), draws, level)


def instance_sums(
    values: Float64[np.ndarray, "*cell sample"], groups: Shaped[np.ndarray, " sample"]
) -> Float64[np.ndarray, "*cell instance"]:
    """Sums over the samples of each instance, instances sorted by their group.

    >>> instance_sums(np.array([1.0, 2.0, 5.0]), np.array([4, 4, 2])).tolist()
    [5.0, 3.0]
    """
    values, groups = np.asarray(values, dtype=np.float64), np.asarray(groups)
    order = np.argsort(groups, kind="stable")
    counts = np.unique(groups, return_counts=True)[1]
    return np.asarray(np.add.reduceat(values[..., order], np.cumsum(counts) - counts, axis=-1))


def resampled_counts(
    instances: int, rng: np.random.Generator, resamples: int
) -> Float64[np.ndarray, "resample instance"]:
    """How often each instance stands in each resample: rows are multinomial and sum to `instances`."""
    picked = rng.integers(0, instances, size=(resamples, instances))
    cells = picked + instances * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * instances)
    return counts.reshape(resamples, instances).astype(np.float64)


def _percentiles(value: np.ndarray, draws: np.ndarray, level: float) -> Estimates:
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    with np.errstate(over="ignore"):  # ratios whose denominator all but vanishes in a draw: the error is infinite
        spread = np.asarray(draws.std(axis=0))
    return Estimates(np.asarray(value), np.asarray(low), np.asarray(high), spread)
