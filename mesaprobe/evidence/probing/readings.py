"""Ridge probes of many tasks at many sites: sites chosen on the probe set, predictions on the test set.

The task's residuals r = y - g(Z) are what a probe learns. What it predicts on the test set is freed of Z as well
(`statistics.residualised_predictions`) before anything is claimed from it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from mesaprobe.evidence.probing.questions import Task
from mesaprobe.instruments.probes import ridge_sweep
from mesaprobe.statistics import Losses, instance_folds, instance_losses, residualised_predictions

PROBE_FOLDS = 3
"""Folds of the probe set, by instance, that choose penalties and sites."""
READOUT_FOLDS = 2
"""Folds of the test set in which trees take Z off the predictions."""
READOUT_TREES = 120
"""How many trees do so."""
PARTS: tuple[Literal["probe"], Literal["test"]] = ("probe", "test")


@dataclass(frozen=True, eq=False)
class Tokens:
    """What a view shows on the probe and the test set: activations, or anything in their place."""

    view: str
    sites: tuple[str, ...]
    probe: Float[np.ndarray, "site sample d"]
    test: Float[np.ndarray, "site sample d"]

    def at(self, site: int) -> "Tokens":
        """One of the sites alone, copied: the others can be let go."""
        place = slice(site, site + 1)
        return Tokens(self.view, self.sites[place], self.probe[place].copy(), self.test[place].copy())


@dataclass(frozen=True, eq=False)
class Reading:
    """What the probes of one task read at every site of a view."""

    task: Task
    view: str
    sites: tuple[str, ...]
    probe_information: Float64[np.ndarray, " site"]
    """1 - loss / loss of g(Z) on the probe set, cross-fitted: what chooses the site."""
    predictions: Float32[np.ndarray, "site row"]
    """Of the test set's residuals."""

    @property
    def site(self) -> int:
        return int(self.probe_information.argmax())

    def direct(self) -> Losses:
        """Losses of all sites on the test set, as the probes predict."""
        r = self.task.test_residuals
        return instance_losses(np.square(r), np.square(r - self.predictions), self.task.test.row_groups)

    def plain(self) -> "Readout":
        """The chosen site's predictions as they are."""
        guesses = self.predictions[self.site].astype(np.float64)
        return self._readout(guesses, guesses)

    def residualised(self, seed: int) -> "Readout":
        """The chosen site's predictions p less what Z tells of them, p~ = p - E[p | Z].

        Trees that follow p closely follow its noise as well, so that (r - p~)^2 would be too large. They are
        cross-fitted: their noise is independent of r and p, and the loss r^2 - 2 r p~ + p p~ is free of it.
        """
        question = self.task.test
        groups = question.row_groups
        fold = instance_folds(groups, READOUT_FOLDS, np.random.default_rng([seed, 7]))
        found = self.predictions[self.site].astype(np.float64)
        guesses = found
        if np.ptp(found) > 0:
            # g(Z), which the probe saw, is a function of Z that trees would otherwise have to learn anew.
            known = question.answers - self.task.test_residuals
            z = np.concatenate([question.z, known[:, None]], axis=1)
            guesses = residualised_predictions(found[:, None], z, groups, fold, seed, READOUT_TREES)[:, 0]
        return self._readout(found, guesses)

    def _readout(self, found: Float64[np.ndarray, " row"], guesses: Float64[np.ndarray, " row"]) -> "Readout":
        r = self.task.test_residuals
        left = np.square(r) - 2 * r * guesses + found * guesses
        losses = instance_losses(np.square(r), left, self.task.test.row_groups)
        return Readout(self, guesses, losses)


@dataclass(frozen=True, eq=False)
class Readout:
    """One task at its chosen site: what was predicted, and with which losses."""

    reading: Reading
    guesses: Float64[np.ndarray, " row"]
    losses: Losses

    @property
    def information(self) -> float:
        return float(1 - self.losses.probe.sum() / self.losses.base.sum())

    @property
    def gains(self) -> Float64[np.ndarray, " instance"]:
        """What each instance adds to the information."""
        return (self.losses.base - self.losses.probe) / self.losses.base.sum()


