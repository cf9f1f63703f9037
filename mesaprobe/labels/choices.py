"""What each rule of HEUR-v1 would do next, at every decision along given tours."""

import numpy as np
from jaxtyping import Int64

from mesaprobe.problems import Instances
from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1


def heuristic_choices(
    instances: Instances, tours: Int64[np.ndarray, "batch n"], steps: slice
) -> dict[str, Int64[np.ndarray, "batch step"]]:
    """The next city by rule, for the rules that apply to the problem (ties broken as the rule does)."""
    batch, n = tours.shape
    found = {}
    for name in HEUR_V1:
        algorithm = ALGORITHMS[name]
        if not algorithm.applies_to(instances.problem):
            continue
        assert algorithm.completions is not None
        columns = [
            algorithm.completions(instances.weights, tours, np.full(batch, step + 1))[:, step + 1]
            for step in range(n - 1)[steps]
        ]
        found[name] = np.stack(columns, axis=1)
    return found
