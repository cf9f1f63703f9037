"""Nearest neighbour: its own network (N6 of method.md section 6.2), and units that other networks fall back on."""

import numpy as np

from mesaprobe.models import TourGPT
from mesaprobe.zoo.compiled.blocks import blank_network, set_answer, set_prefix_heads, set_units, visited
from mesaprobe.zoo.compiled.layout import Layout, stream_layout
from mesaprobe.zoo.compiled.soft_argmin import SHARPNESS, STEP_LOGITS, Scores


def nearest_neighbour_network(n: int, levels: int, *, sharpness: float = SHARPNESS) -> TourGPT:
    """N6: one layer, n - 1 heads that find who is visited, n - 1 units that compare the distances to the others.

    Names the nearest unvisited city at every state; equally near cities get equal logits.

    >>> import torch
    >>> weights = torch.tensor([[[0, 9, 3, 5], [9, 0, 2, 4], [3, 2, 0, 7], [5, 4, 7, 0]]])
    >>> nearest_neighbour_network(4, 10)(weights / 10, torch.tensor([[0, 2, 1]])).argmax(-1)
    tensor([[2, 1, 3]])
    """
    layout = stream_layout(n, prefix=(n, n), answer=(n,))
    model = blank_network(layout, n, n_layers=1, n_heads=n - 1, d_mlp=n - 1)
    set_prefix_heads(model, layout, 0, 0)
    set_nearest_units(model, layout, 0, 0, Scores(n, levels, sharpness))
    set_answer(model, layout)
    return model


def set_nearest_units(model: TourGPT, layout: Layout, layer: int, first: int, scores: Scores) -> int:
    """n - 1 units, one per city v >= 1: score step - d(current, v), ruled out if v is visited; writes `answer[v]`.

    Needs slot `prefix` filled; the distances are the current token's own row. Beside tour units they win only
    where no tour fits. Returns the next free unit.
    """
    n = model.n
    cities = range(1, n)
    reads = np.stack([-layout.vector((layout["feature"][v], 1.0)) - scores.big * visited(layout, v) for v in cities])
    writes = np.stack([layout.vector((layout["answer"][v], STEP_LOGITS / scores.nats)) for v in cities])
    set_units(model, layer, first, reads=scores.nats * reads, bias=scores.nats * scores.step, writes=writes)
    return first + n - 1
