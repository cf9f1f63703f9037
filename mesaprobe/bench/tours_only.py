"""Optimal tours alone: local search, 1-tree ascent and branch and bound, against solvers of the same task."""

import numpy as np

from mesaprobe.bench.peers import CP_SAT, FAST_TSP, Peer, cp_sat, fast_tsp, first_always_optimal
from mesaprobe.bench.table import BENCHES, BenchRow, bench_row, interleaved
from mesaprobe.problems import Instances, ProblemConfig, make_problem

CP_SAT_GOALS = {("euclidean", 20): 100.0, ("matrix", 20): 8.0}
"""Times as many instances per second as CP-SAT with one worker."""
FAST_TSP_GOAL = 5.0
"""Times as many as fast-tsp at its first always-optimal budget."""


@BENCHES.register("tours_n12_euclidean")
def tours_n12_euclidean() -> BenchRow:
    """Against CP-SAT, which proves its tours, too."""
    return _cp_sat_row("euclidean", 12, 2000)


@BENCHES.register("tours_n12_matrix")
def tours_n12_matrix() -> BenchRow:
    """Against CP-SAT, as above."""
    return _cp_sat_row("matrix", 12, 2000)


@BENCHES.register("tours_n20_euclidean")
def tours_n20_euclidean() -> BenchRow:
    """Against CP-SAT, as above."""
    return _cp_sat_row("euclidean", 20, 500)


@BENCHES.register("tours_n20_matrix")
def tours_n20_matrix() -> BenchRow:
    """Against CP-SAT, as above."""
    return _cp_sat_row("matrix", 20, 500)


@BENCHES.register("tours_n20_fast_tsp")
def tours_n20_fast_tsp() -> BenchRow:
    """Against fast-tsp, which up to n = 20 runs a dynamic program whatever its budget: a ratio that flatters ours, so
    that the next row belongs beside it."""
    return _fast_tsp_row(20)


@BENCHES.register("tours_n21_fast_tsp")
def tours_n21_fast_tsp() -> BenchRow:
    """Against fast-tsp's local search at the first budget at which it finds every optimum; only ours proves them."""
    return _fast_tsp_row(21)


def _cp_sat_row(family: str, n: int, count: int) -> BenchRow:
    instances = make_problem(ProblemConfig(family, n)).draw(count, np.random.default_rng(0))
    goal = CP_SAT_GOALS.get((family, n))
    return _row(f"tours_n{n}_{family}", instances, f"{CP_SAT}, 1 thread", cp_sat, 8, goal)


def _fast_tsp_row(n: int, count: int = 500, peer_count: int = 20) -> BenchRow:
    """The peer gets its budget on the instances that it is then timed on."""
    from mesaprobe.solvers.exact.reduced_cost_search import reduced_cost_search

    instances = make_problem(ProblemConfig("euclidean", n)).draw(count, np.random.default_rng(0))
    within, solve, peer = fast_tsp(), None, f"{FAST_TSP}, 1 thread"
    if within is not None:
        few = instances[:peer_count]
        budget = first_always_optimal(within, few, reduced_cost_search(few.weights).costs)
        if budget is None:
            peer = f"{FAST_TSP}, 1 thread, not always optimal within any budget tried"
        else:
            solve, peer = within(budget), f"{FAST_TSP}, 1 thread, {budget:g} s per instance"
    return _row(f"tours_n{n}_fast_tsp", instances, peer, solve, peer_count, FAST_TSP_GOAL, rounds=3)


def _row(
    name: str,
    instances: Instances,
    peer: str,
    solve: Peer | None,
    peer_count: int,
    goal: float | None,
    rounds: int = 5,
) -> BenchRow:
    """Instances per second; RuntimeError if an exact peer finds another optimum."""
    from mesaprobe.solvers.exact.reduced_cost_search import reduced_cost_search

    few = instances[:peer_count]
    if solve is cp_sat and (cp_sat(few) != reduced_cost_search(few.weights).costs).any():
        raise RuntimeError(f"{peer} finds other optima than the reduced-cost search")
    ours, theirs = interleaved(
        lambda: reduced_cost_search(instances.weights), None if solve is None else lambda: solve(few), rounds=rounds
    )
    peer_rate = None if theirs is None else peer_count / theirs
    return bench_row(name, len(instances) / ours, "instances/s", peer, peer_rate, goal=goal)
