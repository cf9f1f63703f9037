"""Patching: replace an activation at a location by another one and see how far the answer moves.

An intervention is a frozen callable `(base, source) -> replacement` that the sweep knows nothing about; a placebo
is just another intervention (or another source).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mesaprobe.models.subject import Subject

Intervention = Callable[[Float[Tensor, "... d"], Float[Tensor, "... d"]], Float[Tensor, "... d"]]


@dataclass(frozen=True)
class Location:
    """Token positions that are patched together. A matrix weight d(u, v) stands in two tokens: patch both."""

    label: str
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Resample:
    """The activation of the source run, unchanged (resample ablation, interchange of whole sites)."""

    def __call__(self, base: Tensor, source: Tensor) -> Tensor:  # noqa: ARG002
        return source


@dataclass(frozen=True)
class Identity:
    """The base run's own activation: the effect must be exactly 0."""

    def __call__(self, base: Tensor, source: Tensor) -> Tensor:  # noqa: ARG002
        return base


@dataclass(frozen=True)
class NormMatchedRandom:
    """A random direction of the same length as the difference between source and base."""

    seed: int = 0

    def __call__(self, base: Tensor, source: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(base.shape, generator=generator).to(base)
        size = (source - base).norm(dim=-1, keepdim=True)
        return base + noise / noise.norm(dim=-1, keepdim=True) * size


def instance_locations(subject: Subject, length: int, joint: Sequence[tuple[int, ...]] = ()) -> list[Location]:
    """One location per city token, then the `joint` groups of city tokens, then one per step of a prefix."""
    cities = [Location(f"city {c}", (position,)) for c, position in enumerate(subject.city_positions)]
    groups = [
        Location("cities " + "+".join(map(str, group)), tuple(subject.city_positions[c] for c in group))
        for group in joint
    ]
    steps = [Location(f"step {t}", (subject.decode_position(t),)) for t in range(1, length + 1)]
    return cities + groups + steps


def patch_sweep(
    subject: Subject,
    base: Float[Tensor, "1 n f"],
    source: Float[Tensor, "1 n f"],
    prefix: Int[Tensor, "1 t"],
    hooks: Sequence[str],
    locations: Sequence[Location],
    intervention: Intervention | None = None,
) -> Float[Tensor, "hook location n"]:
    """Next-city logits of the base run with each hook patched at each location in turn.

    `source` is run with the same prefix. All locations of a hook are patched in one batched pass, so hooks must
    be of the form [batch, position, d]. The default intervention is `Resample`.
    """
    replace = intervention or Resample()
    own = subject.activations(base, prefix, hooks)
    other = subject.activations(source, prefix, hooks)
    count = len(locations)
    rows = [row for row, location in enumerate(locations) for _ in location.positions]
    columns = [position for location in locations for position in location.positions]
    logits = []
    for name in hooks:
        patched = replace(own[name][0], other[name][0])

        def edit(activation: Tensor, hook: object, patched: Tensor = patched) -> Tensor:  # noqa: ARG001
            activation = activation.clone()
            activation[rows, columns] = patched[columns]
            return activation

        repeated = base.expand(count, -1, -1), prefix.expand(count, -1)
        logits.append(subject.edited_logits(*repeated, {name: edit}).cpu())
    return torch.stack(logits)


def recovered_fraction(
    logits: Float[Tensor, "*cell n"], base: Float[Tensor, "*#cell n"], source: Float[Tensor, "*#cell n"]
) -> Float[Tensor, "*cell"]:
    """How far a patched run has moved from the base's answer to the source's: 0 = base, 1 = source.

    LD = logit(source's choice) - logit(base's choice); (LD - LD_base) / (LD_source - LD_base) (Zhang and Nanda
    2024, logit difference). `base` and `source` are one run each, or that run once per cell: the same batch
    shape takes rounding out of the comparison. Raises ValueError if both runs prefer the same city.
    """
    wanted, original = (int(x.reshape(-1, x.shape[-1])[0].argmax()) for x in (source, base))
    if wanted == original:
        raise ValueError(f"base and source both choose city {original}: there is nothing to recover")

    def difference(x: Tensor) -> Tensor:
        return x[..., wanted] - x[..., original]

    return (difference(logits) - difference(base)) / (difference(source) - difference(base))
