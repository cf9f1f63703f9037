"""Beam search over prefixes by a network's log-probabilities, all instances side by side."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from mesaprobe.models.subject import Subject
from mesaprobe.problems import tour_costs


@dataclass(frozen=True, eq=False)
class BeamRun:
    """The beam at the end, likeliest tour first."""

    tours: Int64[np.ndarray, "batch width n"]
    costs: Int64[np.ndarray, "batch width"]

    @property
    def likeliest(self) -> Int64[np.ndarray, " batch"]:
        """Cost of the tour that the network holds for the likeliest; no tour is priced for it."""
        return self.costs[:, 0]

    @property
    def best(self) -> Int64[np.ndarray, " batch"]:
        """Cost of the cheapest tour of the beam, all of which are priced."""
        return self.costs.min(axis=1)


def beam_search(
    subject: Subject, features: Float[Tensor, "batch n f"], weights: Int32[np.ndarray, "batch n n"], width: int
) -> BeamRun:
    """Keep the `width` likeliest prefixes at every step, visited cities masked; width 1 is greedy decoding.

    There are (n - 1)! tours: a wider beam holds each once. Forward passes for an instance: at most width * (n - 1).
    """
    batch, n = features.shape[:2]
    prefixes, scores = torch.zeros(batch, 1, 1, dtype=torch.long), torch.zeros(batch, 1)
    for _ in range(n - 1):
        held = prefixes.shape[1]
        logits = subject.next_city_logits(features.repeat_interleave(held, dim=0), prefixes.flatten(0, 1)).cpu()
        visited = (prefixes.flatten(0, 1)[:, :, None] == torch.arange(n)).any(dim=1)
        steps = logits.masked_fill(visited, -torch.inf).log_softmax(dim=1).view(batch, held, n)
        free = n - prefixes.shape[2]
        kept = (scores[:, :, None] + steps).flatten(1).topk(min(width, held * free), dim=1)
        scores, parent, city = kept.values, kept.indices // n, kept.indices % n
        before = prefixes.gather(1, parent[:, :, None].expand(-1, -1, prefixes.shape[2]))
        prefixes = torch.cat([before, city[:, :, None]], dim=2)
    tours = prefixes.numpy()
    costs = tour_costs(np.repeat(weights, tours.shape[1], axis=0), tours.reshape(-1, n))
    return BeamRun(tours, costs.reshape(batch, -1))
