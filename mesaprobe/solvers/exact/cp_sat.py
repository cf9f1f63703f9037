"""Exact tours by constraint programming: OR-Tools CP-SAT with a circuit constraint."""

import time

import numpy as np
from jaxtyping import Int32

from mesaprobe.solvers.bounds.potentials import reduce_weights
from mesaprobe.solvers.improvement.local_search import starting_tours
from mesaprobe.solvers.solution import Solution, make_solution, tiny_solution


def solve_cp_sat(
    weights: Int32[np.ndarray, "n n"], *, time_limit: float | None = None, workers: int = 1, seed: int = 0
) -> Solution:
    """An optimal tour, symmetric weights or not, started from a locally optimal tour.

    `time_limit` is in seconds (None: no limit); when it ends the search, the best tour found comes back with
    `optimal=None`. All arithmetic is on integers, so a proof does not depend on tolerances.
    """
    tiny = tiny_solution(weights, "cp_sat")
    if tiny is not None:
        return tiny
    from ortools.sat.python import cp_model

    started = time.monotonic()
    hint = starting_tours(weights[None])[0]
    n = len(weights)
    successor = dict(zip(hint.tolist(), np.roll(hint, -1).tolist(), strict=True))
    model = cp_model.CpModel()
    arcs = [(u, v, model.new_bool_var("")) for u in range(n) for v in range(n) if u != v]
    model.add_circuit(arcs)
    for u, v, literal in arcs:
        model.add_hint(literal, successor[u] == v)
    reduced = reduce_weights(weights)
    costs = [int(reduced[u, v]) for u, v, _ in arcs]
    model.minimize(cp_model.LinearExpr.weighted_sum([literal for _, _, literal in arcs], costs))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed % 2**31
    if time_limit is not None:
        solver.parameters.max_time_in_seconds = max(time_limit - (time.monotonic() - started), 0.0)
    status = solver.solve(model)
    tour = hint
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        following = {u: v for u, v, literal in arcs if solver.boolean_value(literal)}
        tour = _walk(following)
    proven = True if status == cp_model.OPTIMAL else None
    return make_solution(weights, tour, optimal=proven, method="cp_sat", started=started)


def _walk(following: dict[int, int]) -> np.ndarray:
    """The cities in the order of their successors, from city 0."""
    tour = [0]
    while following[tour[-1]] != 0:
        tour.append(following[tour[-1]])
    return np.array(tour, dtype=np.int64)
