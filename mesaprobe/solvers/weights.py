"""The check that every batched solver makes of its weights."""

import numpy as np
from jaxtyping import Int32

from mesaprobe.errors import UserError


def checked_weights(weights: Int32[np.ndarray, "batch n n"]) -> Int32[np.ndarray, "batch n n"]:
    """The same weights as contiguous int32; raises UserError if they are no batch of square integer matrices with
    n >= 2 and entries in 0 .. 2^31 - 1.

    >>> checked_weights(np.array([[[0, -1], [1, 0]]]))
    Traceback (most recent call last):
    ...
    mesaprobe.errors.UserError: weights must lie in 0 .. 2147483647, got -1
    """
    weights = np.asarray(weights)
    if weights.ndim != 3 or weights.shape[1] != weights.shape[2] or weights.shape[1] < 2:
        raise UserError(f"weights must have shape (batch, n, n) with n >= 2, got {weights.shape}")
    if weights.dtype.kind not in "iu":
        raise UserError(f"weights must be whole numbers (int32), got {weights.dtype}")
    for extreme in (int(weights.min(initial=0)), int(weights.max(initial=0))):
        if not 0 <= extreme < 2**31:
            raise UserError(f"weights must lie in 0 .. {2**31 - 1}, got {extreme}")
    return np.ascontiguousarray(weights, dtype=np.int32)
