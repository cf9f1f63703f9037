"""Resampling by a left-to-right network: the end of the tour is drawn anew from a random cut on, again and again.

What a network that can't fill holes can do in place of edits: the control "A0 with resampling at use only".
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from mesaprobe.decoding.editing import EditRun
from mesaprobe.decoding.refilling import draw, used_cities
from mesaprobe.models.config import UNKNOWN
from mesaprobe.models.subject import Subject
from mesaprobe.problems import tour_costs


def resample_ends(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int[Tensor, "batch n"],
    rounds: int,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
) -> EditRun:
    """`rounds` times: keep a random number of cities, 1 to n - 2, and draw the others in order from the network.

    Every result is kept. A cut is drawn for the whole batch, so that prefixes are equally long; `masked` counts the
    cities drawn.
    """
    n, kept = tours.shape[1], tours.clone()
    costs, sizes = [tour_costs(weights, kept.numpy())], [0]
    for _ in range(rounds):
        cut = int(torch.randint(1, n - 1, (1,), generator=generator))
        kept[:, cut:] = UNKNOWN
        for position in range(cut, n):
            logits = subject.next_city_logits(features, kept[:, :position]).cpu()
            kept[:, position] = draw(logits.masked_fill(used_cities(kept), -torch.inf), generator, temperature)
        costs.append(tour_costs(weights, kept.numpy()))
        sizes.append(n - cut)
    current = np.stack(costs, axis=1)
    masked = np.broadcast_to(np.array(sizes), current.shape)
    return EditRun(kept.numpy(), current, current, masked, np.cumsum(sizes).astype(np.float64))
