"""Online codes: how briefly a probe tells the labels while it learns them (Voita and Titov 2020; method.md section 4).

Labels are sent block by block; each block is coded by the probe fitted to all blocks before it. A probe that needs
many samples pays for it, whatever its final score. A tie-breaker between sites and targets, never a gate.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, Int64, Shaped

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where blocks end, as parts of the instances (the original's online_l0 setting)."""


def online_blocks(
    groups: Shaped[np.ndarray, " sample"],
    rng: np.random.Generator,
    *,
    orders: int = 5,
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[tuple[Int64[np.ndarray, " row"], ...], ...]:
    """For each of several random orders of instances, the sample indices of each block.

    An instance is sent whole. Blocks that would hold no instance (few instances, small fractions) are left out.

    >>> blocks = online_blocks(np.array([0, 0, 1, 2, 3]), np.random.default_rng(0), orders=2, fractions=(0.5, 1.0))
    >>> [len(order) for order in blocks], sorted(np.concatenate(blocks[0]).tolist())
    ([2, 2], [0, 1, 2, 3, 4])
    """
    instances, member = np.unique(groups, return_inverse=True)
    if list(fractions) != sorted(set(fractions)) or fractions[-1] != 1:
        raise ValueError(f"fractions must rise and end at 1, got {tuple(fractions)}")
    ends = np.unique(np.maximum(1, np.round(np.asarray(fractions) * len(instances)).astype(int)))
    found = []
    for _ in range(orders):
        rank = np.empty(len(instances), dtype=np.int64)
        rank[rng.permutation(len(instances))] = np.arange(len(instances))
        block = np.searchsorted(ends, rank[member], side="right")
        found.append(tuple(np.flatnonzero(block == k) for k in range(len(ends))))
    return tuple(found)


def online_code_length(
    code: Callable[[Int64[np.ndarray, " train"], Int64[np.ndarray, " block"]], float],
    blocks: tuple[tuple[Int64[np.ndarray, " row"], ...], ...],
) -> Float64[np.ndarray, " order"]:
    """Total code length in nats for each order; `code(train, block)` is the summed loss of `block` after `train`.

    For the first block `train` is empty: return what a code without a fit costs (the prior, or g(Z) alone), the
    same for all codes that are compared. Compare codes on the same `blocks`.

    >>> labels = np.array([1, 1, 1, 1])
    >>> laplace = lambda train, block: -len(block) * np.log((labels[train].sum() + 1) / (len(train) + 2))
    >>> blocks = online_blocks(np.arange(4), np.random.default_rng(0), orders=1, fractions=(0.25, 0.5, 1.0))
    >>> online_code_length(laplace, blocks).round(3)  # log(2) + log(3/2) + 2 log(4/3)
    array([1.674])
    """
    return np.array([_length(code, order) for order in blocks])


def compression(
    base: Float64[np.ndarray, " order"], probe: Float64[np.ndarray, " order"]
) -> Float64[np.ndarray, " order"]:
    """L_online(y | Z) / L_online(y | Z, h) - 1 for each order; above 0 where the activations shorten the code.

    >>> compression(np.array([12.0]), np.array([8.0]))
    array([0.5])
    """
    if (np.asarray(probe) <= 0).any():
        raise ValueError("code lengths must be positive; give densities on a grid (classes, or rounded numbers)")
    return np.asarray(base) / np.asarray(probe) - 1


def gaussian_code(
    errors: Float64[np.ndarray, " sample"], variance: float, precision: float
) -> Float64[np.ndarray, " sample"]:
    """Nats to send numbers rounded to `precision`, given predictions with these errors and their fitted variance.

    The approximation holds for a precision well below the standard deviation.

    >>> gaussian_code(np.array([0.0]), 1.0, 0.1).round(3)  # log(sqrt(2 pi) / 0.1)
    array([3.222])
    """
    return 0.5 * (np.log(2 * np.pi * variance) + np.square(errors) / variance) - np.log(precision)


def _length(code: Callable[[np.ndarray, np.ndarray], float], order: tuple[np.ndarray, ...]) -> float:
    sent = np.empty(0, dtype=np.int64)
    total = 0.0
    for block in order:
        total += float(code(sent, block))
        sent = np.concatenate([sent, block])
    return total
