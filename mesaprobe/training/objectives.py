"""Losses of the arms: what a network is asked on a batch.

An objective takes the network, a labelled batch, the run's config and the step, and returns the loss. It is a function
of these alone (randomness comes from the config's seed and the step), so that a resumed run repeats itself.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.models.config import UNKNOWN
from mesaprobe.models.gpt import TourGPT
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import TrainConfig
from mesaprobe.training.stream import LabelledBatch

Objective = Callable[[HookedRootModule, LabelledBatch, TrainConfig, int], Tensor]


def find_objective(arm: str) -> Objective:
    """The objective of an arm."""
    module, _, name = ARMS[arm].objective.partition(":")
    found: Objective = getattr(importlib.import_module(module), name)
    return found


def next_city_loss(
    logits: Float[Tensor, "batch decision n"], targets: Float[Tensor, "batch decision n"]
) -> Float[Tensor, ""]:
    """Cross-entropy against the teacher's distribution, unmasked: the network must keep track of visited cities."""
    return -(targets * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def next_city(network: HookedRootModule, batch: LabelledBatch, config: TrainConfig, step: int) -> Tensor:  # noqa: ARG001
    """The next city at every decision along the tours, in one pass (arm A0)."""
    features, tours, targets = on_device(network, batch.features, batch.tours, batch.targets)
    return next_city_loss(network(features, tours[:, :-1]), targets)


def next_city_of_loops(network: HookedRootModule, batch: LabelledBatch, config: TrainConfig, step: int) -> Tensor:  # noqa: ARG001
    """The same, read out after every loop from the middle one on, mean over these (arm AL): so that each number of
    loops is an answer of its own."""
    assert isinstance(network, TourGPT)
    features, tours, targets = on_device(network, batch.features, batch.tours, batch.targets)
    loops = network.config.n_layers
    stream, losses = network.embed(features, tours[:, :-1]), []
    for loop in range(loops):
        stream = network(None, None, resid=stream, start_at_layer=loop, stop_at_layer=loop + 1)
        if loop + 1 >= (loops + 1) // 2:
            losses.append(next_city_loss(network(None, None, resid=stream, start_at_layer=loops), targets))
    return torch.stack(losses).mean()


def masked_cities(network: HookedRootModule, batch: LabelledBatch, config: TrainConfig, step: int) -> Tensor:  # noqa: ARG001
    """The cities at masked positions, all in one pass (arm A1)."""
    assert batch.masked is not None
    features, tours, targets, masked = on_device(network, batch.features, batch.tours, batch.targets, batch.masked)
    return masked_loss(network(features, hidden(tours, masked)), targets, masked)


def masked_loss(
    logits: Float[Tensor, "batch n city"], targets: Float[Tensor, "batch n city"], masked: Bool[Tensor, "batch n"]
) -> Float[Tensor, ""]:
    """Cross-entropy at masked positions; every instance weighs the same, however many of its cities are masked."""
    surprise = -(targets * F.log_softmax(logits, dim=-1)).sum(-1)
    return (surprise.sum(-1) / masked.sum(-1)).mean()


def hidden(tours: Int[Tensor, "batch n"], masked: Bool[Tensor, "batch n"]) -> Int[Tensor, "batch n"]:
    """The tours as a bidirectional network reads them.

    >>> hidden(torch.tensor([[0, 2, 1]]), torch.tensor([[False, False, True]]))
    tensor([[ 0,  2, -1]])
    """
    return torch.where(masked, UNKNOWN, tours)


def on_device(network: HookedRootModule, *arrays: np.ndarray) -> Any:
    """The arrays as tensors where the network is."""
    device = next(network.parameters()).device
    return tuple(torch.from_numpy(array).to(device) for array in arrays)
