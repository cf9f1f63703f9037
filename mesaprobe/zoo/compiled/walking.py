"""Walking rules: the next city is the one of least key, a fixed sum of three things known of each city."""

import math
from dataclasses import dataclass

import numpy as np

from mesaprobe.models import TourGPT
from mesaprobe.zoo.compiled.blocks import (
    blank_network,
    set_answer,
    set_distance_heads,
    set_prefix_heads,
    set_units,
    visited,
)
from mesaprobe.zoo.compiled.layout import stream_layout
from mesaprobe.zoo.compiled.soft_argmin import SHARPNESS, STEP_LOGITS, Scores


@dataclass(frozen=True)
class Key:
    """key(v) = own d(c, v) + depot d(0, v) + mean m(v): c is the current city, m(v) the mean distance from v to the
    other cities. The unvisited city of least key comes next.
    """

    own: float = 0.0
    depot: float = 0.0
    mean: float = 0.0

    @property
    def largest(self) -> float:
        """With distances in [0, 1]."""
        return sum(max(x, 0.0) for x in (self.own, self.depot, self.mean))

    @property
    def shift(self) -> float:
        """Added to a key, makes it at least 0."""
        return -sum(min(x, 0.0) for x in (self.own, self.depot, self.mean))


NEAREST = Key(own=1.0)
KEYS = {
    "farthest_neighbour": Key(own=-1.0),
    "remotest_neighbour": Key(own=1.0, mean=-1.0),
    "radial_order": Key(depot=1.0),
    "sequential_savings": Key(own=1.0, depot=-1.0),
}
"""By the library's names (`solvers/constructive/walks.py`)."""


def walking_rule_network(
    n: int, levels: int, key: Key, *, enumerator_shell: bool = False, sharpness: float = SHARPNESS
) -> TourGPT:
    """A walking rule in one layer: heads fetch the tour so far and the matrix, n - 1 units hold the keys.

    With `enumerator_shell` the network has exactly the shape of the exhaustive enumerator (`exhaustive_enumerator`):
    all that tells them apart is what the weights say. Cities of equal key get equal logits.

    >>> import torch
    >>> weights = torch.tensor([[[0, 9, 3, 5], [9, 0, 2, 4], [3, 2, 0, 7], [5, 4, 7, 0]]])
    >>> walking_rule_network(4, 10, KEYS["farthest_neighbour"])(weights / 10, torch.tensor([[0, 1, 3]])).argmax(-1)
    tensor([[1, 3, 2]])
    """
    scores = Scores(n, levels, sharpness)
    layout = stream_layout(n, prefix=(n, n), distance=(n, n), successor=(n, n), answer=(n,))
    model = blank_network(
        layout,
        n,
        n_layers=2 if enumerator_shell else 1,
        n_heads=(n - 1) * (n + 1),
        d_mlp=math.factorial(n - 1) if enumerator_shell else n - 1,
    )
    head = set_prefix_heads(model, layout, 0, 0)
    set_distance_heads(model, layout, 0, head)
    cities = range(1, n)
    others = {v: [u for u in range(n) if u != v] for v in cities}
    reads = np.stack(
        [
            -layout.vector(
                (layout["feature"][v], key.own),
                (layout["distance"][0, v], key.depot),
                (layout["distance"][v, others[v]], key.mean / (n - 1)),
            )
            - scores.big * visited(layout, v)
            for v in cities
        ]
    )
    writes = np.stack([layout.vector((layout["answer"][v], STEP_LOGITS / scores.nats)) for v in cities])
    bias = scores.nats * (scores.gap + key.largest)  # the largest key still scores `gap`
    set_units(model, 0, 0, reads=scores.nats * reads, bias=bias, writes=writes)
    set_answer(model, layout)
    return model
