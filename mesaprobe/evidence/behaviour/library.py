"""What every algorithm of the library would do at a state: costs of the candidate cities (method.md section 5, E1).

An algorithm that judges candidates by a number gives that number; every other one gives its choice, as cost 0 for the
city it names and 1 for the others, averaged over a few ways of breaking ties (or of drawing its random numbers). One
that only makes whole tours is asked for the best rest of the tour: the instance is contracted to a node that one
leaves as the current city and enters as city 0, and the unvisited cities, and the first step of its tour counts. Local
search and annealing start there from the nearest-neighbour rest, as they do on a whole instance.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64

from mesaprobe.evidence.states.decision_states import DecisionStates
from mesaprobe.evidence.states.pairs import label_cache
from mesaprobe.labels.cache import cached_arrays
from mesaprobe.problems import Problem
from mesaprobe.solvers import constructive
from mesaprobe.solvers.algorithms import ALGORITHMS, Algorithm
from mesaprobe.solvers.constructive import step_weights
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound_totals
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.solvers.fixed_horizon import horizon_beam_values, horizon_values, walk_values
from mesaprobe.solvers.improvement.annealing import Schedule, anneal
from mesaprobe.solvers.known_rules import left_out
from mesaprobe.solvers.lookahead import UNREACHABLE, lookahead_values
from mesaprobe.solvers.random_streams import instance_seeds
from mesaprobe.training.tie_breaks import with_ties_broken

TIE_DRAWS = 3
"""Ways of breaking ties, its own among them; for randomised algorithms, seeds."""

EXACT = ("held_karp", "branch_and_bound", "reduced_cost_search")
"""Optimal without a budget: one and the same policy, Q*, which E1 counts as the noisy oracle."""
TOO_SLOW = ("routing",)
"""Milliseconds a state, and at these sizes optimal almost everywhere."""

_VALUES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "nearest_neighbour": step_weights,
    "farthest_neighbour": lambda weights, tours: -step_weights(weights, tours),
    "lookahead_2": partial(lookahead_values, depth=2),
    "lookahead_3": partial(lookahead_values, depth=3),
    "horizon_2": partial(horizon_values, arcs=2),
    "horizon_3": partial(horizon_values, arcs=3),
    "horizon_beam_4": partial(horizon_beam_values, width=4, arcs=4),
    "walk_values_4": partial(walk_values, iterations=4),
    "walk_values_3_no_two_cycles": partial(walk_values, iterations=3, two_cycles=False),
    "held_karp": action_values,
}
"""The numbers by which an algorithm judges candidates, where it has any; the least is chosen."""


def _short_annealing(weights: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    return anneal(weights, constructive.nearest_neighbour(weights), seeds, Schedule(moves_per_city=2))


def _budgeted(nodes: int) -> Algorithm:
    return Algorithm(
        f"branch_and_bound_{nodes}_nodes",
        5,
        lambda weights: branch_and_bound_totals(weights, node_budget=nodes).tours,
    )


LIMITED = (Algorithm("annealing_short", 4, _short_annealing, randomised=True), *(_budgeted(k) for k in (24, 40)))
"""Searches with little to spend, which can therefore be told from the optimum."""


def library(problem: Problem) -> list[Algorithm]:
    """The algorithms that answer a state of the problem, a user's own among them: all of `ALGORITHMS` that apply,
    and `LIMITED`, less those that are left out at present. One that looks at coordinates must say what it does at any
    state (`completions`)."""
    members = [*(ALGORITHMS[name] for name in ALGORITHMS), *LIMITED]
    return [
        member
        for member in members
        if member.name not in (*left_out(), *TOO_SLOW, *EXACT[1:])
        and member.applies_to(problem)
        and (member.completions is not None or not (member.planar or member.symmetric_only))
    ]


def candidate_costs(
    algorithm: Algorithm, states: DecisionStates, seed: int
) -> dict[str, Float64[np.ndarray, "state n"]]:
    """Costs by form: `choice` (1 less the share of draws that name the city), and `value` where there are numbers.

    Values are finite for free cities (one that the algorithm never reached costs the state's worst value and as much
    again); entries of visited cities mean nothing. The exact algorithm's choices are all optimal cities.
    """
    rows, forms = np.arange(len(states)), {}
    if algorithm.name in _VALUES:
        values = _VALUES[algorithm.name](states.weights, states.tours)[rows, states.steps].astype(np.float64)
        forms["value"] = _finite(values, states)
    if algorithm.name in EXACT:
        chosen = states.optimal()
        forms["choice"] = 1.0 - chosen / chosen.sum(axis=1, keepdims=True)
        return forms
    shares = np.zeros(states.tours.shape)
    rng = np.random.default_rng([seed, 811])
    for draw in range(TIE_DRAWS):
        weights = states.weights if draw == 0 else with_ties_broken(states.weights, states.instances.problem, rng)
        shares[rows, _next_city(algorithm, states, weights, seed + draw)] += 1.0 / TIE_DRAWS
    return {**forms, "choice": 1.0 - shares}


def library_costs(
    algorithms: list[Algorithm], states: DecisionStates, seed: int
) -> dict[str, dict[str, Float64[np.ndarray, "state n"]]]:
    """`candidate_costs` of every algorithm, those of mesaprobe's own kept on disk."""
    key = hashlib.sha256(states.weights.tobytes() + states.tours.tobytes() + states.steps.tobytes()).hexdigest()
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()

    def compute(algorithm: Algorithm) -> dict[str, np.ndarray]:
        return candidate_costs(algorithm, states, seed)

    found = {}
    for algorithm in algorithms:
        folder = label_cache() if is_own(algorithm) else None
        request = {"candidate_costs": algorithm.name, "states": key, "seed": seed, "code_of_library": code}
        found[algorithm.name] = cached_arrays(folder, request, partial(compute, algorithm))
    return found


