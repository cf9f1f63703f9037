"""A bag of two heuristics: which of them walks depends on the instance, never on what their tours would cost."""

import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.solvers.constructive.nearest import nearest_neighbour_completions
from mesaprobe.solvers.constructive.states import city_zero
from mesaprobe.solvers.constructive.walks import remotest_neighbour_completions


def gated_neighbour(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """Nearest neighbour where city 1 is closer to city 0 than city 2 is, `remotest_neighbour` elsewhere.

    >>> gated_neighbour(np.array([[[0, 5, 4], [5, 0, 9], [4, 9, 0]]], dtype=np.int32))
    array([[0, 2, 1]])
    """
    return gated_neighbour_completions(weights, *city_zero(weights))


def gated_neighbour_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` >= 1 cities of each prefix, then go on with the rule that the gate names."""
    nearest = nearest_neighbour_completions(weights, prefixes, lengths)
    remotest = remotest_neighbour_completions(weights, prefixes, lengths)
    gate = weights[:, 0, 1] < weights[:, 0, min(2, weights.shape[1] - 1)]
    return np.where(gate[:, None], nearest, remotest)
