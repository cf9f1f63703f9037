"""Do a network's logit gaps follow the cost of consequences, beyond what rules know? (method.md section 5, E4).

Over rejected candidates, the gap of logits to the chosen city against the gap of values to it, as a Spearman
correlation that is partial given Z: ranks of both are residualised on the nuisance features, by least squares on their
ranks and boosted trees for what is left, cross-fitted by instance, and the residuals correlated. (Trees alone leave a
tenth of a smooth dependence in both residuals, which then correlate.) Ranks are centred within each state: how sure the
network is there, and how much hangs on the choice, both depend on how close the nearest cities are to each other.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from mesaprobe.statistics import Estimate, bootstrap_of_sums, cross_fit, instance_folds, instance_sums

FOLDS = 4
LEAST_LEFT = 0.05
"""A rule's logits are a function of Z: of the ranks then only the error of the fit is left, which means nothing."""
TREES = {"max_iter": 80, "learning_rate": 0.1, "max_leaf_nodes": 16, "early_stopping": False}


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rejected candidates of many states, one row each."""

    logit_gaps: Float64[np.ndarray, " row"]
    """Logit of the chosen city less the candidate's."""
    value_gaps: Float64[np.ndarray, " row"]
    """What the candidate's completion costs more than the chosen city's (negative if less)."""
    nuisance: Float64[np.ndarray, "row k"]
    groups: Int64[np.ndarray, " row"]
    """State of each row, one an instance."""


@dataclass(frozen=True)
class Consistency:
    """A partial rank correlation, and what Z leaves of the two gaps."""

    estimate: Estimate | None
    """None where Z leaves less than `LEAST_LEFT` of either: what remains is the error of the fit to Z."""
    logit_left: float
    """Share of the variance of the logit gaps' ranks."""
    value_left: float
    """The same of the value gaps."""


def partial_spearman(data: Candidates, rng: np.random.Generator, *, resamples: int = 1000) -> Consistency:
    """The partial rank correlation of the two gaps given Z, with an interval that resamples instances.

    >>> rng = np.random.default_rng(0)
    >>> z, hidden, groups = rng.normal(size=(400, 1)), rng.normal(size=400), np.arange(400) // 4
    >>> found = partial_spearman(Candidates(z[:, 0] + hidden, z[:, 0] + hidden, z, groups), rng)
    >>> none = partial_spearman(Candidates(z[:, 0] + hidden, z[:, 0] + rng.normal(size=400), z, groups), rng)
    >>> found.estimate.low > 0.9, none.estimate.low < 0 < none.estimate.high
    (True, True)
    >>> partial_spearman(Candidates(z[:, 0] ** 3, z[:, 0] + hidden, z, groups), rng).estimate is None
    True
    """
    fold = instance_folds(data.groups, FOLDS, rng)
    ranks = np.stack([rankdata(data.logit_gaps), rankdata(data.value_gaps)], axis=1) / len(data.groups)
    used = np.isfinite(data.nuisance).any(axis=0)
    rows = data.nuisance[:, used]
    smooth, ranks = _within(_smooth_columns(rows), data.groups), _within(ranks, data.groups)

    def fit_predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        slopes = np.linalg.lstsq(smooth[train], ranks[train], rcond=1e-8)[0]
        rest = ranks[train] - smooth[train] @ slopes
        models = [HistGradientBoostingRegressor(random_state=0, **TREES).fit(rows[train], y) for y in rest.T]
        return smooth[test] @ slopes + np.stack([model.predict(rows[test]) for model in models], axis=1)

    with threadpool_limits(1):
        left = ranks - cross_fit(fit_predict, fold)
    shares = left.var(axis=0) / np.maximum(ranks.var(axis=0), 1e-12)
    if shares.min() < LEAST_LEFT:
        return Consistency(None, float(shares[0]), float(shares[1]))
    products = np.stack([left[:, 0] * left[:, 1], left[:, 0] ** 2, left[:, 1] ** 2])
    found = bootstrap_of_sums(
        lambda sums: sums[:, 0] / np.sqrt(np.maximum(sums[:, 1] * sums[:, 2], 1e-300)),
        instance_sums(products, data.groups),
        rng,
        resamples=resamples,
    )
    return Consistency(found[()], float(shares[0]), float(shares[1]))


def _within(columns: Float64[np.ndarray, "row c"], groups: Int64[np.ndarray, " row"]) -> Float64[np.ndarray, "row c"]:
    """Less the mean of the group."""
    member, counts = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    means = instance_sums(columns.T, groups).T / counts[:, None]
    return np.asarray(columns - means[member.reshape(-1)])


def _smooth_columns(rows: Float64[np.ndarray, "row k"]) -> Float64[np.ndarray, "row c"]:
    """Each feature's rank over all rows, its square and cube; unknown entries in the middle."""
    ranks = np.stack([rankdata(column, nan_policy="omit") for column in rows.T], axis=1)
    ranks = ranks / np.nanmax(ranks, axis=0) - 0.5
    ranks = np.where(np.isfinite(ranks), ranks, 0.0)
    return np.concatenate([ranks, ranks**2, ranks**3], axis=1)
