"""Which instances may exchange their residuals: blocks of a permutation test (method.md section 4, null).

All samples of an instance (its states, positions, candidates) move together, since they are dependent; a block goes
only where a block of the same make-up was, so that each sample lands in a sample of its own (n, step) stratum.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped


@dataclass(frozen=True, eq=False)
class Blocks:
    """Samples laid out by instance, and the classes of instances that are exchangeable."""

    slots: Int64[np.ndarray, "instance slot"]
    """Index of the sample in each slot of an instance, ordered by stratum; -1 where an instance has fewer."""
    kinds: Int64[np.ndarray, " instance"]
    """Instances with the same kind hold the same strata in the same slots."""

    @property
    def movable(self) -> float:
        """Fraction of instances that have a partner to swap with; the others add nothing to a test."""
        return float((np.bincount(self.kinds)[self.kinds] > 1).mean())

    def permutations(self, rng: np.random.Generator, count: int) -> Int64[np.ndarray, "permutation instance"]:
        """For each place the instance whose block moves there; uniform over the swaps inside kinds."""
        sources = np.tile(np.arange(len(self.kinds)), (count, 1))
        for members in self._members():
            sources[:, members] = rng.permuted(sources[:, members], axis=1)
        return sources

    def permute(
        self, values: Shaped[np.ndarray, "sample *rest"], sources: Int64[np.ndarray, " instance"]
    ) -> Shaped[np.ndarray, "sample *rest"]:
        """Values after one permutation, in the order of the samples.

        >>> blocks = instance_blocks(np.array([0, 0, 1, 1]), np.array([1, 2, 1, 2]))
        >>> blocks.permute(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 0]))
        array([3., 4., 1., 2.])
        """
        moved = np.empty_like(values)
        filled = self.slots >= 0
        moved[self.slots[filled]] = values[self.slots[sources][filled]]
        return moved

    def centred(self, values: Float64[np.ndarray, "sample *rest"]) -> Float64[np.ndarray, "instance slot *rest"]:
        """Values by instance and slot, less their mean over the instances of the same kind; 0 in empty slots.

        What a slot has in common (its step, say) is no evidence and does not survive; nor does a lone instance.
        """
        filled = (self.slots >= 0).reshape(*self.slots.shape, *(1,) * (values.ndim - 1))
        laid = np.where(filled, np.asarray(values, dtype=np.float64)[self.slots], 0.0)
        for members in self._members():
            laid[members] -= laid[members].mean(axis=0)
        return laid

    def _members(self) -> list[np.ndarray]:
        order = np.argsort(self.kinds, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.kinds))[:-1])


def instance_blocks(
    groups: Shaped[np.ndarray, " sample"], strata: Shaped[np.ndarray, " sample"] | None = None
) -> Blocks:
    """Blocks of the samples' instances `groups`, exchangeable where they hold the same strata equally often.

    `strata` is an integer a sample (`strata_codes(n, step)`, or the step alone for one n); without it, instances with
    as many samples as each other swap, in the order given. Instances are sorted by their group.

    >>> blocks = instance_blocks(np.array([0, 0, 1, 1, 2]), np.array([1, 2, 2, 1, 1]))
    >>> blocks.slots.tolist(), blocks.kinds.tolist(), round(blocks.movable, 2)
    ([[0, 1], [3, 2], [4, -1]], [1, 1, 0], 0.67)
    """
    groups = np.asarray(groups)
    if len(groups) == 0:
        raise ValueError("blocks need at least one sample")
    codes = np.zeros(len(groups), dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    if codes.shape != groups.shape:
        raise ValueError(f"strata must have one entry a sample: expected {groups.shape}, got {codes.shape}")
    order = np.lexsort((codes, groups))
    counts = np.unique(groups, return_counts=True)[1]
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    slots = np.full((len(counts), counts.max()), -1, dtype=np.int64)
    slots[rows, columns] = order
    make_up = np.where(slots >= 0, codes[slots], -1)
    kinds = np.unique(make_up, axis=0, return_inverse=True)[1].reshape(-1)
    return Blocks(slots, kinds.astype(np.int64))
