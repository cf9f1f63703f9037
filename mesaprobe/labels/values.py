"""Exact values of decisions: optimal actions, V*, regret, and which states count as decisions (DESIGN section 2)."""

import numpy as np
from jaxtyping import Bool, Float64

from mesaprobe.problems import Problem

MIN_CITIES_LEFT = 4
"""A decision is a state with at least this many unvisited cities."""


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


def decision_steps(problem: Problem) -> slice:
    """The steps that are decisions: enough cities left, and on symmetric families not the first step, where both
    directions of every optimal tour are optimal.

    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> decision_steps(make_problem(ProblemConfig(n=8)))
    slice(1, 4, None)
    """
    first = 1 if problem.symmetric else 0
    return slice(first, max(problem.n - MIN_CITIES_LEFT, first))
