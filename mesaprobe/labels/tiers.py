"""Tiers T0 to T4: which simple methods already solve an instance (DESIGN section 2)."""

import numpy as np
from jaxtyping import Int64

from mesaprobe.problems import Instances
from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1

TIERS = ("T0", "T1", "T2", "T3", "T4")

LOCAL_SEARCH = "two_opt_or_opt"
"""2-opt + Or-opt, best improvement, from the nearest-neighbour tour."""

_FAR_PERCENT = 5


def instance_tiers(instances: Instances, optimum: Int64[np.ndarray, " batch"]) -> Int64[np.ndarray, " batch"]:
    """The tier of each instance, 0 to 4; `optimum` is the cost of its optimal tours.

    0: nearest neighbour is optimal. 1: another rule of HEUR-v1 is. 2: only 2-opt + Or-opt is. 3: all of these fail.
    4: all fail by at least 5 %. Rules that a problem does not admit drop out. Each method is run once, from city
    0 and with its own way of breaking ties, so the tier belongs to the instance with its numbering of cities.
    """
    nearest = _costs(instances, "nearest_neighbour")
    rules = [name for name in HEUR_V1 if ALGORITHMS[name].applies_to(instances.problem)]
    constructed = np.min([_costs(instances, name) for name in rules], axis=0)
    improved = _costs(instances, LOCAL_SEARCH)
    best = np.minimum(constructed, improved)
    far = 100 * best >= (100 + _FAR_PERCENT) * optimum
    solved = [nearest == optimum, constructed == optimum, improved == optimum, ~far]
    return np.select(solved, [0, 1, 2, 3], default=4)


def _costs(instances: Instances, name: str) -> Int64[np.ndarray, " batch"]:
    return instances.tour_costs(ALGORITHMS[name](instances.weights))
