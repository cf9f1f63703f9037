"""What an answer loses when heads may not look where they look. Every row still sums to 1, every ablation has twins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.instruments.attention.patterns import attention_patterns, pattern_hooks
from mesaprobe.models.subject import Subject
from mesaprobe.solvers.constructive import unvisited

Scores = Float[Tensor, "batch head query key"]

_Run = Callable[[Tensor, Tensor, int], Tensor]
"""Logits under an ablation, of (features, prefixes, column of the state)."""


def knock_out(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    prefixes: Int[Tensor, "batch t"],
    entries: Bool[Tensor, "batch layer head key"],
) -> Float[Tensor, "batch n"]:
    """Next-city logits with these entries of the decode token's attention at 0, the rest of its row scaled to sum 1.

    After Jenner et al. 2024 (one entry), who leave the row as it is. Made at the scores (-inf before the softmax),
    which is the same and exact for saturated heads, too; that the pattern follows is checked. Raises UserError where
    nothing would be left to look at.
    """
    query = subject.decode_position(prefixes.shape[1])

    def cut(scores: Scores, layer: int) -> Scores:
        scores = scores.clone()
        scores[:, :, query] = scores[:, :, query].masked_fill(entries[:, layer].to(scores.device), -torch.inf)
        return scores

    def follows(pattern: Scores, layer: int) -> bool:
        row = pattern[:, :, query].cpu()
        return bool(torch.isfinite(row).all() and (row[entries[:, layer]] == 0).all())

    touched = [layer for layer in range(entries.shape[1]) if entries[:, layer].any()]
    return _with_scores(subject, features, prefixes, touched, cut, follows)


def spread_heads(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    prefixes: Int[Tensor, "batch t"],
    heads: Bool[Tensor, "layer head"],
) -> Float[Tensor, "batch n"]:
    """Next-city logits with these heads ablated at the decode token: they look equally at all that they may see.

    The row still sums to 1, so that what is taken away is the choice of where to look, not the head's usual output.
    """
    query = subject.decode_position(prefixes.shape[1])

    def level(scores: Scores, layer: int) -> Scores:
        scores = scores.clone()
        row = scores[:, :, query]
        flat = torch.where(torch.isfinite(row), torch.zeros_like(row), row)
        scores[:, :, query] = torch.where(heads[layer].to(row.device)[None, :, None], flat, row)
        return scores

    def follows(pattern: Scores, layer: int) -> bool:
        row = pattern[:, heads[layer].to(pattern.device), query]
        return bool(torch.allclose(row.amax(-1) * (row > 0).sum(-1), torch.ones_like(row[..., 0]), atol=1e-4))

    return _with_scores(subject, features, prefixes, range(len(heads)), level, follows)


def _with_scores(
    subject: Subject,
    features: Tensor,
    prefixes: Tensor,
    layers: Sequence[int],
    edit: Callable[[Scores, int], Scores],
    follows: Callable[[Scores, int], bool],
) -> Float[Tensor, "batch n"]:
    """Logits under an edit of attention scores; UserError unless the patterns follow it."""
    names = pattern_hooks(subject)
    edits: dict[str, Callable[..., Tensor]] = {}
    for layer in layers:
        scores = names[layer].replace("hook_pattern", "hook_attn_scores")

        def change(activation: Tensor, hook: object, layer: int = layer) -> Tensor:  # noqa: ARG001
            return edit(activation, layer)

        def check(activation: Tensor, hook: object, layer: int = layer) -> Tensor:  # noqa: ARG001
            if not follows(activation, layer):
                raise UserError(
                    f"the attention pattern of layer {layer} does not follow an edit of its scores: the network makes "
                    "it otherwise, or nothing would be left to look at"
                )
            return activation

        edits |= {scores: change, names[layer]: check}
    return subject.edited_logits(features, prefixes, edits).cpu()


@dataclass(frozen=True, eq=False)
class AblationEffect:
    """What the network's own answer loses, against as many random others."""

    drop: Float64[np.ndarray, "batch step"]
    """Log-probability of its own choice, before minus after, in nats, among unvisited cities."""
    changed: Bool[np.ndarray, "batch step"]
    """It would now go elsewhere."""
    twin_drop: Float64[np.ndarray, "twin batch step"]
    """The same for each random twin."""
    twin_changed: Bool[np.ndarray, "twin batch step"]
    nothing: float
    """Largest change of any logit when nothing is ablated: rounding."""