def narrowed(
    probe: Float[np.ndarray, "site sample d"], test: Float[np.ndarray, "site sample d"], components: int
) -> tuple[Float64[np.ndarray, "site sample k"], Float64[np.ndarray, "site sample k"]]:
    """At most `components` columns a site: the principal components of the probe set, in both sets."""
    if probe.shape[2] <= components:
        return probe.astype(np.float64), test.astype(np.float64)
    both = []
    for first, second in zip(probe.astype(np.float64), test.astype(np.float64), strict=True):
        mean = first.mean(axis=0)
        vectors = torch.linalg.svd(torch.from_numpy(first - mean), full_matrices=False)[2][:components].T.numpy()
        both.append(((first - mean) @ vectors, (second - mean) @ vectors))
    return np.stack([pair[0] for pair in both]), np.stack([pair[1] for pair in both])


def read(tokens: Tokens, tasks: Mapping[str, Task], alone: Collection[str], seed: int) -> dict[str, Reading]:
    """Fit every task at every site of a view, by name; all tasks ask about the samples of that view.

    A task that is fitted `alone` gives its probe g(Z) of its own slots beside the activations, so that it can read y
    where y is what is written: the residual of y on g(Z) needs both (Robinson 1988). What it makes of g(Z) alone goes
    with Z in `residualised`. The others share one fit, of the activations only: quicker, and weaker.
    """
    together = [name for name in tasks if name not in alone]
    found: dict[str, Reading] = {}
    for part in [*([name] for name in tasks if name in alone), *([together] if together else [])]:
        own = [tasks[name] for name in part]
        found.update(zip(part, _read_together(tokens, own, part is not together, seed), strict=True))
    return found


def _read_together(tokens: Tokens, tasks: Sequence[Task], beside: bool, seed: int) -> list[Reading]:
    groups = tasks[0].probe.groups
    fold = instance_folds(groups, PROBE_FOLDS, np.random.default_rng([seed, 6]))
    columns = np.concatenate([task.probe.table(task.probe_residuals) for task in tasks], axis=1)
    live = np.ptp(columns, axis=0) > 0
    known = [np.concatenate([task.known(part) for task in tasks], axis=1) for part in PARTS] if beside else None
    guessed: list[list[np.ndarray]] = [[], []]
    for site in range(len(tokens.sites)):  # one at a time: what stands beside the activations is copied with them
        shown = [side[site : site + 1] for side in (tokens.probe, tokens.test)]
        if known is not None:
            shown = [np.concatenate([side, table[None]], axis=2) for side, table in zip(shown, known, strict=True)]
        sweep = ridge_sweep(shown[0], columns[:, live], fold, groups=groups)
        assert sweep.predictions is not None
        guessed[0].append(sweep.predictions[0])
        guessed[1].append(sweep.probes.predict(shown[1])[0])
    sides = [np.stack(part) for part in guessed]
    ends = np.cumsum([task.probe.asked.shape[1] for task in tasks])
    found = []
    for task, start, stop in zip(tasks, [0, *ends[:-1]], ends, strict=True):
        own, place = live[start:stop], np.cumsum(live)[start:stop] - 1
        guesses = []
        for side, question in zip(sides, (task.probe, task.test), strict=True):
            laid = np.where(own, side[:, :, np.where(own, place, 0)], np.float32(0))
            guesses.append(laid[:, question.asked])
        judged = task.probe.judged
        r = task.probe_residuals[judged]
        total = max(float(np.square(r).sum()), 1e-300)
        information = 1 - np.square(r - guesses[0][:, judged]).sum(axis=1) / total
        found.append(Reading(task, tokens.view, tokens.sites, information, guesses[1]))
    return found


def best_reading(readings: Sequence[Reading]) -> Reading:
    """Among views, the one whose best site tells most on the probe set."""
    return max(readings, key=lambda reading: float(reading.probe_information.max()))


def as_samples(values: Float[Tensor, "site instance column d"] | np.ndarray) -> Float[np.ndarray, "site sample d"]:
    """Instances and columns as one axis."""
    sites, instances, columns, width = values.shape
    return np.asarray(values).reshape(sites, instances * columns, width)
