"""Can E1 tell its own library apart? Simulated users of every algorithm, identified as a network would be.

Method.md section 5: the confusion matrix of simulated subjects must be near the diagonal before the line is used.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mesaprobe.evidence.behaviour.algorithms import AlgorithmSettings, fit_library
from mesaprobe.evidence.behaviour.library import library
from mesaprobe.evidence.behaviour.telling_states import TellingStates, merged_classes, telling_states
from mesaprobe.problems import Problem


@dataclass(frozen=True, eq=False)
class Recovery:
    """Shares of simulated users of each class (rows) that were taken for each class (columns)."""

    names: tuple[str, ...]
    """The first member of each class of algorithms that agree on almost all states."""
    confusion: Float64[np.ndarray, "true found"]

    @property
    def worst(self) -> tuple[str, float, str]:
        """The class that is recognised least, how often, and what it is most often taken for instead."""
        own = np.diag(self.confusion)
        row = int(own.argmin())
        others = self.confusion[row].copy()
        others[row] = -1.0
        return self.names[row], float(own[row]), self.names[int(others.argmax())]


def algorithm_recovery(
    problem: Problem,
    settings: AlgorithmSettings,
    seed: int,
    *,
    lapses: tuple[float, ...] = (0.05, 0.2, 0.4),
    repeats: int = 5,
) -> Recovery:
    """Users draw the city that their algorithm names (ties and randomised algorithms at random) and with probability
    `lapse` any unvisited one; every lapse and repeat is a user of its own. They answer the line's own states."""
    calibration, test = (
        telling_states(problem, name, settings.pool, settings.states, seed) for name in ("calibration", "test")
    )
    classes = merged_classes(library(problem), calibration.costs, settings.merged_above)
    confusion = np.zeros((len(classes), len(classes)))
    rng = np.random.default_rng([seed, 871])
    for row, members in enumerate(classes):
        for lapse in lapses:
            for _ in range(repeats):
                user = members[int(rng.integers(len(members)))]
                first, second = (_choices(part, user, lapse, rng) for part in (calibration, test))
                fitted = fit_library(calibration, test, first, second, settings)
                confusion[row, int(np.argmax([each.scores.mean() for each in fitted]))] += 1
    return Recovery(tuple(members[0] for members in classes), confusion / (len(lapses) * repeats))


def _choices(part: TellingStates, user: str, lapse: float, rng: np.random.Generator) -> Float64[np.ndarray, "state n"]:
    """One drawn city a state, as a distribution of its own."""
    named = np.where(part.free, 1.0 - part.costs[user]["choice"], 0.0)
    named /= named.sum(axis=1, keepdims=True)
    chances = (1.0 - lapse) * named + lapse * part.free / part.free.sum(axis=1, keepdims=True)
    drawn = (np.cumsum(chances, axis=1) < rng.random((len(chances), 1))).sum(axis=1)
    return np.eye(chances.shape[1])[np.minimum(drawn, chances.shape[1] - 1)]
