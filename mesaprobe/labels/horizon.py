"""d*: how far a state must be searched before the right city shows (DESIGN section 2, method.md section 2)."""

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from mesaprobe.labels.values import optimal_actions
from mesaprobe.solvers.constructive import nearest_cities
from mesaprobe.solvers.lookahead import lookahead_values


def lookahead_needs(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    action_values: Float64[np.ndarray, "batch decision n"],
    steps: slice,
) -> Int64[np.ndarray, "batch step"]:
    """d* of the decisions `steps` along the tours.

    0 if the nearest city is optimal; else the least k such that enumerating k cities, each completed by nearest
    neighbour, picks an optimal city. Where a rule may pick any of several equals, every one of them must be
    optimal, so the label does not depend on how ties are broken at the decision itself.
    """
    optimal = optimal_actions(action_values)[:, steps]
    needs = np.where(_within(nearest_cities(weights, tours)[:, steps], optimal), 0, -1)
    open_instances = np.flatnonzero((needs < 0).any(axis=1))
    for depth in range(1, weights.shape[1]):
        if len(open_instances) == 0:
            break
        values = lookahead_values(weights[open_instances], tours[open_instances], depth)[:, steps]
        solved = _within(values == values.min(axis=2, keepdims=True), optimal[open_instances])
        rows = needs[open_instances]
        needs[open_instances] = np.where((rows < 0) & solved, depth, rows)
        open_instances = open_instances[(needs[open_instances] < 0).any(axis=1)]
    return needs


def _within(
    picked: Bool[np.ndarray, "batch step n"], allowed: Bool[np.ndarray, "batch step n"]
) -> Bool[np.ndarray, "batch step"]:
    return ~(picked & ~allowed).any(axis=2)
