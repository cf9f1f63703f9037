"""Activations at sites: which hook, and at which token (DESIGN section 2)."""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mesaprobe.models.subject import Subject

_STREAM = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|attn_out|mlp_out|resid_post)")


@dataclass(frozen=True)
class Site:
    """A hook point and a position role: `decode` is the token that answers the state, `city` a city's own token."""

    hook: str
    role: Literal["decode", "city"]
    layer: int
    kind: str

    def __str__(self) -> str:
        return f"{self.hook} @ {self.role}"


def residual_sites(subject: Subject, roles: tuple[Literal["decode", "city"], ...] = ("decode", "city")) -> list[Site]:
    """The sites of residual width: what enters the first layer, then what each layer writes and leaves.

    Empty for a network that has no hook points of these names.
    """
    found = []
    for name in subject.hook_names:
        match = _STREAM.fullmatch(name)
        if match and not (match[2] == "resid_pre" and match[1] != "0"):
            found.append((int(match[1]), match[2], name))
    order = ["resid_pre", "attn_out", "mlp_out", "resid_post"]
    found.sort(key=lambda entry: (entry[0], order.index(entry[1])))
    return [Site(name, role, layer, kind) for role in roles for layer, kind, name in found]


def collect_activations(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch n"],
    steps: slice,
    cities: Int[Tensor, "batch step"],
    sites: list[Site],
    *,
    chunk: int = 512,
) -> Float[Tensor, "site batch step d_model"]:
    """Activations of the states `tours[:, :t + 1]` for every t in `steps`, on the CPU in float32.

    At sites of role `city` the token of `cities[b, s]` is read. Networks that answer all states in one pass are
    run once per instance, others once per state. Peak memory is the result plus one chunk.
    """
    numbers = range(tours.shape[1])[steps]
    if cities.shape != (len(tours), len(numbers)):
        raise ValueError(f"cities must have shape (batch, step) = ({len(tours)}, {len(numbers)}), got {cities.shape}")
    hooks = list(dict.fromkeys(site.hook for site in sites))
    result: Tensor | None = None
    for start in range(0, len(features), chunk):
        rows = slice(start, start + chunk)
        for column, step in enumerate(numbers):
            if column == 0 or not subject.sequential:
                last = numbers[-1] if subject.sequential else step
                seen = subject.activations(features[rows], tours[rows, : last + 1], hooks)
            for index, site in enumerate(sites):
                picked = _at_role(subject, seen[site.hook], site, step, cities[rows, column]).float().cpu()
                if result is None:
                    result = torch.empty(len(sites), len(features), len(numbers), picked.shape[1])
                result[index, rows, column] = picked
    if result is None:
        raise ValueError("no instances were given")
    return result


def _at_role(subject: Subject, seen: Tensor, site: Site, step: int, cities: Tensor) -> Tensor:
    if site.role == "decode":
        return seen[:, subject.decode_position(step + 1)]
    positions = torch.tensor(subject.city_positions)[cities].to(seen.device)
    return seen[torch.arange(len(seen), device=seen.device), positions]
