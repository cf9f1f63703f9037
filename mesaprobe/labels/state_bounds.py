"""Bounds at decision states, and which next cities they rule out (method.md section 5, E5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.objectives import Objective, edges_left, mirrored_weights
from mesaprobe.labels.remaining import chosen_steps
from mesaprobe.problems import tour_costs
from mesaprobe.solvers.bounds.lower_bounds import BoundKind, action_bounds, path_bounds, prefix_costs
from mesaprobe.solvers.constructive import nearest_neighbour_completions, unvisited
from mesaprobe.solvers.weights import checked_weights

STATE_BOUNDS: tuple[BoundKind, ...] = ("mst", "one_tree", "ascent", "assignment")


@dataclass(frozen=True, eq=False)
class BoundLabels:
    """Bounds on what remains from the current city on, an incumbent for it, and what branch and bound would prune.

    Under the objective `longest` bounds are upper bounds and the incumbent goes to the farthest city.
    """

    kinds: tuple[BoundKind, ...]
    """The relaxation behind each entry of the axis `kind` (see `solvers/bounds.py`)."""
    prefix_costs: Int64[np.ndarray, "batch step"]
    """What the tour has cost up to the current city."""
    bounds: Int64[np.ndarray, "batch step kind"]
    """Bound on V*."""
    action_bounds: Int64[np.ndarray, "batch step n kind"]
    """Bound on Q* of every next city; 0 for visited ones."""
    incumbents: Int64[np.ndarray, "batch step"]
    """Cost of the nearest-neighbour completion (the lowest of equally near cities)."""
    prune: Bool[np.ndarray, "batch step n kind"]
    """Whether prefix cost + bound on Q* reaches the cost of the tour that the incumbent completes, so that going
    there cannot beat it; False for visited cities."""


def bound_labels(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    steps: slice,
    kinds: Sequence[BoundKind] = STATE_BOUNDS,
    objective: Objective = "shortest",
) -> BoundLabels:
    """Bounds, incumbents and prune indicators at the decisions `steps` along the tours; shortest or longest.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> labels = bound_labels(square, np.array([[0, 2, 1, 3]]), slice(0, 1), kinds=["mst"])
    >>> labels.incumbents, labels.bounds[:, :, 0], labels.prune[0, 0, :, 0]
    (array([[4]]), array([[4]]), array([False,  True,  True,  True]))
    """
    if objective not in ("shortest", "longest"):
        raise UserError(f"bounds are defined for the objectives shortest and longest, not {objective!r}")
    weights = checked_weights(weights)
    if objective == "shortest":
        return _lower_bounds(weights, tours, steps, tuple(kinds))
    turned, mirror = mirrored_weights(weights)
    labels = _lower_bounds(turned, tours, steps, tuple(kinds))
    most = mirror[:, None] * edges_left(tours.shape[1], steps)
    free = unvisited(tours)[:, steps, :, None]
    return BoundLabels(
        kinds=labels.kinds,
        prefix_costs=prefix_costs(weights, tours)[:, steps],
        bounds=most[:, :, None] - labels.bounds,
        action_bounds=np.where(free, most[:, :, None, None] - labels.action_bounds, 0),
        incumbents=most - labels.incumbents,
        prune=labels.prune,
    )


def _lower_bounds(weights: np.ndarray, tours: np.ndarray, steps: slice, kinds: tuple[BoundKind, ...]) -> BoundLabels:
    spent = prefix_costs(weights, tours)[:, steps]
    incumbents = _completed_costs(weights, tours, steps) - spent
    free = unvisited(tours)[:, steps, :, None]
    onward = np.stack([action_bounds(weights, tours, kind, steps) for kind in kinds], axis=3)
    return BoundLabels(
        kinds=kinds,
        prefix_costs=spent,
        bounds=np.stack([path_bounds(weights, tours, kind, steps) for kind in kinds], axis=2),
        action_bounds=np.where(free, onward, 0),
        incumbents=incumbents,
        prune=free & (onward >= incumbents[:, :, None, None]),
    )


def _completed_costs(weights: np.ndarray, tours: np.ndarray, steps: slice) -> Int64[np.ndarray, "batch step"]:
    """Cost of the whole tour that nearest neighbour makes of each prefix."""
    lengths = chosen_steps(tours.shape[1], steps) + 1
    costs = [
        tour_costs(weights, nearest_neighbour_completions(weights, tours, np.full(len(tours), length)))
        for length in lengths
    ]
    return np.stack(costs, axis=1)
