"""All labels of decision states as rows: what `label_decisions` knows of one state, written out city by city."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mesaprobe.errors import UserError
from mesaprobe.labels.decision_labels import DecisionLabels, label_decisions
from mesaprobe.labels.difficulty import NEAR_PERCENTS, InstanceDifficulty
from mesaprobe.labels.nuisance import LOCAL_NAMES, nuisance_features
from mesaprobe.labels.objectives import OBJECTIVES, Objective
from mesaprobe.labels.values import decision_steps
from mesaprobe.problems import Instances, Problem, ProblemConfig, make_problem
from mesaprobe.problems.npz import NamedInstance
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.known_rules import known_rules
from mesaprobe.solvers.tables import Row

STATE_CITIES = 13
"""Largest n: seconds for the largest trees of branch and bound, which has no node budget here."""


def state_rows(instance: NamedInstance) -> Iterator[Row]:
    """One row per decision along an optimal tour of the instance; 5 <= n <= 13, and 6 <= n if symmetric.

    A row holds the state (name, step, prefix), V*, margin, d* (`need`), the nearest-neighbour incumbent and four lower
    bounds on V*, the difficulty of the whole instance, and, nested: `actions`, one object per free city with Q* and
    regret under each objective, bounds on Q*, prune indicators, the optimal completions that begin there, and the
    nuisance features; `chosen` and `runner_up`, the edges [u, v, share] of the optimal and the second best
    completions; `best_tours`. None stands for what does not exist (no other action, no second tour).
    """
    problem, steps = _problem(instance), slice(0)
    if problem is not None:
        steps = decision_steps(problem)
    n = len(instance.weights)
    if problem is None or steps.stop <= steps.start or n > STATE_CITIES:
        raise UserError(
            f"{instance.name} has n = {n}; labels of states need 6 (asymmetric: 5) to {STATE_CITIES} cities, "
            "so that there are decisions and their trees stay small"
        )
    batch = Instances(problem, instance.weights[None])
    tours = held_karp(batch.weights).tours
    labels: dict[str, DecisionLabels] = {}
    for objective in OBJECTIVES:
        known: Objective = objective  # type: ignore[assignment]
        labels[objective] = label_decisions(batch, tours, steps, objective=known)
    features = nuisance_features(batch, tours, steps)[0]
    return (
        _state_row(instance.name, problem, labels, features, tours[0], place)
        for place in range(steps.stop - steps.start)
    )


def _problem(instance: NamedInstance) -> Problem | None:
    """The problem whose labels fit an instance of a file; None for too few cities."""
    symmetric = np.array_equal(instance.weights, instance.weights.T)
    n = len(instance.weights)
    return make_problem(ProblemConfig("matrix" if symmetric else "asymmetric", n)) if n >= 4 else None


def _state_row(
    name: str, problem: Problem, labels: dict[str, DecisionLabels], features: np.ndarray, tour: np.ndarray, place: int
) -> Row:
    shortest = labels["shortest"]
    values, bounds, completions = shortest.values, shortest.bounds, shortest.completions
    assert values is not None
    assert bounds is not None
    assert completions is not None
    assert shortest.needs is not None
    assert shortest.difficulty is not None
    step = int(shortest.steps[place])
    return {
        "name": name,
        "n": len(tour),
        "step": step,
        "prefix": tour[: step + 1].tolist(),
        "value": _number(values.state_values[0, place]),
        "margin": _number(values.margins[0, place]),
        "optimal_cities": np.flatnonzero(values.optimal[0, place]).tolist(),
        "runner_up_cities": np.flatnonzero(values.runner_up[0, place]).tolist(),
        "need": int(shortest.needs[0, place]),
        "prefix_cost": int(bounds.prefix_costs[0, place]),
        "incumbent": int(bounds.incumbents[0, place]),
        **{kind: int(bounds.bounds[0, place, column]) for column, kind in enumerate(bounds.kinds)},
        **_difficulty(shortest.difficulty),
        "actions": [
            _action(problem, labels, features[place], place, int(city))
            for city in np.flatnonzero(np.isfinite(values.action_values[0, place]))
        ],
        "chosen": _edges(completions.chosen[0, place], problem.symmetric),
        "runner_up": _edges(completions.runner_up[0, place], problem.symmetric),
        "best_tours": _best_tours(shortest, place),
    }


def _action(
    problem: Problem, labels: dict[str, DecisionLabels], features: np.ndarray, place: int, city: int
) -> dict[str, Any]:
    """What is known of going to one free city."""
    bounds, completions = labels["shortest"].bounds, labels["shortest"].completions
    assert bounds is not None
    assert completions is not None
    row: dict[str, Any] = {"city": city}
    for objective, found in labels.items():
        assert found.values is not None
        prefix = "" if objective == "shortest" else f"{objective}_"
        row[f"{prefix}value"] = _number(found.values.action_values[0, place, city])
        row[f"{prefix}regret"] = _number(found.values.regrets[0, place, city])
    for column, kind in enumerate(bounds.kinds):
        row[kind] = int(bounds.action_bounds[0, place, city, column])
        row[f"pruned_by_{kind}"] = bool(bounds.prune[0, place, city, column])
    row["completions"] = int(completions.counts[0, place, city])
    row["edges"] = _edges(completions.edges[0, place, city], problem.symmetric)
    names = [*LOCAL_NAMES, *(f"{rule} goes there" for rule in known_rules(problem))]
    row["features"] = {name: _number(value) for name, value in zip(names, features[city], strict=True)}
    return row


def _difficulty(difficulty: InstanceDifficulty) -> Row:
    near = {f"tours_within_{p}_percent": int(difficulty.near_optimal[0, k]) for k, p in enumerate(NEAR_PERCENTS)}
    names = ("nodes", "finding_nodes", "backtracks", "deepest_backtrack")
    return {"tier": int(difficulty.tiers[0]), **near, **{name: int(getattr(difficulty, name)[0]) for name in names}}


def _best_tours(labels: DecisionLabels, place: int) -> list[Row]:
    assert labels.best_tours is not None
    found = zip(labels.best_tours.tours[0, place], labels.best_tours.costs[0, place], strict=True)
    return [{"cost": int(cost), "tour": tour.tolist()} for tour, cost in found if tour[0] >= 0]


def _edges(shares: np.ndarray, undirected: bool) -> list[list[float]]:
    """[u, v, share] of the edges in use, each once."""
    used = np.triu(shares) if undirected else shares
    return [[int(u), int(v), float(shares[u, v])] for u, v in np.argwhere(used > 0)]


def _number(value: float) -> float | None:
    """None for infinity and NaN."""
    return float(value) if np.isfinite(value) else None
