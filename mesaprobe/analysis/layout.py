"""Where to draw the cities: their coordinates, or a plane in which distances are nearly right."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Real

from mesaprobe.problems import Instances


class Layout(NamedTuple):
    """Positions in the plane; `stress` says how far their distances are from the weights (0: exactly)."""

    positions: Float64[np.ndarray, "batch n 2"]
    kind: str
    """coordinates, or mds: metric multidimensional scaling of the weights (SMACOF)."""
    stress: Float64[np.ndarray, " batch"]
    """Kruskal's normalised stress-1."""


def instance_layouts(instances: Instances, seed: int) -> Layout:
    """Layouts of all instances. Asymmetric weights are averaged over both directions first."""
    return plane_layouts(instances.weights, instances.coordinates, seed)


def plane_layouts(
    weights: Int32[np.ndarray, "batch n n"], coordinates: Real[np.ndarray, "batch n 2"] | None, seed: int
) -> Layout:
    """The same for weights and coordinates that belong to no problem; n >= 2."""
    from sklearn.manifold import smacof

    if coordinates is not None:
        return Layout(coordinates.astype(np.float64), "coordinates", np.zeros(len(weights)))
    found = [smacof((w + w.T) / 2.0, n_init=4, random_state=seed, normalized_stress=True) for w in weights]
    return Layout(np.stack([p for p, _ in found]), "mds", np.array([float(s) for _, s in found]))