def head_ablation(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch n"],
    steps: slice,
    heads: Sequence[tuple[int, int]],
    *,
    twins: int = 8,
    seed: int,
) -> AblationEffect:
    """Ablate some (layer, head) together (`spread_heads`); beside it, `twins` times, as many others drawn at random.

    Raises UserError if fewer others than that are left.
    """
    mask = torch.zeros(_head_counts(subject, features, tours), dtype=torch.bool)
    mask[tuple(torch.tensor(heads).T)] = True
    others = torch.nonzero(~mask)
    if len(others) < len(heads):
        raise UserError(
            f"{len(heads)} heads of {mask.numel()} leave only {len(others)} for a random twin; ablate fewer"
        )
    generator = torch.Generator().manual_seed(seed)
    masks = [mask]
    for _ in range(twins):
        drawn = others[torch.randperm(len(others), generator=generator)[: len(heads)]]
        masks.append(torch.zeros_like(mask).index_put(tuple(drawn.T), torch.tensor(True)))

    def without(mask: Tensor) -> _Run:
        return lambda f, p, column: spread_heads(subject, f, p, mask)  # noqa: ARG005

    return _effect(subject, features, tours, steps, [without(mask) for mask in masks])


def entry_knock_out(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch n"],
    steps: slice,
    head: tuple[int, int],
    cities: Int[Tensor, "batch step"],
    *,
    twins: int = 4,
    seed: int,
) -> AblationEffect:
    """Knock out one entry: the head's look from the decode token at one city's token; twins: at another unvisited
    city's, drawn at random. States where no other city is left keep the entry itself as twin."""
    free = torch.from_numpy(unvisited(np.asarray(tours)))[:, steps]
    others = free.scatter(2, cities[..., None], False)
    generator = torch.Generator().manual_seed(seed)
    targets = [cities]
    for _ in range(twins):
        drawn = (torch.rand(others.shape, generator=generator) * others).argmax(2)
        targets.append(torch.where(others.any(2), drawn, cities))
    layers, counts = _head_counts(subject, features, tours)
    positions = torch.tensor(subject.city_positions)

    def without(target: Tensor) -> _Run:
        def run(f: Tensor, p: Tensor, column: int) -> Tensor:
            width = _sequence_length(subject, f, p)
            entries = torch.zeros(len(f), layers, counts, width, dtype=torch.bool)
            entries[torch.arange(len(f)), head[0], head[1], positions[target[:, column]]] = True
            return knock_out(subject, f, p, entries)

        return run

    return _effect(subject, features, tours, steps, [without(target) for target in targets])


def _head_counts(subject: Subject, features: Tensor, tours: Tensor) -> tuple[int, int]:
    """Layers and heads."""
    seen = attention_patterns(subject, features[:1], tours[:1, :1])
    if seen is None:
        raise UserError(f"{subject.name} has no hook points blocks.L.attn.hook_pattern: its heads can't be ablated")
    return seen.shape[1], seen.shape[2]


def _sequence_length(subject: Subject, features: Tensor, prefixes: Tensor) -> int:
    seen = attention_patterns(subject, features[:1], prefixes[:1])
    assert seen is not None
    return seen.shape[-1]


def _effect(
    subject: Subject,
    features: Tensor,
    tours: Tensor,
    steps: slice,
    runs: Sequence[_Run],
) -> AblationEffect:
    """The first run is the ablation, the others are its twins."""
    free = torch.from_numpy(unvisited(np.asarray(tours)))[:, steps]
    drops, changes, nothing = [], [], 0.0
    for column, step in enumerate(range(tours.shape[1])[steps]):
        prefixes, visited = tours[:, : step + 1], ~free[:, column]
        plain = subject.next_city_logits(features, prefixes).cpu()
        idle = torch.zeros(_head_counts(subject, features, tours), dtype=torch.bool)
        nothing = max(nothing, float((spread_heads(subject, features, prefixes, idle) - plain).abs().max()))
        before = plain.masked_fill(visited, -torch.inf).log_softmax(1)
        own = before.argmax(1, keepdim=True)
        after = [run(features, prefixes, column).masked_fill(visited, -torch.inf).log_softmax(1) for run in runs]
        drops.append(torch.stack([(before - log).gather(1, own)[:, 0] for log in after]))
        changes.append(torch.stack([log.argmax(1) != own[:, 0] for log in after]))
    drop, changed = torch.stack(drops, dim=2).double().numpy(), torch.stack(changes, dim=2).numpy()
    return AblationEffect(drop[0], changed[0], drop[1:], changed[1:], nothing)
