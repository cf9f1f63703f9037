"""Exact values of decisions: optimal actions, V*, regret, and which states count as decisions (DESIGN section 2)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from mesaprobe.labels.objectives import Objective, objective_values
from mesaprobe.problems import Problem
from mesaprobe.solvers.bounds.lower_bounds import prefix_costs

MIN_CITIES_LEFT = 4
"""A decision is a state with at least this many unvisited cities."""


@dataclass(frozen=True, eq=False)
class ValueLabels:
    """What every next city is worth at decision states, under one objective (see `objective_values`)."""

    action_values: Float64[np.ndarray, "batch step n"]
    """Q*(s, a), counted from the current city on."""
    state_values: Float64[np.ndarray, "batch step"]
    """V*(s): the best of them."""
    regrets: Float64[np.ndarray, "batch step n"]
    """How much worse than V* each is, at least 0; infinite for visited cities."""
    optimal: Bool[np.ndarray, "batch step n"]
    """All next cities without regret."""
    runner_up: Bool[np.ndarray, "batch step n"]
    """All next cities that are best outside the optimal set."""
    margins: Float64[np.ndarray, "batch step"]
    """The regret of the runner-up; infinite where every free city is optimal."""


def value_labels(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    steps: slice,
    objective: Objective = "shortest",
) -> ValueLabels:
    """Exact values at the decisions `steps` along the tours, for n <= 20 cities."""
    values = objective_values(weights, tours, steps, objective)
    costs = -values if objective == "longest" else values
    return ValueLabels(
        action_values=values,
        state_values=-state_values(costs) if objective == "longest" else state_values(costs),
        regrets=regrets(costs),
        optimal=optimal_actions(costs),
        runner_up=runner_up_actions(costs),
        margins=decision_margins(costs),
    )


def state_values(
    action_values: Float64[np.ndarray, "batch decision n"],
) -> Float64[np.ndarray, "batch decision"]:
    """V*(s): the cost of the best completion after each prefix."""
    return action_values.min(axis=2)


def regrets(
    action_values: Float64[np.ndarray, "batch decision n"],
) -> Float64[np.ndarray, "batch decision n"]:
    """Q*(s, a) - V*(s): what choosing a costs; infinite for visited cities."""
    return action_values - state_values(action_values)[:, :, None]


def optimal_actions(
    action_values: Float64[np.ndarray, "batch decision n"],
) -> Bool[np.ndarray, "batch decision n"]:
    """All next cities that lie on an optimal completion (ties included).

    >>> optimal_actions(np.array([[[np.inf, 3.0, 3.0, 4.0]]])).astype(int)
    array([[[0, 1, 1, 0]]])
    """
    return action_values == state_values(action_values)[:, :, None]


def runner_up_actions(
    action_values: Float64[np.ndarray, "batch decision n"],
) -> Bool[np.ndarray, "batch decision n"]:
    """The best next cities outside the optimal set (ties included); none where every free city is optimal.

    >>> runner_up_actions(np.array([[[np.inf, 3.0, 3.0, 4.0]]])).astype(int)
    array([[[0, 0, 0, 1]]])
    """
    others = np.where(optimal_actions(action_values), np.inf, action_values)
    return (others == state_values(others)[:, :, None]) & np.isfinite(others)


def decision_margins(
    action_values: Float64[np.ndarray, "batch decision n"],
) -> Float64[np.ndarray, "batch decision"]:
    """What the best next city outside the optimal set costs more than V*; infinite where every free city is optimal."""
    optimal = optimal_actions(action_values)
    return state_values(np.where(optimal, np.inf, action_values)) - state_values(action_values)


def relative_margins(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    action_values: Float64[np.ndarray, "batch decision n"],
) -> Float64[np.ndarray, "batch decision"]:
    """Margins as fractions of the cost of the best tour that keeps the prefix, for all decisions along the tours.

    Infinite where every free city is optimal, or where that tour costs nothing and the others do.
    """
    lengths = prefix_costs(weights, tours) + state_values(action_values)
    with np.errstate(divide="ignore"):
        return decision_margins(action_values) / lengths


def decision_steps(problem: Problem) -> slice:
    """The steps that are decisions: enough cities left, and on symmetric families not the first step, where both
    directions of every optimal tour are optimal.

    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> decision_steps(make_problem(ProblemConfig(n=8)))
    slice(1, 4, None)
    """
    first = 1 if problem.symmetric else 0
    return slice(first, max(problem.n - MIN_CITIES_LEFT, first))
