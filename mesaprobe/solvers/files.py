"""Solve every instance of a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mesaprobe.problems.npz import NamedInstance
from mesaprobe.problems.tsplib import read_instance_file
from mesaprobe.solvers.methods import METHODS, solve


def solve_file(
    path: Path, method: str = "auto", time_limit: float | None = None, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """One row per instance of a .tsp, .atsp or .npz file, as soon as it is solved.

    A row holds name, n, method (the one that found the tour), cost, optimal (True: proven, False: the tour of
    a heuristic, None: stopped without a proof), tour (cities count from 0, the first is 0) and seconds.
    `time_limit` is in seconds and holds for each instance. A broken file or an unknown method raises
    UserError before the first row.
    """
    METHODS[method]
    instances = read_instance_file(path)
    return (_row(instance, method, time_limit, seed) for instance in instances)


def _row(instance: NamedInstance, method: str, time_limit: float | None, seed: int) -> dict[str, Any]:
    solution = solve(instance.weights, method, time_limit, seed, instance.coordinates)
    return {
        "name": instance.name,
        "n": len(instance.weights),
        "method": solution.method,
        "cost": solution.cost,
        "optimal": solution.optimal,
        "tour": list(solution.tour),
        "seconds": solution.seconds,
    }
