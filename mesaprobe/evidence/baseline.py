"""What simple rules and the network's own output already tell of a later choice (method.md section 4, g(Z))."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from mesaprobe.decoding import greedy_rollout
from mesaprobe.labels.nuisance import nuisance_features
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.solvers.constructive import unvisited


@dataclass(frozen=True, eq=False)
class PlannedSteps:
    """Decisions along a network's own tours, and the city that it names one step after its next one.

    The label is the edge of its plan that comes two steps ahead: from `chosen` to `label`.
    """

    features: Float[Tensor, "batch n f"]
    tours: Int[Tensor, "batch n"]
    steps: slice
    chosen: Int[Tensor, "batch step"]
    """The next city (step one)."""
    label: Int[Tensor, "batch step"]
    """The city after it (step two)."""
    allowed: Bool[Tensor, "batch step n"]
    """Cities that can still be the label: unvisited after step one."""
    nuisance: Float[np.ndarray, "batch step n k"]
    """Per candidate label: rules' features after step one, and the network's output before it."""

    @property
    def groups(self) -> Int[Tensor, " sample"]:
        """Instance of every (instance, step) sample, flattened."""
        return torch.arange(len(self.label)).repeat_interleave(self.label.shape[1])


def planned_steps(subject: Subject, instances: Instances) -> PlannedSteps:
    """Label the decisions along the network's greedy tours with its own second step ahead."""
    features = torch.from_numpy(instances.features)
    tours = greedy_rollout(subject, features).tours
    steps = decision_steps(subject.problem)
    later = slice(steps.start + 1, steps.stop + 1)
    free = torch.from_numpy(unvisited(tours.numpy()))
    logits = torch.cat(
        [subject.logits(f, t).cpu() for f, t in zip(features.split(1024), tours[:, :-1].split(1024), strict=True)]
    )[:, steps]
    chances = logits.masked_fill(~free[:, steps], -torch.inf).log_softmax(-1)
    # The chosen city has no place among the candidates of the second step; the others are ranked anew.
    output = chances.masked_fill(~free[:, later], torch.nan).double().numpy()
    above_best = output - np.nanmax(output, axis=2, keepdims=True)
    rules = nuisance_features(instances, tours.numpy(), later)
    return PlannedSteps(
        features=features,
        tours=tours,
        steps=steps,
        chosen=tours[:, 1:][:, steps],
        label=tours[:, 2:][:, steps],
        allowed=free[:, later],
        nuisance=np.concatenate([rules, output[..., None], above_best[..., None]], axis=3),
    )


@dataclass(frozen=True, eq=False)
class Baseline:
    """Gradient-boosted trees over candidates, with the one factor that calibrates their log-odds."""

    trees: HistGradientBoostingClassifier
    used: Bool[np.ndarray, " k"]
    """Features that exist at all (with few cities left there is, say, no third nearest)."""
    sharpness: float

    def log_odds(self, data: PlannedSteps) -> Float[Tensor, "sample n"]:
        """Unnormalised log-probability of each candidate label (0 where not allowed)."""
        return self.sharpness * _raw_log_odds(self.trees, self.used, data)


def fit_baseline(train: PlannedSteps, calibration: PlannedSteps, seed: int) -> Baseline:
    """Fit trees to (candidate, is it the label?) rows of `train`; calibrate on other instances."""
    allowed = train.allowed.numpy()
    rows = train.nuisance[allowed]
    right = (train.label.numpy()[..., None] == np.arange(allowed.shape[2]))[allowed]
    trees = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.1, early_stopping=False, random_state=seed)
    used = np.isfinite(rows).any(axis=0)
    trees.fit(rows[:, used], right)
    raw = _raw_log_odds(trees, used, calibration)
    candidates = torch.linspace(0.1, 2.0, 39)
    losses = torch.stack([label_losses((c * raw)[None], calibration)[0].mean() for c in candidates])
    return Baseline(trees, used, float(candidates[losses.argmin()]))


def _raw_log_odds(
    trees: HistGradientBoostingClassifier, used: np.ndarray, data: PlannedSteps
) -> Float[Tensor, "sample n"]:
    allowed = data.allowed.numpy()
    values = np.zeros(allowed.shape, dtype=np.float32)
    values[allowed] = trees.decision_function(data.nuisance[allowed][:, used])
    return torch.from_numpy(values).flatten(0, 1)


def label_losses(logits: Float[Tensor, "site sample n"], data: PlannedSteps) -> Float[Tensor, "site sample"]:
    """Log loss in nats of each sample's label under logits over the allowed cities."""
    masked = logits.masked_fill(~data.allowed.flatten(0, 1), -torch.inf).log_softmax(-1)
    return -masked.gather(-1, data.label.flatten().expand(len(logits), -1)[..., None])[..., 0]