def _next_city(
    algorithm: Algorithm, states: DecisionStates, weights: np.ndarray, seed: int
) -> Int64[np.ndarray, " state"]:
    rows = np.arange(len(states))
    if algorithm.completions is not None:
        return algorithm.completions(weights, states.tours, states.steps + 1)[rows, states.steps + 1]
    found = np.empty(len(states), dtype=np.int64)
    for step in np.unique(states.steps):
        own = np.flatnonzero(states.steps == step)
        small, cities = contracted(weights[own], states.tours[own], int(step))
        arguments: list[Any] = [small]
        if algorithm.randomised:
            arguments.append(instance_seeds(small, seed))
        first = algorithm.rule(*arguments)[:, 1]
        found[own] = np.take_along_axis(cities, first[:, None] - 1, axis=1)[:, 0]
    return found


def contracted(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"], step: int
) -> tuple[Int32[np.ndarray, "batch m m"], Int64[np.ndarray, "batch m-1"]]:
    """The rest of the tour after `step` as an instance of its own: node 0 is left as the current city and entered as
    city 0, node i is `cities[:, i - 1]`, the unvisited ones in order. Its tours cost what the completions cost.

    >>> square = np.array([[[0, 1, 2, 9], [3, 0, 4, 5], [6, 7, 0, 8], [1, 2, 3, 0]]], dtype=np.int32)
    >>> contracted(square, np.array([[0, 2, 1, 3]]), 1)
    (array([[[0, 7, 8],
            [3, 0, 5],
            [1, 2, 0]]], dtype=int32), array([[1, 3]]))
    """
    cities = np.sort(tours[:, step + 1 :], axis=1)
    batch = np.arange(len(tours))[:, None]
    leave = np.concatenate([tours[:, step : step + 1], cities], axis=1)
    enter = np.concatenate([np.zeros_like(tours[:, :1]), cities], axis=1)
    small = weights[batch[:, :, None], leave[:, :, None], enter[:, None, :]].astype(np.int32)
    small[:, np.arange(small.shape[1]), np.arange(small.shape[1])] = 0
    return np.ascontiguousarray(small), cities


def _finite(values: np.ndarray, states: DecisionStates) -> np.ndarray:
    known = states.free & (values < UNREACHABLE) & np.isfinite(values)
    best = np.where(known, values, np.inf).min(axis=1, keepdims=True)
    worst = np.where(known, values, -np.inf).max(axis=1, keepdims=True)
    return np.where(known, values, worst + np.maximum(worst - best, 1.0))


def is_own(algorithm: Algorithm) -> bool:
    """Whether all of it is mesaprobe's own code, which the cache's key covers."""
    parts = [part for part in (algorithm.rule, algorithm.completions) if part is not None]
    return all(str(getattr(getattr(part, "func", part), "__module__", "")).startswith("mesaprobe.") for part in parts)
