"""Node potentials: smaller weights with the same optimal tours."""

import numpy as np
from jaxtyping import Int32


def reduce_weights(weights: Int32[np.ndarray, "n n"]) -> Int32[np.ndarray, "n n"]:
    """Take from every city what each tour must pay there at least, so that solvers see small numbers.

    Every tour gets cheaper by the same amount. Asymmetric: row minima, then column minima; symmetric: half of
    the row minimum, rounded down, from row and column, which keeps symmetry. Weights >= 0 stay so; n >= 2.

    >>> reduce_weights(np.array([[0, 90, 95], [90, 0, 94], [95, 94, 0]], dtype=np.int32))
    array([[0, 0, 3],
           [0, 0, 2],
           [3, 2, 0]], dtype=int32)
    """
    diagonal = np.eye(len(weights), dtype=bool)
    reduced = np.where(diagonal, np.iinfo(np.int64).max, weights.astype(np.int64))
    if (weights == weights.T).all():
        half = reduced.min(axis=1) // 2
        reduced = reduced - half[:, None] - half
    else:
        reduced -= reduced.min(axis=1, keepdims=True)
        reduced -= reduced.min(axis=0, keepdims=True)
    return np.where(diagonal, 0, reduced).astype(np.int32)
