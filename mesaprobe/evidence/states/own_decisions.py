"""Decision states along a network's own tours: what they are worth, how far they must be searched, what rules do."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from mesaprobe.evidence.protocol import draw_set
from mesaprobe.instruments.patching import Run
from mesaprobe.labels import decision_steps, label_decisions
from mesaprobe.labels.choices import heuristic_choices
from mesaprobe.labels.nuisance import nuisance_features
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances


@dataclass(frozen=True, eq=False)
class OwnDecisions:
    """All decisions of a network's greedy tours, labelled exactly; a state is [instance, step]."""

    instances: Instances
    features: Float[Tensor, "instance n f"]
    tours: Int[Tensor, "instance n"]
    """Its own up to the choice at the last decision (`own_prefixes`)."""
    steps: slice
    regrets: Float64[np.ndarray, "instance step n"]
    """Q*(s, a) - V*(s) in weight units; infinite for visited cities."""
    needs: Int64[np.ndarray, "instance step"]
    """d*."""

    @property
    def free(self) -> Bool[np.ndarray, "instance step n"]:
        """Unvisited cities."""
        return np.isfinite(self.regrets)

    @property
    def chosen(self) -> Int64[np.ndarray, "instance step"]:
        """Where the network goes."""
        return self.tours.numpy()[:, 1:][:, self.steps]

    def run(self, states: Int64[np.ndarray, "state 2"]) -> Run:
        """The given (instance, step) states as a run."""
        rows, lengths = torch.from_numpy(states[:, 0]), torch.from_numpy(states[:, 1]) + self.steps.start + 1
        return Run(self.features[rows], self.tours[rows, :-1], lengths)

    def regret_of(
        self, states: Int64[np.ndarray, "state 2"], cities: Int64[np.ndarray, " state"]
    ) -> Float64[np.ndarray, " state"]:
        """Regret of going to the given city at each state."""
        return self.regrets[states[:, 0], states[:, 1], cities]

    def nuisance(self) -> Float64[np.ndarray, "instance step n k"]:
        """What rules know of each candidate (method.md section 4, Z, without the network's own output)."""
        return nuisance_features(self.instances, self.tours.numpy(), self.steps)

    def objective_regrets(self, objective: str) -> Float64[np.ndarray, "instance step n"]:
        """The same regrets under another objective; infinite for visited cities."""
        found = label_decisions(self.instances, self.tours.numpy(), self.steps, ["values"], objective)  # type: ignore[arg-type]
        assert found.values is not None
        return np.where(self.free, found.values.regrets, np.inf)

    def rules(self) -> dict[str, Int64[np.ndarray, "instance step"]]:
        """The next city by rule of HEUR-v1."""
        return heuristic_choices(self.instances, self.tours.numpy(), self.steps)


def own_decisions(subject: Subject, name: str, count: int, seed: int) -> OwnDecisions:
    """Label the decisions of a network's own greedy tours on one instance set (n <= 20).

    The last two sets asked for are kept, so that lines that look at the same states share them.
    """
    key = (subject.weights_hash, subject.problem.config, name, count, seed)
    if key not in _KEPT:
        while len(_KEPT) >= 2:
            _KEPT.pop(next(iter(_KEPT)))
        _KEPT[key] = _decisions(subject, draw_set(subject.problem, name, count, seed))
    return _KEPT[key]


_KEPT: dict[tuple[Any, ...], OwnDecisions] = {}


def _decisions(subject: Subject, instances: Instances) -> OwnDecisions:
    features, steps = torch.from_numpy(instances.features), decision_steps(subject.problem)
    tours = own_prefixes(subject, features, steps.stop)
    labels = label_decisions(instances, tours.numpy(), steps, ["values", "needs"])
    assert labels.values is not None
    assert labels.needs is not None
    return OwnDecisions(instances, features, tours, steps, labels.values.regrets, labels.needs)


def own_prefixes(
    subject: Subject, features: Float[Tensor, "instance n f"], choices: int, *, chunk: int = 1024
) -> Int[Tensor, "instance n"]:
    """Tours whose first `choices` next cities are the network's own (greedy, visited cities masked).

    The cities after these come in the order of their numbers: no decision before them depends on it, and the passes
    that a whole rollout takes there are saved.
    """
    parts = []
    for part in features.split(chunk):
        batch, n = part.shape[:2]
        tours = torch.zeros(batch, 1, dtype=torch.long)
        for _ in range(choices):
            logits = subject.next_city_logits(part, tours).cpu().scatter(1, tours, -torch.inf)
            tours = torch.cat([tours, logits.argmax(dim=1, keepdim=True)], dim=1)
        rest = torch.ones(batch, n, dtype=torch.bool).scatter(1, tours, value=False)
        parts.append(torch.cat([tours, rest.nonzero()[:, 1].reshape(batch, -1)], dim=1))
    return torch.cat(parts)


def residual_on(
    nuisance: Float64[np.ndarray, "sample k"],
    target: Float64[np.ndarray, " sample"],
    *,
    squares: bool = True,
    penalty: float = 1.0,
) -> Float64[np.ndarray, " sample"]:
    """What ridge regression on the nuisance columns (and their squares) leaves of a target, in the same sample.

    Columns are standardised; NaN, a neighbour that does not exist, counts as 0. Far weaker than boosted trees, and
    enough where the residual only names a direction to erase: what the ridge misses stays in the direction, for
    every control too.

    >>> z = np.arange(10.0)[:, None]
    >>> bool(np.abs(residual_on(z, 3 * z[:, 0] + z[:, 0] ** 2, penalty=1e-9)).max() < 1e-6)
    True
    """
    known = np.nan_to_num(nuisance, nan=0.0)
    columns = np.concatenate([known, known**2], axis=1) if squares else known
    columns = columns - columns.mean(axis=0)
    scale = columns.std(axis=0)
    columns = columns[:, scale > 1e-9] / scale[scale > 1e-9]
    centred = target - target.mean()
    weights = np.linalg.solve(columns.T @ columns + penalty * np.eye(columns.shape[1]), columns.T @ centred)
    return np.asarray(centred - columns @ weights)
