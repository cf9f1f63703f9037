"""What is written in place of an activation. The sweep knows nothing of it: a placebo is just another intervention."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from mesaprobe.registry import Registry


class Intervention(Protocol):
    """`(base, written) -> replacement`, all of one shape with the states first; depends on nothing else."""

    def __call__(self, base: Float[Tensor, "batch *d"], source: Float[Tensor, "batch *d"], /) -> Tensor: ...


@dataclass(frozen=True)
class Resample:
    """What is written as it stands: with the activation of another run, resample ablation of the whole site."""

    def __call__(self, base: Tensor, source: Tensor) -> Tensor:  # noqa: ARG002
        return source


@dataclass(frozen=True)
class Identity:
    """The base run's own activation: the effect must be 0, up to the rounding of rows in one batch (1e-6)."""

    def __call__(self, base: Tensor, source: Tensor) -> Tensor:  # noqa: ARG002
        return base


@dataclass(frozen=True)
class NormMatchedRandom:
    """A random direction of the same length as the difference between source and base.

    Entries that are 0 in both stay 0, so that no token attends to what it cannot see. Each state has noise of its
    own, whatever batch it is run in; `first` numbers the first state of the batch.
    """

    seed: int = 0
    first: int = 0

    def __call__(self, base: Tensor, source: Tensor) -> Tensor:
        generator, rows = torch.Generator(), range(self.first, self.first + len(base))
        noise = torch.stack(
            [torch.randn(base.shape[1:], generator=generator.manual_seed((self.seed << 32) + row)) for row in rows]
        ).to(base)
        noise = noise * ((base != 0) | (source != 0))
        size = (source - base).norm(dim=-1, keepdim=True)
        return base + noise / noise.norm(dim=-1, keepdim=True).clamp(min=1e-12) * size


def for_rows(intervention: Intervention, first: int) -> Intervention:
    """The intervention for a batch whose first state is number `first` of all."""
    return replace(intervention, first=first) if isinstance(intervention, NormMatchedRandom) else intervention


Ablation = Callable[[Float[Tensor, "batch *d"]], Float[Tensor, "#batch *d"]]
ABLATIONS: Registry[Ablation] = Registry("ablation")
"""What takes an activation's place, computed from the source run's: `resample`, `mean` or `zero`."""


@ABLATIONS.register("resample")
def resample_ablation(source: Float[Tensor, "batch *d"]) -> Float[Tensor, "batch *d"]:
    """The source run's own: stays on the distribution of activations, and is the default everywhere."""
    return source


@ABLATIONS.register("mean")
def mean_ablation(source: Float[Tensor, "batch *d"]) -> Float[Tensor, "1 *d"]:
    """The mean over the source run's states, position by position; of an attention pattern again a pattern."""
    return source.mean(dim=0, keepdim=True)


@ABLATIONS.register("zero")
def zero_ablation(source: Float[Tensor, "batch *d"]) -> Float[Tensor, "1 *d"]:
    """Zeros: off the distribution, for comparison with the literature only."""
    return torch.zeros_like(source[:1])
