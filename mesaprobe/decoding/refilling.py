"""Filling in masked cities of tours, one at a time in random order, cities that are used already excluded.

For networks that answer at every position of a tour with holes (bidirectional attention). Every instance has holes of
its own, and all are filled side by side.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mesaprobe.models.config import UNKNOWN

Answers = Callable[[Tensor, Tensor], Tensor]
"""(features [b, n, f], tours [b, n] with UNKNOWN where masked) -> logits over cities at every position [b, n, n]."""


def refill(
    answers: Answers,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch n"],
    masked: Bool[Tensor, "batch n"],
    generator: torch.Generator,
    temperature: float,
) -> Int[Tensor, "batch n"]:
    """The tours with masked positions filled anew; what stood there does not matter. One forward pass for each city.

    Cities are drawn from the softmax of logits / temperature over those not yet used; temperature 0 takes the most
    likely. Legal tours stay legal.
    """
    filled = torch.where(masked, UNKNOWN, tours)
    keys = torch.rand(masked.shape, generator=generator).masked_fill(~masked.cpu(), 2.0)
    order = keys.argsort(dim=1).to(tours.device)
    sizes = masked.sum(dim=1)
    for turn in range(int(sizes.max())):
        rows = torch.nonzero(sizes > turn)[:, 0]
        position = order[rows, turn]
        logits = answers(features[rows], filled[rows])[torch.arange(len(rows)), position]
        filled[rows, position] = draw(logits.masked_fill(used_cities(filled[rows]), -torch.inf), generator, temperature)
    return filled


def used_cities(tours: Int[Tensor, "batch t"], n: int | None = None) -> Bool[Tensor, "batch n"]:
    """Which of n cities (default: as many as a tour has entries) stand somewhere in each tour.

    >>> used_cities(torch.tensor([[0, UNKNOWN, 1]]))
    tensor([[ True,  True, False]])
    """
    return (tours[:, :, None] == torch.arange(n or tours.shape[1], device=tours.device)).any(dim=1)


def draw(logits: Float[Tensor, "batch n"], generator: torch.Generator, temperature: float) -> Int[Tensor, " batch"]:
    """One city a row from the softmax of logits / temperature (by Gumbel noise); the most likely at temperature 0."""
    noise = -torch.rand(logits.shape, generator=generator).log().neg().log().to(logits.device)
    return (logits + temperature * noise).argmax(dim=1)
