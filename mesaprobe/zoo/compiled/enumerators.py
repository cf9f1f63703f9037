"""Enumerators: one SoLU unit per directed tour, a soft argmin over all of them (P1, P2 of method.md section 6.1).

    layer 0, heads   fill `prefix` (the tour so far) and `distance` (the matrix), at every token
    layer 0, units   one per tour: score tour - cost (`soft_argmin.py`), ruled out where the tour departs from the
                     prefix; the winner writes its edges to `successor[u, v]`; tours of equal cost share the win
    layer 1, units   (u, v): pass `successor[u, v]` on to `answer[v]` if u is the current city

A parallel enumerator compares whole tours inside one softmax: it holds no value per option before the output
(method.md section 5, E7, blind spot), and with a sharp softmax what lost leaves no trace behind layer 0.
Layer 1 needs n (n - 1) units only; the others of its d_mlp idle.
"""

import numpy as np
from jaxtyping import Float64, Int64

from mesaprobe.models import TourGPT
from mesaprobe.zoo.compiled.blocks import (
    blank_network,
    set_answer,
    set_distance_heads,
    set_prefix_heads,
    set_units,
)
from mesaprobe.zoo.compiled.layout import Layout, stream_layout
from mesaprobe.zoo.compiled.nearest import set_nearest_units
from mesaprobe.zoo.compiled.soft_argmin import LOGITS_PER_SCORE, SHARPNESS, Scores
from mesaprobe.zoo.compiled.tours import all_tours, listed_tours


def exhaustive_enumerator(n: int, levels: int, *, sharpness: float = SHARPNESS) -> TourGPT:
    """P1: all (n - 1)! directed tours, n <= 9. Takes an optimal next city at every legal state (see `SHARPNESS`).

    Optimal cities share the win in proportion to the number of optimal tours that go there next.

    >>> import torch
    >>> weights = torch.tensor([[[0, 9, 3, 5], [9, 0, 2, 4], [3, 2, 0, 7], [5, 4, 7, 0]]])
    >>> exhaustive_enumerator(4, 10)(weights / 10, torch.tensor([[0, 2, 1]])).argmax(-1)
    tensor([[2, 1, 3]])
    """
    return _tour_chooser(n, levels, all_tours(n), sharpness=sharpness, first_edge_only=False, fallback=False)


def first_edge_enumerator(n: int, levels: int, *, sharpness: float = SHARPNESS) -> TourGPT:
    """The shell of P1 with a heuristic inside: nearest neighbour at every state, in the enumerator's architecture.

    It has all weights of P1 but those of the distance heads' queries and keys: only the current city's row of the
    matrix arrives, so all that a tour's unit knows of its cost is the edge from the current city to its successor.
    Every unvisited city is next in the same number of tours that fit the prefix, so the nearest wins.
    """
    return _tour_chooser(n, levels, all_tours(n), sharpness=sharpness, first_edge_only=True, fallback=False)


def best_of_k_enumerator(n: int, levels: int, *, k: int, seed: int = 0, sharpness: float = SHARPNESS) -> TourGPT:
    """P2: the k directed tours of `listed_tours(n, k, seed)`; the best that fits the prefix gives the next city.

    Where none fits, n - 1 further units of the same softmax take the nearest unvisited city (how often:
    `choices.no_listed_tour`; never along the network's own rollouts).
    """
    tours = listed_tours(n, k, seed)
    return _tour_chooser(n, levels, tours, sharpness=sharpness, first_edge_only=False, fallback=True)


def _tour_chooser(
    n: int,
    levels: int,
    tours: Int64[np.ndarray, "tour n"],
    *,
    sharpness: float,
    first_edge_only: bool,
    fallback: bool,
) -> TourGPT:
    scores = Scores(n, levels, sharpness)
    layout = stream_layout(n, prefix=(n, n), distance=(n, n), successor=(n, n), answer=(n,))
    candidates = len(tours) + (n - 1 if fallback else 0)
    model = blank_network(layout, n, n_layers=2, n_heads=(n - 1) * (n + 1), d_mlp=max(candidates, n * (n - 1)))
    head = set_prefix_heads(model, layout, 0, 0)
    set_distance_heads(model, layout, 0, head, current_only=first_edge_only)
    reads = -_cost(layout, tours) - scores.big * _departures(layout, tours)
    writes = _edges(layout, "successor", tours)
    set_units(model, 0, 0, reads=scores.nats * reads, bias=scores.nats * scores.tour, writes=writes / scores.nats)
    if fallback:
        set_nearest_units(model, layout, 0, len(tours), scores)
    _set_successor_units(model, layout, 1, scores)
    set_answer(model, layout)
    return model


def _cost(layout: Layout, tours: Int64[np.ndarray, "tour n"]) -> Float64[np.ndarray, "tour d_model"]:
    """Reads the cost of each tour: the incidence of its directed edges on slot `distance`."""
    return _edges(layout, "distance", tours)


def _departures(layout: Layout, tours: Int64[np.ndarray, "tour n"]) -> Float64[np.ndarray, "tour d_model"]:
    """Reads at how many places the prefix has another city than the tour."""
    k, n = tours.shape
    reads = np.zeros((k, layout.d_model))
    reads[:, layout["prefix"][1:, 1:].ravel()] = 1.0
    reads[np.arange(k)[:, None], layout["prefix"][np.arange(1, n), tours[:, 1:]]] = 0.0
    return reads


def _edges(layout: Layout, slot: str, tours: Int64[np.ndarray, "tour n"]) -> Float64[np.ndarray, "tour d_model"]:
    """1 at the coordinate of each directed edge of the tour in an [n, n] slot."""
    vectors = np.zeros((len(tours), layout.d_model))
    vectors[np.arange(len(tours))[:, None], layout[slot][tours, np.roll(tours, -1, axis=1)]] = 1.0
    return vectors


def _set_successor_units(model: TourGPT, layout: Layout, layer: int, scores: Scores) -> None:
    """n (n - 1) units (u, v): what slot `successor` says of edge u -> v, if u is the current city.

    Its value is a tour's score, at most `scores.tour`; twice the largest pre-activation rules out the other rows.
    """
    n, ruled_out = model.n, 2 * LOGITS_PER_SCORE * scores.tour
    edges = [(u, v) for u in range(n) for v in range(n) if u != v]
    reads = np.stack(
        [
            layout.vector((layout["successor"][u, v], LOGITS_PER_SCORE), (layout["identity"][u], ruled_out))
            for u, v in edges
        ]
    )
    writes = np.stack([layout.vector((layout["answer"][v], 1.0)) for _, v in edges])
    set_units(model, layer, 0, reads=reads, bias=-ruled_out, writes=writes)
