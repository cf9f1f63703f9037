"""Constructive heuristics, batched: rules that build one tour, and what they would do next at any state.

Every rule returns tours from city 0. `X_completions(weights, prefixes, lengths)` applies rule X with the path
through the first `lengths[b]` cities of the prefix forced, so that `tours[b, lengths[b]]` is the city that X
would name next there; each says what forced means for it. A rule that draws takes one seed per instance.
"""

from mesaprobe.solvers.constructive.greedy_edge import (
    greedy_edge,
    greedy_edge_completions,
    savings,
    savings_completions,
)
from mesaprobe.solvers.constructive.insertion import (
    cheapest_insertion,
    cheapest_insertion_completions,
    farthest_insertion,
    farthest_insertion_completions,
    nearest_insertion,
    nearest_insertion_completions,
    random_insertion,
)
from mesaprobe.solvers.constructive.mixture import gated_neighbour, gated_neighbour_completions
from mesaprobe.solvers.constructive.nearest import (
    nearest_neighbour,
    nearest_neighbour_completions,
    randomised_nearest_neighbour,
)
from mesaprobe.solvers.constructive.planar import hull_insertion, space_filling_curve, sweep
from mesaprobe.solvers.constructive.spanning_tree import mst_preorder, mst_preorder_completions
from mesaprobe.solvers.constructive.states import nearest_cities, step_weights, unvisited
from mesaprobe.solvers.constructive.walks import (
    farthest_neighbour,
    farthest_neighbour_completions,
    penalty_neighbour,
    penalty_neighbour_completions,
    radial_order,
    radial_order_completions,
    remotest_neighbour,
    remotest_neighbour_completions,
    sequential_savings,
    sequential_savings_completions,
)

__all__ = [
    "cheapest_insertion",
    "cheapest_insertion_completions",
    "farthest_insertion",
    "farthest_insertion_completions",
    "farthest_neighbour",
    "farthest_neighbour_completions",
    "gated_neighbour",
    "gated_neighbour_completions",
    "greedy_edge",
    "greedy_edge_completions",
    "hull_insertion",
    "mst_preorder",
    "mst_preorder_completions",
    "nearest_cities",
    "nearest_insertion",
    "nearest_insertion_completions",
    "nearest_neighbour",
    "nearest_neighbour_completions",
    "penalty_neighbour",
    "penalty_neighbour_completions",
    "radial_order",
    "radial_order_completions",
    "random_insertion",
    "randomised_nearest_neighbour",
    "remotest_neighbour",
    "remotest_neighbour_completions",
    "savings",
    "savings_completions",
    "sequential_savings",
    "sequential_savings_completions",
    "space_filling_curve",
    "step_weights",
    "sweep",
    "unvisited",
]
