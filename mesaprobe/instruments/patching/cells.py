"""Where a patch is made: a component of the network (hook, head) at a location (tokens)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.models.subject import Subject
from mesaprobe.registry import Registry


@dataclass(frozen=True, eq=False)
class Location:
    """Tokens that are patched together. A matrix weight d(u, v) stands in two tokens: patch both."""

    label: str
    positions: tuple[int, ...] | Bool[Tensor, "batch pos"]
    """The same positions for every state, or a mask that says for each state which."""
    keys: tuple[int, ...] | None = None
    """For attention patterns, where `positions` are queries: only these keys are replaced, the row renormalised."""

    def mask(self, length: int) -> Bool[Tensor, "#batch pos"]:
        """True at the tokens of this location, in a sequence of `length`."""
        return _token_masks([self.positions], length)[0]


@dataclass(frozen=True, eq=False)
class Cell:
    """One patch: a hook point at a location, of one head where the hook has heads and `head` is given."""

    hook: str
    location: Location
    head: int | None = None

    def __str__(self) -> str:
        head = "" if self.head is None else f" head {self.head}"
        return f"{self.hook}{head} @ {self.location.label}"


@dataclass(frozen=True)
class Component:
    """A kind of hook point that stands once in every layer."""

    hook: str
    by_head: bool = False


COMPONENTS: Registry[Component] = Registry("component")
COMPONENTS.add("residual", Component(r"blocks\.(\d+)\.hook_resid_pre"))
COMPONENTS.add("attention", Component(r"blocks\.(\d+)\.hook_attn_out"))
COMPONENTS.add("mlp", Component(r"blocks\.(\d+)\.hook_mlp_out"))
COMPONENTS.add("head", Component(r"blocks\.(\d+)\.attn\.hook_z", by_head=True))
COMPONENTS.add("pattern", Component(r"blocks\.(\d+)\.attn\.hook_pattern", by_head=True))


def instance_locations(subject: Subject, length: int, joint: Sequence[tuple[int, ...]] = ()) -> list[Location]:
    """One location per city token, then the `joint` groups of city tokens, then one per step of a prefix."""
    cities = [Location(f"city {c}", (position,)) for c, position in enumerate(subject.city_positions)]
    groups = [
        Location("cities " + "+".join(map(str, group)), tuple(subject.city_positions[c] for c in group))
        for group in joint
    ]
    steps = [Location(f"step {t}", (subject.decode_position(t),)) for t in range(1, length + 1)]
    return cities + groups + steps


def component_cells(
    subject: Subject, component: str, locations: Sequence[Location], layers: Sequence[int] | None = None
) -> list[Cell]:
    """The cells of a component (see COMPONENTS): every layer, every head where it has heads, every location.

    Of `pattern`, locations are queries. Raises UserError for a network without hook points of that name.

    >>> from mesaprobe.models import GPTConfig, TourGPT, wrap
    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> subject = wrap(TourGPT(GPTConfig(d_model=8, n_heads=2, d_mlp=8), 6, 6), make_problem(ProblemConfig(n=6)))
    >>> cells = component_cells(subject, "head", instance_locations(subject, length=3), layers=[1])
    >>> len(cells), str(cells[-1])
    (18, 'blocks.1.attn.hook_z head 1 @ step 3')
    """
    kind = COMPONENTS[component]
    found = [(int(match[1]), name) for name in subject.hook_names if (match := re.fullmatch(kind.hook, name))]
    chosen = sorted((layer, name) for layer, name in found if layers is None or layer in layers)
    if not chosen:
        raise UserError(f"{subject.name} has no hook points for the component {component!r} in layers {layers}")
    heads = range(_head_count(subject, chosen[0][1])) if kind.by_head else [None]
    return [Cell(name, location, head) for _, name in chosen for head in heads for location in locations]


def axes(hook: str) -> Literal["stream", "heads", "pattern"]:
    """How a hook's activation is laid out: [batch, pos, d], [batch, pos, head, d] or [batch, head, query, key]."""
    last = hook.rsplit(".", 1)[-1]
    if last in ("hook_pattern", "hook_attn_scores"):
        return "pattern"
    return "heads" if last in ("hook_q", "hook_k", "hook_v", "hook_z", "hook_result") else "stream"


def cell_masks(cells: Sequence[Cell], shape: Sequence[int]) -> Bool[Tensor, "cell #batch *d"]:
    """True at the entries, of an activation of this shape, that belong to each cell; axes of size 1 broadcast.

    The cells share one hook.
    """
    layout = axes(cells[0].hook)
    length, heads = (shape[2], shape[1]) if layout == "pattern" else (shape[1], shape[2])
    tokens = _token_masks([cell.location.positions for cell in cells], length)  # [cell, #batch, pos]
    if layout == "stream":
        if any(cell.head is not None for cell in cells):
            raise ValueError(f"{cells[0].hook} has no heads")
        return tokens.reshape(*tokens.shape, *[1] * (len(shape) - 2))
    head = _token_masks([range(heads) if cell.head is None else (cell.head,) for cell in cells], heads)[:, 0]
    if layout == "heads":
        return tokens[..., None, None] & head[:, None, None, :, None]
    every = range(length)
    keys = _token_masks([every if c.location.keys is None else c.location.keys for c in cells], length)
    return tokens[:, :, None, :, None] & head[:, None, :, None, None] & keys[:, :, None, None, :]


def patched(
    cells: Sequence[Cell],
    masks: Bool[Tensor, "cell #batch *d"],
    base: Float[Tensor, "batch *d"],
    replacement: Float[Tensor, "batch *d"],
) -> Float[Tensor, "cell batch *d"]:
    """The base's activation with each cell's entries replaced in turn; the cells share one hook.

    Rows of an attention pattern that are replaced in part are scaled back to the sum that they had.
    """
    if axes(cells[0].hook) != "pattern" or cells[0].hook.endswith("scores"):
        return torch.where(masks, replacement, base)
    changed = torch.where(masks, replacement.clamp(min=0), base)
    before, after = base.sum(-1, keepdim=True), changed.sum(-1, keepdim=True)
    if not bool((after > 0).all()):
        raise UserError(
            "this patch leaves a token nothing to attend to, so its row of the attention pattern cannot be "
            "renormalised: name fewer keys in the location, or use another ablation"
        )
    return changed * (before / after)


def _token_masks(
    positions: "Sequence[Sequence[int] | Bool[Tensor, 'batch pos']]", length: int
) -> Bool[Tensor, "cell #batch pos"]:
    """Masks of positions that are listed, or given as masks for each state."""
    entries = [(row, at) for row, places in enumerate(positions) if not isinstance(places, Tensor) for at in places]
    listed = torch.zeros(len(positions), 1, length, dtype=torch.bool)
    if entries:
        rows, columns = torch.tensor(entries).T
        listed[rows, 0, columns] = True
    if not any(isinstance(places, Tensor) for places in positions):
        return listed
    masks = [places if isinstance(places, Tensor) else listed[row] for row, places in enumerate(positions)]
    if any(mask.ndim != 2 or mask.shape[1] != length or mask.dtype != torch.bool for mask in masks):
        raise ValueError(f"a mask of positions must be bool [batch, {length}]")
    return torch.stack(torch.broadcast_tensors(*masks))


def _head_count(subject: Subject, hook: str) -> int:
    instance = subject.problem.draw(1, np.random.default_rng(0))
    seen = subject.activations(torch.from_numpy(instance.features), torch.zeros(1, 1, dtype=torch.long), [hook])[hook]
    return int(seen.shape[1 if axes(hook) == "pattern" else 2])
