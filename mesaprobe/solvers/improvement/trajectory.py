"""What a method that improves whole tours begins with and goes through."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.problems import rotate_to_city_zero


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The tours of one run per instance, each cheaper than the one before; all start at city 0."""

    tours: Int64[np.ndarray, "batch step n"]
    """First the tour the run began with. A run that is shorter than the longest repeats its last tour."""
    lengths: Int64[np.ndarray, " batch"]
    """How many of the tours count, at least 1."""

    @property
    def final(self) -> Int64[np.ndarray, "batch n"]:
        """The last tour of every run."""
        return self.tours[np.arange(len(self.tours)), self.lengths - 1]


def padded(tours: Int64[np.ndarray, "batch step n"], lengths: Int64[np.ndarray, " batch"]) -> Trajectory:
    """The trajectory of which only the first `lengths[b]` tours are filled in."""
    steps = np.minimum(np.arange(tours.shape[1]), lengths[:, None] - 1)
    return Trajectory(np.take_along_axis(tours, steps[:, :, None], axis=1), lengths)


def checked_tours(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Int64[np.ndarray, "batch n"]:
    """A copy of the tours, rotated to city 0; raises UserError unless each names every city once."""
    tours = np.asarray(tours, dtype=np.int64)
    if tours.shape != weights.shape[:2]:
        raise UserError(f"weights of shape {weights.shape} need tours of shape {weights.shape[:2]}, got {tours.shape}")
    wrong = np.flatnonzero((np.sort(tours, axis=1) != np.arange(weights.shape[1])).any(axis=1))
    if len(wrong):
        raise UserError(f"a tour must name every city 0..{weights.shape[1] - 1} once, got {tours[wrong[0]].tolist()}")
    return rotate_to_city_zero(tours)
