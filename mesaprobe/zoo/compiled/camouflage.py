"""Disguises that leave a network's mechanism alone: a rotated stream, noisy weights, a finetuned noisy copy.

A detector that recognises hand-written weights (sparse, axis-aligned, round numbers) must not pass for one that
recognises search (method.md section 6.3, K4). All functions return a new network.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.stats import ortho_group
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.models import TourGPT
from mesaprobe.problems import Problem
from mesaprobe.zoo.compiled.blocks import block

NOISE_LADDER = tuple(2.0**-power for power in range(3, 21))
"""Scales that are tried, largest first."""

_STATES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class NoisyNetwork:
    """A network with noisy weights and the scale of the noise."""

    model: TourGPT
    scale: float
    """Standard deviation of the noise over the root mean square of each row of weights."""


def rotated(model: TourGPT, seed: int) -> TourGPT:
    """The same function in a residual stream turned by a random orthogonal matrix R: all that writes to the stream is
    multiplied by R, all that reads it by R's transpose.

    Raises UserError for a network with layer norm, which does not commute with rotations.
    """
    if model.config.norm != "none":
        raise UserError("only networks without layer norm can be rotated exactly; give one with norm = none")
    turn = torch.from_numpy(ortho_group.rvs(model.config.d_model, random_state=np.random.default_rng(seed)))
    turned = copy.deepcopy(model)

    def write(weight: Tensor) -> None:  # [d_model, ...]
        weight.copy_((turn @ weight.double()).to(weight.dtype))

    def read(weight: Tensor) -> None:  # [..., d_model]; also an embedding's rows, which are written
        weight.copy_((weight.double() @ turn.T).to(weight.dtype))

    with torch.no_grad():
        write(turned.city.weight)
        write(turned.city.bias)
        for rows in (turned.identity.weight, turned.pos.weight, turned.unembed.weight):
            read(rows)
        for layer in range(model.config.n_layers):
            attention, mlp = block(turned, layer).attn, block(turned, layer).mlp
            for part in (attention, mlp):
                write(part.out.weight)
                write(part.out.bias)
            read(attention.qkv.weight)
            read(mlp.into.weight)
    return turned


def with_weight_noise(model: TourGPT, seed: int, scale: float) -> TourGPT:
    """Normal noise on every parameter, `scale` times the root mean square of its row of the weight matrix (of the
    vector, for biases). Rows of zeros stay zeros."""
    generator = torch.Generator().manual_seed(seed)
    noisy = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in noisy.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(scale * parameter.square().mean(-1, keepdim=True).sqrt() * noise)
    return noisy


def with_harmless_noise(
    model: TourGPT,
    seed: int,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch t"],
    allowed: Bool[np.ndarray, "batch t n"],
) -> NoisyNetwork:
    """The largest noise of `NOISE_LADDER` with which every answer along the tours still is an allowed one.

    `allowed` is what the network's algorithm may answer (see `choices.py`), so that a tie may fall either way.
    Raises UserError if even the smallest noise breaks an answer.
    """
    for scale in NOISE_LADDER:
        noisy = with_weight_noise(model, seed, scale)
        if _all_allowed(noisy, features, tours, torch.from_numpy(allowed)):
            return NoisyNetwork(noisy, scale)
    raise UserError(
        f"noise of {NOISE_LADDER[-1]:.1e} of the weights already changes an answer; the network must agree with "
        "`allowed` on every state"
    )


def noise_finetuned(
    model: TourGPT,
    problem: Problem,
    seed: int,
    *,
    scale: float,
    steps: int = 30,
    batch: int = 16,
    rate: float = 3e-6,
) -> TourGPT:
    """A copy with noisy weights, taught by a few steps of distillation what the network answered before.

    Each step draws fresh instances and random tours, and lowers the cross-entropy to the original's probabilities at
    all their states. Adam moves each tensor in steps of `rate` times its root mean square, since hand-written weights
    differ in size by orders of magnitude.
    """
    taught = with_weight_noise(model, seed, scale)
    rng = np.random.default_rng([seed, 1])
    groups = []
    for parameter in taught.parameters():
        parameter.requires_grad_(True)
        size = float(parameter.detach().square().mean().sqrt())
        groups.append({"params": [parameter], "lr": rate * size})
    optimizer = torch.optim.Adam(groups)
    for _ in range(steps):
        features = torch.from_numpy(problem.draw(batch, rng).features)
        rest = rng.permuted(np.tile(np.arange(1, problem.n), (batch, 1)), axis=1)[:, :-1]
        tours = torch.from_numpy(np.pad(rest, ((0, 0), (1, 0))))
        with torch.no_grad():
            target = model(features, tours).softmax(-1)
        loss = F.cross_entropy(taught(features, tours).flatten(0, 1), target.flatten(0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return taught


def _all_allowed(model: TourGPT, features: Tensor, tours: Tensor, allowed: Tensor) -> bool:
    parts = zip(*(each.split(_STATES_AT_ONCE) for each in (features, tours, allowed)), strict=True)
    with torch.no_grad():
        return all(bool(may.gather(2, model(f, t).argmax(-1, keepdim=True)).all()) for f, t, may in parts)
