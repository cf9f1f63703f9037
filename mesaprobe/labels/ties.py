"""How often there is more than one optimum, family by family."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mesaprobe.errors import UserError
from mesaprobe.labels.completions import completion_labels
from mesaprobe.labels.near_optimal import near_optimal_counts
from mesaprobe.labels.values import decision_steps, value_labels
from mesaprobe.problems import Problem, ProblemConfig, make_problem
from mesaprobe.solvers.exact.held_karp import optimal_rollouts

_CHUNK = 1000
"""Instances that are labelled at once."""


@dataclass(frozen=True)
class TieShares:
    """Shares of ties among natural instances of one problem, and among the decisions along their optimal tours."""

    family: str
    n: int
    instances: int
    """How many instances were drawn."""
    states: int
    """How many decisions they have."""
    tied_instances: float
    """Share of instances with more than one optimal tour (both directions of a symmetric tour are one)."""
    tied_actions: float
    """Share of decisions with more than one optimal next city."""
    tied_completions: float
    """Share of decisions with more than one optimal completion."""


def tie_shares(config: ProblemConfig, count: int, rng: np.random.Generator) -> TieShares:
    """Draw `count` instances, walk one optimal tour of each (every optimal city equally likely at every step), and
    count the ties."""
    problem = make_problem(config)
    steps = decision_steps(problem)
    if count < 1 or steps.stop <= steps.start:
        raise UserError(
            f"shares of ties need instances with decisions, got {count} {config.family} with n = {config.n}"
        )
    parts = [_count_ties(problem, min(_CHUNK, count - first), rng) for first in range(0, count, _CHUNK)]
    ties = np.sum(parts, axis=0).tolist()
    states = count * (steps.stop - steps.start)
    return TieShares(config.family, config.n, count, states, ties[0] / count, ties[1] / states, ties[2] / states)


def _count_ties(problem: Problem, count: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Tied instances, decisions with tied actions, and decisions with tied completions."""
    weights, steps = problem.draw(count, rng).weights, decision_steps(problem)
    starts, lengths = np.zeros((count, problem.n), dtype=np.int64), np.ones(count, dtype=np.int64)
    tours = optimal_rollouts(weights, starts, lengths, rng.random((count, problem.n))).tours
    optimal = value_labels(weights, tours, steps).optimal
    completions = completion_labels(weights, tours, steps, problem.symmetric)
    ways = np.where(optimal, completions.counts, 0).sum(axis=2)
    optima = near_optimal_counts(weights, problem.symmetric, (0,))
    return int((optima > 1).sum()), int((optimal.sum(axis=2) > 1).sum()), int((ways > 1).sum())


def tie_table(configs: Sequence[ProblemConfig], count: int, seed: int) -> list[TieShares]:
    """One row per problem, each from its own branch of the seed.

    >>> rows = tie_table([ProblemConfig(n=8, levels=64), ProblemConfig(n=8, levels=3)], 200, seed=0)
    >>> rows[0].tied_instances < rows[1].tied_instances
    True
    """
    return [tie_shares(config, count, np.random.default_rng([seed, row])) for row, config in enumerate(configs)]
