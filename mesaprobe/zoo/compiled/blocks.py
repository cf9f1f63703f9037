"""Parts of hand-written networks: the embedding, heads that fetch, hidden units, the answer (see `layout.py`)."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mesaprobe.models import GPTConfig, TourGPT
from mesaprobe.models.gpt import Block
from mesaprobe.zoo.compiled.layout import Coordinates, Layout

ATTENTION_NATS = 128.0
"""Nats of attention score per unit of match: exp(-128) is 0 in float32, so the pattern is exactly one-hot."""

IDLE_BIAS = -200.0
"""Pre-activation of units that are not set: with SoLU they would otherwise share the softmax."""

VISITED_LOGIT = -10.0
"""Added to the logit of visited cities. Rollouts are legal without it; it keeps the unlikely far from the illegal."""

Vector = Float64[np.ndarray, " d_model"]
Match = tuple[Vector, Vector]
"""What the reader is asked and what the token is asked; the score is the product of both answers."""


def blank_network(
    layout: Layout, n: int, *, n_layers: int, n_heads: int, d_mlp: int, act_fn: Literal["solu", "relu"] = "solu"
) -> TourGPT:
    """A network without normalisation that computes nothing yet: only the embedding fills its four slots.

    Features are the n distances of the city (family `matrix`). Heads are n wide.
    """
    config = GPTConfig(
        d_model=layout.d_model, n_layers=n_layers, n_heads=n_heads, d_head=n, d_mlp=d_mlp, act_fn=act_fn, norm="none"
    )
    model = TourGPT(config, n, n).eval()
    cities = np.arange(n)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.city.weight[layout["feature"], cities] = 1.0
        model.city.bias[int(layout["one"])] = 1.0
        model.identity.weight[cities, layout["identity"]] = 1.0
        model.pos.weight[cities, layout["position"]] = 1.0
        for layer in range(n_layers):
            block(model, layer).mlp.into.bias.fill_(IDLE_BIAS)
    return model


def block(model: TourGPT, layer: int) -> Block:
    """One layer of the network."""
    found = model.blocks[layer]
    assert isinstance(found, Block)
    return found


def set_head(
    model: TourGPT, layer: int, head: int, *, matches: Sequence[Match], source: Coordinates, target: Coordinates
) -> None:
    """Attend to the token with the largest sum over `matches` of query(reader) * key(token), and add what it holds
    at `source` to this token's `target`, coordinate by coordinate.

    Tokens that tie share the attention; a lead of 1 gives the winner all of it (`ATTENTION_NATS`). At most n
    matches and n coordinates fit a head. It always fetches something: for "nothing", let it find a token whose
    source coordinates are zero.
    """
    attention = block(model, layer).attn
    width = attention.d_head
    source, target = np.ravel(source), np.ravel(target)
    if max(len(matches), len(source)) > width or len(source) != len(target):
        raise ValueError(
            f"a head {width} wide holds up to {width} matches and copies as many coordinates as it fetches, "
            f"got {len(matches)} matches, {len(source)} source and {len(target)} target coordinates"
        )
    queries, keys = (np.stack(side) for side in zip(*matches, strict=True))
    first = head * width
    q, k, v = (part + first for part in np.arange(3) * attention.n_heads * width)
    strength = math.sqrt(ATTENTION_NATS * math.sqrt(width))  # shared evenly by queries and keys
    with torch.no_grad():
        weight = attention.qkv.weight
        weight[q : q + len(matches)] = _tensor(queries * strength)
        weight[k : k + len(matches)] = _tensor(keys * strength)
        weight[v + np.arange(len(source)), source] = 1.0
        attention.out.weight[target, first + np.arange(len(source))] = 1.0


def set_units(
    model: TourGPT,
    layer: int,
    first: int,
    *,
    reads: Float64[np.ndarray, "unit d_model"],
    bias: Float64[np.ndarray, " unit"] | float,
    writes: Float64[np.ndarray, "unit d_model"],
) -> None:
    """Hidden units `first`, `first` + 1, ...: pre-activation = reads . stream + bias, and what each adds to the stream
    per unit of activation."""
    mlp, units = block(model, layer).mlp, slice(first, first + len(reads))
    if first + len(reads) > len(mlp.into.bias):
        raise ValueError(f"units {first} to {first + len(reads) - 1} do not fit d_mlp = {len(mlp.into.bias)}")
    with torch.no_grad():
        mlp.into.weight[units] = _tensor(reads)
        mlp.into.bias[units] = _tensor(np.broadcast_to(bias, len(reads)))
        mlp.out.weight[:, units] = _tensor(writes).T


def set_answer(model: TourGPT, layout: Layout) -> None:
    """Logits: the slot `answer`, and `VISITED_LOGIT` for the cities in slot `prefix` and for city 0."""
    with torch.no_grad():
        for city in range(model.n):
            reads = visited(layout, city) * VISITED_LOGIT + layout.vector((layout["answer"][city], 1.0))
            model.unembed.weight[city] = _tensor(reads)


def city_token(layout: Layout, city: int) -> Vector:
    """1 at this city's token, at most 0 at every other token (tour tokens of the same city too)."""
    return layout.vector((layout["identity"][city], 1.0), (layout["position"], -1.0))


def visited(layout: Layout, city: int) -> Vector:
    """1 if the city stands in the tour so far, read from slot `prefix`; city 0 always does."""
    if city == 0:
        return layout.vector((layout["one"], 1.0))
    return layout.vector((layout["prefix"][:, city], 1.0))


def set_prefix_heads(model: TourGPT, layout: Layout, layer: int, first_head: int) -> int:
    """n - 1 heads that fill slot `prefix` [n, n]: `prefix[t, c]` = 1 if the tour so far has city c at place t >= 1.

    Head t attends to the tour token at place t. Where there is none yet it falls back on city 0's token, from which
    it copies nothing: only cities 1..n-1 are copied. Returns the next free head.
    """
    n, one = model.n, layout.vector((layout["one"], 1.0))
    for place in range(1, n):
        here = layout.vector((layout["position"][place], 3.0))  # 2 are left, since `city_token` takes 1 at tour tokens
        set_head(
            model,
            layer,
            first_head + place - 1,
            matches=[(one, here), (one, city_token(layout, 0))],
            source=layout["identity"][1:],
            target=layout["prefix"][place, 1:],
        )
    return first_head + n - 1


def set_distance_heads(
    model: TourGPT, layout: Layout, layer: int, first_head: int, *, current_only: bool = False
) -> int:
    """n (n - 1) heads that fill slot `distance` [n, n]: `distance[u, v]` = w(u, v) / levels, from u's city token.

    With `current_only`, only the current city's row arrives and the others stay zero: unless u is the current city,
    head (u, v) turns to v's token, where it finds the zero distance from v to itself. Returns the next free head.
    """
    n, head = model.n, first_head
    one = layout.vector((layout["one"], 1.0))
    for u in range(n):
        current = layout.vector((layout["identity"][u], 2.0))
        for v in range(n):
            if u == v:
                continue
            always = [(one, city_token(layout, u))]
            gated = [(current, city_token(layout, u)), (one, city_token(layout, v))]
            set_head(
                model,
                layer,
                head,
                matches=gated if current_only else always,
                source=layout["feature"][v],
                target=layout["distance"][u, v],
            )
            head += 1
    return head


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))
