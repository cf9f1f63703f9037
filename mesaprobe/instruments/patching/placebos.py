"""The patch that should do nothing because it is made at the wrong tokens."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mesaprobe.instruments.patching.cells import Cell, Location
from mesaprobe.models.subject import Subject


def elsewhere(
    subject: Subject, cell: Cell, batch: int, prefix: int, sequence: int, generator: torch.Generator
) -> Cell | None:
    """The same patch at other tokens of the same role, as many, drawn for each state; None if too few are left.

    Roles are the city tokens and the steps of the prefix, of `prefix` cities; a token of neither role stays.
    """
    roles = [list(subject.city_positions), [subject.decode_position(t) for t in range(1, prefix + 1)]]
    mask = cell.location.mask(sequence).expand(batch, sequence)
    moved = mask.clone()
    for role in roles:
        drawn = _others(mask[:, role], generator)
        if drawn is None:
            return None
        moved[:, role] = drawn
    location = Location(f"elsewhere than {cell.location.label}", moved, cell.location.keys)
    return Cell(cell.hook, location, cell.head)


def _others(mask: Bool[Tensor, "batch token"], generator: torch.Generator) -> Bool[Tensor, "batch token"] | None:
    """As many tokens in each row as are marked, drawn among those that are not."""
    wanted: Int[Tensor, "batch 1"] = mask.sum(dim=1, keepdim=True)
    if bool((2 * wanted > mask.shape[1]).any()):
        return None
    order = torch.rand(mask.shape, generator=generator).masked_fill(mask, 2.0).argsort(dim=1)
    return order.argsort(dim=1) < wanted
