"""Training on the states of annealed edits (arm A2): masked tours that the network's own edits led to.

A share of each batch forgets the teacher's tours: from a random tour, the network as it is makes a few edits that are
kept by Metropolis' rule on the true cost, at a temperature drawn from the schedule. Positions of the tour that this
leads to are masked, and what belongs there is labelled exactly (the cheapest tours that agree with the rest). Rollouts
depend on the weights, the seed and the step alone, so a resumed run repeats them.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.decoding.editing import edit
from mesaprobe.problems import random_tours
from mesaprobe.training.config import TrainConfig
from mesaprobe.training.masking import masked_targets
from mesaprobe.training.objectives import masked_cities
from mesaprobe.training.stream import LabelledBatch

_ROLLOUTS = 6
"""Branch of the seed."""


def masked_cities_of_rollouts(
    network: HookedRootModule, batch: LabelledBatch, config: TrainConfig, step: int
) -> Tensor:
    """As `masked_cities`, on a batch of which the first share was edited."""
    count = round(config.editing.rollout_share * len(batch.tours))
    return masked_cities(network, _with_rollouts(network, batch, config, step, count) if count else batch, config, step)


def _with_rollouts(
    network: HookedRootModule, batch: LabelledBatch, config: TrainConfig, step: int, count: int
) -> LabelledBatch:
    assert batch.masked is not None
    rng = np.random.default_rng([config.seed, _ROLLOUTS, step])
    settings, weights = config.editing, batch.weights[:count]
    device = next(network.parameters()).device
    starts = torch.from_numpy(random_tours(count, batch.tours.shape[1], rng)).to(device)
    schedule = settings.start * (settings.end / settings.start) ** rng.random(count)
    network.eval()
    with torch.no_grad():
        run = edit(
            network,
            torch.from_numpy(batch.features[:count]).to(device),
            weights,
            starts,
            np.broadcast_to(schedule, (settings.rollout_edits, count)),
            settings.rollout_edits,
            torch.Generator().manual_seed(int(rng.integers(2**31))),
            softmax_temperature=settings.temperature,
        )
    network.train()
    labelled = masked_targets(
        weights, run.tours, batch.masked[:count], exact=config.teacher == "optimal", symmetric=False
    )
    return dataclasses.replace(
        batch,
        tours=np.concatenate([run.tours, batch.tours[count:]]),
        targets=np.concatenate([labelled, batch.targets[count:]]),
    )
