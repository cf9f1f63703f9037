"""What the editing arms are trained on: tours with random positions masked, and what belongs there (no torch here)."""

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from mesaprobe.labels.masked_tours import cheapest_fillings


def random_masks(count: int, n: int, rng: np.random.Generator, least: int = 2) -> Bool[np.ndarray, "count n"]:
    """Masks of k of the n - 1 free positions, k uniform in least..n - 1 and the positions uniform given k.

    >>> masks = random_masks(500, 6, np.random.default_rng(0))
    >>> bool(masks[:, 0].any()), sorted(set(masks.sum(axis=1).tolist()))
    (False, [2, 3, 4, 5])
    """
    sizes = rng.integers(least, n, size=count)
    ranks = rng.random((count, n - 1)).argsort(axis=1).argsort(axis=1)
    return np.concatenate([np.zeros((count, 1), dtype=bool), ranks < sizes[:, None]], axis=1)


def masked_targets(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    masked: Bool[np.ndarray, "batch n"],
    *,
    exact: bool,
    symmetric: bool,
) -> Float32[np.ndarray, "batch n n"]:
    """What belongs at every masked position, zeros elsewhere.

    `exact`: the cheapest of all tours that agree with the known cities, each counting the same, so that no direction
    is preferred and states off the optimal tours are labelled exactly. Otherwise (a teacher that is not optimal) the
    tour itself and, on symmetric problems, its reverse where that agrees too.
    """
    if exact:
        return cheapest_fillings(weights, tours, masked)
    n = tours.shape[1]
    named = (tours[:, :, None] == np.arange(n)).astype(np.float32)
    if symmetric:
        reverse = np.concatenate([tours[:, :1], tours[:, :0:-1]], axis=1)
        agrees = ((reverse == tours) | masked).all(axis=1).astype(np.float32)[:, None, None]
        named = (named + agrees * (reverse[:, :, None] == np.arange(n))) / (1 + agrees)
    return named * masked[:, :, None]
