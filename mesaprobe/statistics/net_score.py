"""Net score: information about the target beyond what any control reaches (method.md section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from mesaprobe.statistics.bootstrap import Estimates, bootstrap_of_sums, instance_sums
from mesaprobe.statistics.conditional import information_of_sums


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses of one arm summed over each instance's samples: of its baseline g(Z), and of (Z, h)."""

    base: Float64[np.ndarray, "*cell instance"]
    probe: Float64[np.ndarray, "*cell instance"]


def instance_losses(
    base: Float64[np.ndarray, "*cell sample"],
    probe: Float64[np.ndarray, "*cell sample"],
    groups: Shaped[np.ndarray, " sample"],
) -> Losses:
    """Losses of samples, summed by instance; `base` may be shared by all cells."""
    summed = instance_sums(probe, groups)
    return Losses(np.broadcast_to(instance_sums(base, groups), summed.shape), summed)


@dataclass(frozen=True, eq=False)
class NetScore:
    """Information of every arm and the net score, all from the same resamples of instances."""

    net: Estimates
    """I(subject) - max{I of each control, mean I of the twins, 0}."""
    subject: Estimates
    controls: Estimates
    """[control, *cell]"""
    twins: Estimates
    """Mean over the random-weight twins; 0 without twins."""


def net_score(
    subject: Losses,
    controls: Sequence[Losses],
    twins: Sequence[Losses],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> NetScore:
    """N = I(subject) - max{I(control task), I(objective swap), ..., mean I(random-weight twins), 0}.

    All arms hold the same instances in the same order and the same cells: one cell where each arm brought its own
    best site (chosen on other instances), or a table. The maximum of noisy controls leans upwards, so intervals of
    the net score lean down: conservative for a claim of information.

    >>> arm = lambda probe: Losses(np.full(4, 1.0), np.full(4, probe))
    >>> found = net_score(arm(0.4), [arm(0.9), arm(0.8)], [arm(0.7), arm(1.0)], np.random.default_rng(0))
    >>> round(float(found.net.value), 3), found.controls.value.round(3).tolist(), round(float(found.twins.value), 3)
    (0.4, [0.1, 0.2], 0.15)
    """
    arms = [subject, *controls, *twins]
    if len({arm.probe.shape for arm in arms}) != 1:
        raise ValueError(f"arms must share cells and instances; got shapes {[arm.probe.shape for arm in arms]}")
    totals = np.stack([np.stack([arm.base, arm.probe]) for arm in arms], axis=1)  # [two, arm, *cell, instance]
    count = len(controls)

    def scores(sums: np.ndarray) -> np.ndarray:
        information = information_of_sums(sums)  # [draw, arm, *cell]
        own, control, twin = information[:, :1], information[:, 1 : 1 + count], information[:, 1 + count :]
        twin = twin.mean(axis=1, keepdims=True) if twin.shape[1] else np.zeros_like(own)
        strongest = np.maximum(np.concatenate([control, twin], axis=1).max(axis=1, keepdims=True), 0.0)
        return np.concatenate([own - strongest, own, twin, control], axis=1)

    found = bootstrap_of_sums(scores, totals, rng, resamples=resamples)

    def part(index: int | slice) -> Estimates:
        return Estimates(*(np.asarray(table[index]) for table in (found.value, found.low, found.high, found.error)))

    return NetScore(net=part(0), subject=part(1), controls=part(slice(3, None)), twins=part(2))
