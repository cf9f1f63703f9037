"""A local imitator of a subject: boosted trees that guess its answer from what rules know of the candidates.

It sees the nuisance Z of `nuisance_features` (distances, ranks, one nearest-neighbour completion a candidate, what the
rules of HEUR-v1 choose) and nothing of the network's own output. What it explains needs no search (method.md section 4,
g(Z), and the NULL of E1 and E2).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from mesaprobe.evidence.states.decision_states import DecisionStates

TREES = {"max_iter": 120, "learning_rate": 0.1, "max_leaf_nodes": 16, "early_stopping": False}


@dataclass(frozen=True, eq=False)
class Imitator:
    """Log-odds of each candidate; the subject's distribution is a softmax of them up to a factor."""

    trees: HistGradientBoostingClassifier
    used: Bool[np.ndarray, " k"]
    """Columns of Z that held any number."""

    def scores(
        self, nuisance: Float64[np.ndarray, "state n k"], free: Bool[np.ndarray, "state n"]
    ) -> Float64[np.ndarray, "state n"]:
        """Log-odds that a candidate is chosen; -inf for visited cities."""
        found = np.full(free.shape, -np.inf)
        with threadpool_limits(1):
            found[free] = self.trees.decision_function(nuisance[free][:, self.used])
        return found


def fit_imitator(
    states: DecisionStates,
    nuisance: Float64[np.ndarray, "state n k"],
    log_p: Float64[np.ndarray, "state n"],
    seed: int,
) -> Imitator:
    """Trees fitted to the subject's probability of every candidate (log loss); deterministic in the seed.

    A candidate of probability p counts p as chosen and 1 - p as passed over, so a flat answer is imitated as flat.
    """
    free = states.free
    rows, chance = nuisance[free], np.exp(log_p[free])
    used = np.isfinite(rows).any(axis=0)
    doubled = np.concatenate([rows[:, used]] * 2)
    label = np.repeat([True, False], len(rows))
    share = np.concatenate([chance, 1.0 - chance])
    kept = share > 1e-6
    trees = HistGradientBoostingClassifier(random_state=seed, **TREES)
    with threadpool_limits(1):
        trees.fit(doubled[kept], label[kept], sample_weight=share[kept])
    return Imitator(trees, used)
