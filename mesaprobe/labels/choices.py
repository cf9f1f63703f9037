"""What rules would do next, at every decision along given tours."""

import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.problems import Instances
from mesaprobe.solvers.algorithms import ALGORITHMS, Completions
from mesaprobe.solvers.known_rules import known_rules

ALL_STEPS = slice(None)


def choices_along(
    completions: Completions,
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    steps: slice = ALL_STEPS,
) -> Int64[np.ndarray, "batch step"]:
    """The city that a rule would name next at each of the decisions `steps` along the tours (default: all n - 1)."""
    batch, n = tours.shape
    columns = [completions(weights, tours, np.full(batch, step + 1))[:, step + 1] for step in range(n - 1)[steps]]
    return np.stack(columns, axis=1)


def heuristic_choices(
    instances: Instances, tours: Int64[np.ndarray, "batch n"], steps: slice
) -> dict[str, Int64[np.ndarray, "batch step"]]:
    """The next city by known rule, for the rules that apply to the problem (ties broken as the rule does)."""
    found = {}
    for name in known_rules(instances.problem):
        completions = ALGORITHMS[name].completions
        assert completions is not None
        found[name] = choices_along(completions, instances.weights, tours, steps)
    return found
