"""Greedy decoding: always the most likely city, one left-to-right pass."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mesaprobe.models.subject import Subject

Scores = Callable[[Tensor, Tensor], Tensor]
"""(features [b, n, f], prefixes [b, t]) -> a score of every city as the next one [b, n]."""


@dataclass(frozen=True, eq=False)
class GreedyRollout:
    """Tours named by a network, visited cities masked, and where it would have gone wrong without the mask."""

    tours: Int[Tensor, "batch n"]
    legal: Bool[Tensor, " batch"]
    """True where the most likely city was unvisited at every step, i.e. the unmasked rollout is the same tour."""


def greedy_rollout(subject: Subject, features: Float[Tensor, "batch n f"], *, chunk: int = 1024) -> GreedyRollout:
    """Decode one tour per instance from city 0: at each step the most likely unvisited city."""
    return rollout_by(subject.next_city_logits, features, chunk=chunk)


def rollout_by(scores: Scores, features: Float[Tensor, "batch n f"], *, chunk: int) -> GreedyRollout:
    """The same by any scores of the next city."""
    parts = [_rollout(scores, part) for part in torch.as_tensor(features).split(chunk)]
    return GreedyRollout(torch.cat([p.tours for p in parts]), torch.cat([p.legal for p in parts]))


def _rollout(scores: Scores, features: Tensor) -> GreedyRollout:
    batch, n = features.shape[:2]
    tours = torch.zeros(batch, 1, dtype=torch.long)
    visited = torch.zeros(batch, n, dtype=torch.bool)
    visited[:, 0] = True
    legal = torch.ones(batch, dtype=torch.bool)
    for _ in range(n - 1):
        logits = scores(features, tours).cpu()
        choice = logits.masked_fill(visited, -torch.inf).argmax(dim=1)
        legal &= logits.argmax(dim=1) == choice
        visited[torch.arange(batch), choice] = True
        tours = torch.cat([tours, choice[:, None]], dim=1)
    return GreedyRollout(tours, legal)
