"""Control tasks: labels that only a probe which memorises can learn (Hewitt and Liang 2019; method.md section 4).

Their control gives every word type a random label. Here a type is a cell of discretised *local* features of a
decision and a candidate (their distance, the candidate's nearest neighbours), so that the label is a function of what
any network sees at once, arbitrary, and distributed like the target. A probe that scores on it is too strong.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped, UInt64


@dataclass(frozen=True, eq=False)
class ControlTask:
    """A fixed random function of local features with the marginal distribution of a target."""

    edges: tuple[Float64[np.ndarray, " edge"], ...]
    """Bin edges of each local feature."""
    seed: int
    hashes: Float64[np.ndarray, " sample"]
    """Sorted hashes of the samples that it was made from."""
    values: Shaped[np.ndarray, " sample"]
    """Their targets, sorted."""

    def labels(self, local: Float64[np.ndarray, "sample k"]) -> Shaped[np.ndarray, " sample"]:
        """The label of any samples, of seen cells or new ones: the target's quantile at the hash's own quantile."""
        hashes = cell_hashes(local, self.edges, self.seed)
        below = np.searchsorted(self.hashes, hashes, side="left")
        upto = np.searchsorted(self.hashes, hashes, side="right")
        middle = (below + upto) // 2  # the middle of the mass of the sample's cell
        return self.values[np.minimum(middle, len(self.values) - 1)]


def make_control_task(
    local: Float64[np.ndarray, "sample k"], y: Shaped[np.ndarray, " sample"], seed: int, *, bins: int = 6
) -> ControlTask:
    """Draw a control task for the target `y`: class indices or numbers.

    Features are cut into at most `bins` bins of equal mass, cells are put in a random order by a hash, and go to
    labels by quantile matching. The marginal is that of y up to the mass of one cell, so use enough features that
    cells are small, and residualise the labels on Z as the target is. Another seed is another task.

    >>> rng = np.random.default_rng(0)
    >>> local, y = rng.integers(1, 64, size=(5000, 3)).astype(float), rng.choice(3, 5000, p=[0.7, 0.2, 0.1])
    >>> labels = make_control_task(local, y, seed=1).labels(local)
    >>> np.abs(np.bincount(labels) / 5000 - np.bincount(y) / 5000).max() < 0.01
    np.True_
    """
    local, y = np.asarray(local, dtype=np.float64), np.asarray(y)
    if local.ndim != 2 or y.shape != (len(local),) or len(y) == 0:
        raise ValueError(f"a control task needs local features [sample, k] and one target a sample; got {y.shape}")
    edges = tuple(_edges(column, bins) for column in local.T)
    return ControlTask(edges, seed, np.sort(cell_hashes(local, edges, seed)), np.sort(y))


def cell_hashes(
    local: Float64[np.ndarray, "*shape k"], edges: tuple[Float64[np.ndarray, " edge"], ...], seed: int
) -> Float64[np.ndarray, "*shape"]:
    """A number in [0, 1) for each cell of discretised features, fixed by the seed (NaN is a bin of its own).

    For choices among candidates, the candidate with the largest hash is a control label in itself.
    """
    state = np.full(local.shape[:-1], (seed + 1) % 2**64, dtype=np.uint64)
    state = _mix(state)
    for column, cut in enumerate(edges):
        values = local[..., column]
        code = np.where(np.isnan(values), len(cut) + 1, np.searchsorted(cut, values, side="right"))
        state = _mix(state ^ _mix(code.astype(np.uint64) + np.uint64(column << 32)))
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53


def _edges(column: np.ndarray, bins: int) -> np.ndarray:
    known = column[np.isfinite(column)]
    return np.unique(np.quantile(known, np.arange(1, bins) / bins)) if len(known) else np.empty(0)


def _mix(state: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
