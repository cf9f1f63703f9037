"""Held and Karp's dynamic program with its whole table of costs-to-go, against solvers that give one tour."""

import numpy as np

from mesaprobe.bench.peers import CP_SAT, PYTHON_TSP, Peer, cp_sat, python_tsp
from mesaprobe.bench.table import BENCHES, BenchRow, bench_row, interleaved
from mesaprobe.problems import ProblemConfig, make_problem

CP_SAT_GOAL = 300.0
"""Times as many instances per second as CP-SAT with one worker, n = 12."""
PYTHON_TSP_GOAL = 3000.0
"""Times as many as python-tsp's dynamic program, n = 12."""


@BENCHES.register("held_karp_n10")
def held_karp_n10() -> BenchRow:
    """Against CP-SAT, which gives one tour with a proof and no values."""
    return _row("held_karp_n10", 10, 2000, CP_SAT, cp_sat, peer_instances=8)


@BENCHES.register("held_karp_n12")
def held_karp_n12() -> BenchRow:
    """Against CP-SAT, as above."""
    return _row("held_karp_n12", 12, 1000, CP_SAT, cp_sat, peer_instances=8, goal=CP_SAT_GOAL)


@BENCHES.register("held_karp_n15")
def held_karp_n15() -> BenchRow:
    """Against CP-SAT, as above."""
    return _row("held_karp_n15", 15, 100, CP_SAT, cp_sat, peer_instances=8)


@BENCHES.register("held_karp_n10_python_tsp")
def held_karp_n10_python_tsp() -> BenchRow:
    """Against python-tsp's dynamic program, which gives one tour and no values."""
    return _row("held_karp_n10_python_tsp", 10, 2000, PYTHON_TSP, python_tsp(), peer_instances=4)


@BENCHES.register("held_karp_n12_python_tsp")
def held_karp_n12_python_tsp() -> BenchRow:
    """Against python-tsp, as above."""
    name = "held_karp_n12_python_tsp"
    return _row(name, 12, 1000, PYTHON_TSP, python_tsp(), peer_instances=1, goal=PYTHON_TSP_GOAL)


@BENCHES.register("held_karp_n15_python_tsp")
def held_karp_n15_python_tsp() -> BenchRow:
    """Against python-tsp, as above."""
    return _row("held_karp_n15_python_tsp", 15, 100, PYTHON_TSP, python_tsp(), peer_instances=1, rounds=3)


def _row(
    name: str,
    n: int,
    count: int,
    peer: str,
    solve: Peer | None,
    *,
    peer_instances: int,
    goal: float | None = None,
    rounds: int = 7,
) -> BenchRow:
    """Full cost-to-go tables, an optimal tour and Q* of all its decisions, in instances per second, one thread."""
    from mesaprobe.solvers.exact.held_karp import optimal_rollouts

    instances = make_problem(ProblemConfig(n=n)).draw(count, np.random.default_rng(0))
    prefixes, lengths = np.zeros((count, n), dtype=np.int64), np.ones(count, dtype=np.int64)
    uniforms = np.zeros((count, n))
    few = instances[:peer_instances]
    ours, theirs = interleaved(
        lambda: optimal_rollouts(instances.weights, prefixes, lengths, uniforms),
        None if solve is None else lambda: solve(few),
        rounds=rounds,
    )
    peer_rate = None if theirs is None else peer_instances / theirs
    return bench_row(name, count / ours, "instances/s", f"{peer}, 1 thread", peer_rate, goal=goal)
