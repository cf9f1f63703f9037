"""All labels of a batch of decision states in one call (method.md sections 1, 2 and 5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.best_tours import BestTours, best_tours
from mesaprobe.labels.completions import CompletionLabels, completion_labels
from mesaprobe.labels.difficulty import InstanceDifficulty, instance_difficulty
from mesaprobe.labels.horizon import lookahead_needs
from mesaprobe.labels.objectives import Objective, mirrored_weights
from mesaprobe.labels.remaining import chosen_steps
from mesaprobe.labels.state_bounds import BoundLabels, bound_labels
from mesaprobe.labels.values import ValueLabels, decision_steps, value_labels
from mesaprobe.problems import Instances
from mesaprobe.solvers.exact.held_karp import action_values

Family: TypeAlias = Literal["values", "completions", "bounds", "needs", "best_tours", "difficulty"]
FAMILIES: tuple[Family, ...] = get_args(Family)

_DEFINED: dict[Objective, tuple[Family, ...]] = {
    "shortest": FAMILIES,
    "longest": ("values", "completions", "bounds", "needs", "best_tours"),
    "bottleneck": ("values", "completions"),
}


@dataclass(frozen=True, eq=False)
class DecisionLabels:
    """Labels of the decisions `steps` along one tour per instance; a family that was not asked for is None."""

    objective: Objective
    steps: Int64[np.ndarray, " step"]
    """The decisions: step t is the state after the first t + 1 cities of the tour."""
    values: ValueLabels | None = None
    """Q*, V*, regret, optimal and runner-up cities, margin."""
    completions: CompletionLabels | None = None
    """Edges of the optimal completions after every candidate, of the chosen ones and of the runner-up's."""
    bounds: BoundLabels | None = None
    """Bounds, incumbents, prune indicators."""
    needs: Int64[np.ndarray, "batch step"] | None = None
    """d*."""
    best_tours: BestTours | None = None
    """The best distinct tours that keep the prefix."""
    difficulty: InstanceDifficulty | None = None
    """Of the whole instance: tier, nearly optimal tours, branch and bound."""


def label_decisions(
    instances: Instances,
    tours: Int64[np.ndarray, "batch n"],
    steps: slice | None = None,
    which: Sequence[Family] | None = None,
    objective: Objective = "shortest",
) -> DecisionLabels:
    """The families `which` (default: all that the objective has) at the decisions `steps` (default: `decision_steps`)
    along the tours, which start at city 0 and need not be optimal; n <= 20.

    `objective` other than `shortest` gives the twins of the same targets: `longest` all but `difficulty`,
    `bottleneck` the `values` and `completions`. No label depends on which of several optima a solver returns.
    Where a label is what a procedure does (incumbents, the completions inside d*, tiers, branch and bound),
    equal weights are taken in the order of city numbers.

    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> from mesaprobe.solvers.exact.held_karp import held_karp
    >>> instances = make_problem(ProblemConfig(n=8)).draw(50, np.random.default_rng(0))
    >>> labels = label_decisions(instances, held_karp(instances.weights).tours, which=["values", "needs"])
    >>> labels.values.regrets.shape, labels.needs.shape, labels.bounds
    ((50, 3, 8), (50, 3), None)
    """
    steps = decision_steps(instances.problem) if steps is None else steps
    defined = _DEFINED.get(objective)
    if defined is None:
        raise UserError(f"unknown objective {objective!r}; known: {', '.join(_DEFINED)}")
    for family in which or ():
        if family not in defined:
            raise UserError(f"the objective {objective} has no labels {family!r}; it has {', '.join(defined)}")
    makers: dict[Family, Callable[[], Any]] = {
        "values": lambda: value_labels(instances.weights, tours, steps, objective),
        "completions": lambda: completion_labels(
            instances.weights, tours, steps, instances.problem.symmetric, objective
        ),
        "bounds": lambda: bound_labels(instances.weights, tours, steps, objective=objective),
        "best_tours": lambda: best_tours(
            instances.weights, tours, steps, instances.problem.symmetric, objective=objective
        ),
        "needs": lambda: _needs(instances.weights, tours, steps, objective),
        "difficulty": lambda: instance_difficulty(instances),
    }
    found = {family: makers[family]() for family in (defined if which is None else which)}
    return DecisionLabels(objective, chosen_steps(instances.problem.n, steps), **found)


def _needs(weights: np.ndarray, tours: np.ndarray, steps: slice, objective: Objective) -> np.ndarray:
    weights = mirrored_weights(weights).weights if objective == "longest" else weights
    return lookahead_needs(weights, tours, action_values(weights, tours), steps)
