"""Myopic training (arm A4): a decision's loss moves nothing at earlier tour positions (Wu, Morris and Levine 2024).

What is stopped: in every attention layer of the training pass, the query at tour position i reads the keys and values
of tour positions j < i detached from the graph, so no gradient of the loss at i reaches what any layer computes at j,
nor the projections that made those keys and values. What is not stopped: the position's own stream, key and value, and
the instance block. City tokens stand before every decision and have no loss of their own, so all decisions train them,
in this arm as in A0: a plan can still be prepared there. The forward pass is that of the plain network to the last
digits; at use there is no difference between the two.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.models.gpt import Attention, TourGPT
from mesaprobe.training.config import TrainConfig
from mesaprobe.training.objectives import next_city_loss, on_device
from mesaprobe.training.stream import LabelledBatch


def myopic_next_city(network: HookedRootModule, batch: LabelledBatch, config: TrainConfig, step: int) -> Tensor:  # noqa: ARG001
    """The next city at every decision, each decision's loss kept from earlier ones."""
    assert isinstance(network, TourGPT)
    features, tours, targets = on_device(network, batch.features, batch.tours, batch.targets)
    return next_city_loss(myopic_logits(network, features, tours[:, :-1]), targets)


def myopic_logits(
    network: TourGPT, features: Float[Tensor, "batch n f"], tours: Int[Tensor, "batch t"]
) -> Float[Tensor, "batch t n"]:
    """What `network(features, tours)` gives, with other gradients."""
    x = network.embed(features, tours)
    mask = network.mask[: x.shape[1], : x.shape[1]]
    for block in network.blocks:
        x = x + _attend(block.attn, block.ln1(x), mask, network.n)  # type: ignore[operator, arg-type]
        x = x + block.mlp(block.ln2(x))  # type: ignore[operator]
    return network.unembed(network.ln_final(x)[:, network.n :])


def _attend(
    attention: Attention, x: Float[Tensor, "batch pos d"], mask: Bool[Tensor, "pos pos"], n: int
) -> Float[Tensor, "batch pos d"]:
    heads = (3, attention.n_heads, attention.d_head)
    parts = attention.qkv(x).unflatten(-1, heads).unbind(2)
    q, k, v = (part.transpose(1, 2) for part in parts)  # [batch, head, pos, d_head]
    earlier = _earlier_decisions(mask, n)
    scores = torch.where(earlier, q @ k.detach().mT, q @ k.mT) / math.sqrt(attention.d_head)
    pattern = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    z = pattern.masked_fill(earlier, 0.0) @ v + pattern.masked_fill(~earlier, 0.0) @ v.detach()
    return attention.out(z.transpose(1, 2).flatten(2))


def _earlier_decisions(mask: Bool[Tensor, "pos pos"], n: int) -> Bool[Tensor, "pos pos"]:
    """Where a tour position reads another one."""
    index = torch.arange(len(mask), device=mask.device)
    tour = index >= n
    return mask & tour[:, None] & tour & (index[:, None] != index)
