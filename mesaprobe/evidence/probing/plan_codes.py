"""Two ways in which a stream may hold a plan, and the whole tours that probes of either read from it (line E10a)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import linear_sum_assignment

from mesaprobe.evidence.probing.plan_targets import city_pairs, used_pairs
from mesaprobe.instruments.lens import greedy_plans
from mesaprobe.problems import Instances

SURE = 0.5
"""Score from which the lens holds an edge to be in the plan: more likely than not."""


@dataclass(frozen=True, eq=False)
class Case:
    """The first decision of each instance, and the network's own tour from there."""

    instances: Instances
    tours: Int64[np.ndarray, "batch n"]
    step: int

    @property
    def symmetric(self) -> bool:
        return self.instances.problem.symmetric


class Code(Protocol):
    """How a stream may hold a plan."""

    @property
    def name(self) -> str: ...

    def labels(self, case: Case) -> Float64[np.ndarray, "batch label"]:
        """What probes are fitted to: the network's own completion."""

    def plans(self, scores: Float64[np.ndarray, "layer instance label"], case: Case) -> "Plans":
        """The tours that the probes' answers amount to."""


@dataclass(frozen=True)
class Edges:
    """One number for every pair of cities."""

    name: str = "edges"

    def labels(self, case: Case) -> np.ndarray:
        return used_pairs(case.tours, case.step, case.symmetric).astype(np.float64)

    def plans(self, scores: np.ndarray, case: Case) -> "Plans":
        n = case.tours.shape[1]
        left, right = city_pairs(n, case.symmetric).T
        table = np.zeros((*scores.shape[:2], 1, n, n))
        table[:, :, 0, left, right] = scores
        if case.symmetric:
            table[:, :, 0, right, left] = scores
        return Plans(greedy_plans(table, case.tours, np.array([case.step]))[:, :, 0], scores >= SURE)


@dataclass(frozen=True)
class Places:
    """One number for every city in every place behind the prefix."""

    name: str = "places"

    def labels(self, case: Case) -> np.ndarray:
        later = case.tours[:, case.step + 1 :]
        return (later[..., None] == np.arange(case.tours.shape[1])).reshape(len(later), -1).astype(np.float64)

    def plans(self, scores: np.ndarray, case: Case) -> "Plans":
        batch, n = case.tours.shape
        known = case.step + 1
        table = scores.reshape(*scores.shape[:2], n - known, n)
        places = np.arange(n - known)
        tours = np.broadcast_to(case.tours, (len(table), batch, n)).copy()
        for instance in range(batch):
            free = np.sort(case.tours[instance, known:])
            for layer in range(len(table)):
                _, column = linear_sum_assignment(table[layer, instance][:, free], maximize=True)
                tours[layer, instance, known + places] = free[column]
        held = np.zeros((*table.shape[:2], n, n), dtype=np.bool_)
        held[:, :, known:] = table >= SURE
        held[:, np.arange(batch)[:, None], np.arange(known), case.tours[:, :known]] = True
        joined = np.einsum("libu,libv->liuv", held.astype(np.int64), np.roll(held, -1, axis=2).astype(np.int64)) > 0
        if case.symmetric:
            joined |= joined.swapaxes(2, 3)
        left, right = city_pairs(n, case.symmetric).T
        return Plans(tours, joined[:, :, left, right])


CODES: tuple[Code, ...] = (Edges(), Places())
"""The first one among equals."""


@dataclass(frozen=True, eq=False)
class Plans:
    """A whole tour decoded from each layer, and the pairs of cities that the layer's lens is sure of."""

    tours: Int64[np.ndarray, "layer instance n"]
    sure: Bool[np.ndarray, "layer instance pair"]
