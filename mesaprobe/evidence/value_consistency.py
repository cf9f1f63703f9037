"""Do a network's logit gaps follow the cost of consequences, beyond what rules know? (method.md section 5, E4).

Over rejected candidates, the gap of logits to the chosen city against the gap of values to it, as a Spearman
correlation that is partial given Z: ranks of both are residualised on the nuisance features by boosted trees,
cross-fitted by instance, and the residuals correlated.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from mesaprobe.statistics import Estimate, bootstrap_of_sums, cross_fit, instance_folds, instance_sums

FOLDS = 4
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
    """Instance of each row."""


def partial_spearman(data: Candidates, rng: np.random.Generator, *, resamples: int = 1000) -> Estimate:
    """The partial rank correlation of the two gaps given Z, with an interval that resamples instances.

    >>> rng = np.random.default_rng(0)
    >>> z, hidden, groups = rng.normal(size=(400, 1)), rng.normal(size=400), np.arange(400)
    >>> found = partial_spearman(Candidates(z[:, 0] + hidden, z[:, 0] + hidden, z, groups), rng)
    >>> none = partial_spearman(Candidates(z[:, 0] + hidden, z[:, 0] + rng.normal(size=400), z, groups), rng)
    >>> found.low > 0.9, none.low < 0 < none.high
    (True, True)
    """
    fold = instance_folds(data.groups, FOLDS, rng)
    ranks = np.stack([rankdata(data.logit_gaps), rankdata(data.value_gaps)], axis=1) / len(data.groups)
    used = np.isfinite(data.nuisance).any(axis=0)
    rows = data.nuisance[:, used]

    def fit_predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        models = [HistGradientBoostingRegressor(random_state=0, **TREES).fit(rows[train], y[train]) for y in ranks.T]
        return np.stack([model.predict(rows[test]) for model in models], axis=1)

    with threadpool_limits(1):
        left = ranks - cross_fit(fit_predict, fold)
    left -= left.mean(axis=0)
    products = np.stack([left[:, 0] * left[:, 1], left[:, 0] ** 2, left[:, 1] ** 2])
    found = bootstrap_of_sums(
        lambda sums: sums[:, 0] / np.sqrt(np.maximum(sums[:, 1] * sums[:, 2], 1e-300)),
        instance_sums(products, data.groups),
        rng,
        resamples=resamples,
    )
    return found[()]
