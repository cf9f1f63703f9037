"""Editing by resampling: mask some cities of a tour, refill them, keep the result or not, again and again.

Arms A1 (every result is kept) and A2 (a result is kept by Metropolis' rule on the true tour cost, at a temperature
that falls) of method.md section 8. The masked set has k of the n - 1 free positions, k uniform in 2..n - 1: masking
one position of a legal tour leaves one legal city, so single positions are edited with repair instead (`swap_one`), as
a control.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int32, Int64
from torch import Tensor

from mesaprobe.decoding.refilling import Answers, draw, refill
from mesaprobe.models.config import UNKNOWN
from mesaprobe.problems import tour_costs


@dataclass(frozen=True)
class Acceptance:
    """Metropolis' rule with a temperature that falls by the same factor after every edit."""

    start: float = 0.3
    """First temperature, in units of the mean weight between different cities."""
    end: float = 0.005
    """Last temperature, in the same units."""

    def temperatures(self, edits: int) -> Float64[np.ndarray, " edit"]:
        """One temperature for each edit."""
        return np.geomspace(self.start, self.end, edits)


@dataclass(frozen=True, eq=False)
class EditRun:
    """Runs of edits, one per instance; entry 0 is the tour they begin with, entry i what holds after i edits."""

    tours: Int64[np.ndarray, "batch n"]
    """The tours at the end."""
    current: Int64[np.ndarray, "batch 1+edit"]
    """Cost of the tour that is kept."""
    proposed: Int64[np.ndarray, "batch 1+edit"]
    """Cost of the tour that the edit led to, kept or not."""
    masked: Int64[np.ndarray, "batch 1+edit"]
    """How many cities the edit masked."""
    passes: Float64[np.ndarray, " 1+edit"]
    """Forward passes up to there, mean over instances, the draft's not counted."""

    @property
    def best(self) -> Int64[np.ndarray, "batch 1+edit"]:
        """Cost of the cheapest tour met so far, kept or not."""
        return np.minimum.accumulate(self.proposed, axis=1)


def draft(
    answers: Answers, features: Float[Tensor, "batch n f"], generator: torch.Generator, temperature: float
) -> Int[Tensor, "batch n"]:
    """Tours filled in from nothing but city 0."""
    batch, n = features.shape[:2]
    masked = (torch.arange(n, device=features.device) > 0).expand(batch, n)
    return refill(answers, features, torch.zeros_like(masked, dtype=torch.long), masked, generator, temperature)


def edit(
    answers: Answers,
    features: Float[Tensor, "batch n f"],
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int[Tensor, "batch n"],
    temperatures: Float64[np.ndarray, "edit *batch"] | None,
    edits: int,
    generator: torch.Generator,
    *,
    softmax_temperature: float = 1.0,
    positions: Literal["several", "one"] = "several",
    free: Bool[Tensor, "batch n"] | None = None,
) -> EditRun:
    """`edits` edits of each tour, at the `free` positions (default: all but city 0's). `temperatures`, one an edit
    (or edit and instance) in units of the mean weight, are those of the acceptance; None keeps every result.
    `positions` one is the control of `swap_one`."""
    n, unit = tours.shape[1], _mean_weight(weights)
    kept, cost = tours.clone(), tour_costs(weights, tours.cpu().numpy())
    current, proposed, sizes = [cost], [cost], [np.zeros_like(cost)]
    for index in range(edits):
        if positions == "one":
            found, size = swap_one(answers, features, kept, generator, softmax_temperature), torch.ones(len(kept))
        else:
            masked = random_masks(len(kept), n, generator, free).to(kept.device)
            found, size = refill(answers, features, kept, masked, generator, softmax_temperature), masked.sum(1)
        price = tour_costs(weights, found.cpu().numpy())
        if temperatures is not None:
            chance = torch.rand(len(kept), generator=generator).numpy()
            worse = np.maximum(price - cost, 0)
            accepted = chance < np.exp(-worse / (np.maximum(unit, 1e-9) * temperatures[index]))
            kept = torch.where(torch.from_numpy(accepted).to(kept.device)[:, None], found, kept)
            cost = np.where(accepted, price, cost)
        else:
            kept, cost = found, price
        current.append(cost)
        proposed.append(price)
        sizes.append(size.cpu().numpy().astype(np.int64))
    masks = np.stack(sizes, axis=1)
    passes = masks.cumsum(axis=1).mean(axis=0)
    return EditRun(kept.cpu().numpy(), np.stack(current, axis=1), np.stack(proposed, axis=1), masks, passes)


def swap_one(
    answers: Answers,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch n"],
    generator: torch.Generator,
    temperature: float,
) -> Int[Tensor, "batch n"]:
    """Mask one position, let the network name any city there, and repair: the city that stood there goes where the
    named one came from."""
    rows, n = torch.arange(len(tours)), tours.shape[1]
    position = torch.randint(1, n, (len(tours),), generator=generator).to(tours.device)
    holed = tours.clone()
    holed[rows, position] = UNKNOWN
    logits = answers(features, holed)[rows, position].clone()
    logits[:, 0] = -torch.inf
    named, before = draw(logits, generator, temperature), tours[rows, position]
    swapped = torch.where(tours == named[:, None], before[:, None], tours)
    swapped[rows, position] = named
    return swapped


def random_masks(
    count: int, n: int, generator: torch.Generator, free: Bool[Tensor, "count n"] | None = None
) -> Bool[Tensor, "count n"]:
    """Masks of k of the free positions (default: all but the first), k uniform from 2 to all of them, the positions
    uniform given k."""
    if free is None:
        free = (torch.arange(n) > 0).expand(count, n)
    most = free.sum(dim=1)
    sizes = 2 + (torch.rand(count, generator=generator) * (most - 1)).long()
    ranks = torch.rand(count, n, generator=generator).masked_fill(~free, 2.0).argsort(dim=1).argsort(dim=1)
    return ranks < sizes[:, None]


def _mean_weight(weights: Int32[np.ndarray, "batch n n"]) -> Float64[np.ndarray, " batch"]:
    n = weights.shape[1]
    return (weights.sum(axis=(1, 2)) - np.trace(weights, axis1=1, axis2=2)) / (n * (n - 1))
