"""Where to draw the cities: their coordinates, or a plane in which distances are nearly right."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

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
    from sklearn.manifold import smacof

    if instances.coordinates is not None:
        return Layout(instances.coordinates.astype(np.float64), "coordinates", np.zeros(len(instances)))
    found = [smacof((w + w.T) / 2.0, n_init=4, random_state=seed, normalized_stress=True) for w in instances.weights]
    return Layout(np.stack([p for p, _ in found]), "mds", np.array([float(s) for _, s in found]))
