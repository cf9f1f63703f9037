"""Named slots of the residual stream, so that weights written by hand can be read.

How to compile a network (see `nearest.py` for the shortest example, `enumerators.py` for the longest):

1.  `layout = stream_layout(n, answer=(n,), ...)`: the slots that every network has (below), then your own.
    `layout["distance"][u, v]` is the coordinate of the stream that holds the distance from u to v, and
    `layout.vector((coordinates, weight), ...)` is a direction of the stream: what a head or a unit reads or writes.
2.  `model = blank_network(layout, n, n_layers=..., n_heads=..., d_mlp=...)` (`blocks.py`): all weights zero, apart
    from the embedding, which fills the four slots of every network.
3.  Heads: `set_head(model, layer, head, matches=[(query, key), ...], source=..., target=...)` attends where the sum
    of query(reader) * key(token) is largest and copies the source coordinates there to the target coordinates here.
    The ready ones are `set_prefix_heads` (who stands where in the tour so far) and `set_distance_heads` (the matrix).
4.  Units: `set_units(model, layer, first, reads, bias, writes)`, one row per unit. With SoLU the units of a layer
    are candidates and x * softmax(x) is the soft argmax over all of them: let every candidate that may win have a
    positive pre-activation, and push what must not win far below (`soft_argmin.py` has the scales). `nearest.py` has
    the units of a nearest neighbour that may stand beside others as a fallback.
5.  `set_answer(model, layout)`: logits = slot `answer`, visited cities pushed down.

Slots that the embedding fills, at each token:

    feature [n]     row of the city's distances, divided by `levels` (so every distance lies in [0, 1])
    identity [n]    which city, one-hot; at a tour token: the current city
    position [n]    place in the tour, one-hot; all zero at city tokens, so its sum tells tour tokens from city tokens
    one             1

A tour token holds the row of its own city, so the decode token knows the distances from the current city without
any head. City tokens run the same layers, with an empty prefix; nothing reads what they compute.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

Coordinates = Int64[np.ndarray, "*slot"] | np.int64 | int
"""Places in the residual stream."""


class Layout:
    """Disjoint named slots, laid out in the order given; `d_model` is the width of them all.

    >>> layout = Layout(identity=(3,), distance=(3, 3), one=())
    >>> layout.d_model, int(layout["distance"][1, 0])
    (13, 6)
    """

    def __init__(self, **shapes: Sequence[int]) -> None:
        self._slots: dict[str, np.ndarray] = {}
        self.d_model = 0
        for name, shape in shapes.items():
            size = int(np.prod(shape, dtype=np.int64))
            self._slots[name] = np.arange(self.d_model, self.d_model + size).reshape(tuple(shape))
            self.d_model += size

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def __getitem__(self, name: str) -> Int64[np.ndarray, "*slot"]:
        """The coordinates of a slot, in the slot's shape."""
        return self._slots[name]

    def vector(self, *terms: tuple[Coordinates, float]) -> Float64[np.ndarray, " d_model"]:
        """A direction of the stream: each term adds its weight at all its coordinates.

        >>> Layout(identity=(3,), one=()).vector((1, 2.0), (np.array([1, 3]), 0.5))
        array([0. , 2.5, 0. , 0.5])
        """
        found = np.zeros(self.d_model)
        for coordinates, weight in terms:
            np.add.at(found, np.ravel(coordinates), weight)
        return found


def stream_layout(n: int, **slots: Sequence[int]) -> Layout:
    """The slots that the embedding fills, then a network's own.

    >>> stream_layout(4, answer=(4,)).d_model
    17
    """
    return Layout(feature=(n,), identity=(n,), position=(n,), one=(), **slots)
