"""What the solvers know of named instances, as rows: tours, bounds, and branch and bound in total or node by node."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mesaprobe.errors import UserError
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.problems.npz import NamedInstance
from mesaprobe.solvers.bounds.lower_bounds import BoundKind, instance_bounds
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound_totals, branch_and_bound_trace
from mesaprobe.solvers.exact.search_trace import NO_INCUMBENT, SearchEvent, SearchTrace
from mesaprobe.solvers.methods import METHODS, solve
from mesaprobe.solvers.solution import Solution

Row: TypeAlias = dict[str, Any]
"""One JSON object; `None` where a value is not known."""

BOUNDS: tuple[BoundKind, ...] = ("mst", "one_tree", "ascent", "assignment")
BOUND_CITIES = 500
"""Largest n of the table of bounds: seconds for the slowest of them."""

WEAK_BOUND: BoundKind = "mst"
"""Of the searches shown here: it leaves a tree with backtracks to look at."""
SEARCH_NODES = 1_000_000
"""A search of which only totals are shown ends here, without a proof; about a second at n = 20."""
SEARCH_TOTALS = (
    *("nodes", "expanded", "pruned", "incumbents", "backtracks", "deepest_backtrack"),
    *("finding_nodes", "proving_nodes"),
)
TRACE_NODES = 100_000
"""A search that is shown node by node ends here."""


@dataclass(frozen=True, eq=False)
class SolvedInstance:
    """An instance and what a method made of it."""

    instance: NamedInstance
    solution: Solution


def drawn_instances(config: ProblemConfig, count: int, seed: int) -> list[NamedInstance]:
    """`count` >= 1 instances of one problem.

    >>> [instance.name for instance in drawn_instances(ProblemConfig("euclidean", 5), 2, seed=0)]
    ['euclidean5[0]', 'euclidean5[1]']
    """
    if count < 1:
        raise UserError(f"the number of instances must be at least 1, got {count}")
    drawn = make_problem(config).draw(count, np.random.default_rng(seed))
    points = [None] * count if drawn.coordinates is None else list(drawn.coordinates.astype(np.float64))
    return [
        NamedInstance(f"{config.family}{config.n}[{index}]", drawn.weights[index], points[index])
        for index in range(count)
    ]


def solved_instances(
    instances: Iterable[NamedInstance], method: str = "auto", time_limit: float | None = None, seed: int = 0
) -> Iterator[SolvedInstance]:
    """Solve one after the other, as they are asked for (see `solve`); an unknown method raises UserError at once."""
    METHODS[method]
    return (
        SolvedInstance(instance, solve(instance.weights, method, time_limit, seed, instance.coordinates))
        for instance in instances
    )


def tour_row(solved: SolvedInstance) -> Row:
    """name, n, method (the one that found the tour), cost, optimal (True: proven, False: the tour of a heuristic,
    None: stopped without a proof), tour (cities count from 0, the first is 0) and seconds."""
    solution = solved.solution
    return {
        "name": solved.instance.name,
        "n": len(solved.instance.weights),
        "method": solution.method,
        "cost": solution.cost,
        "optimal": solution.optimal,
        "tour": list(solution.tour),
        "seconds": solution.seconds,
    }


def bound_row(solved: SolvedInstance) -> Row:
    """Lower bounds on every tour (`bounds/lower_bounds.py`), the cost of the tour found, and by what fraction it lies
    above the best of them (None where that is 0); 2 <= n <= 500."""
    weights, solution = solved.instance.weights, solved.solution
    if len(weights) > BOUND_CITIES:
        raise UserError(f"the table of bounds takes at most {BOUND_CITIES} cities, got {len(weights)}")
    bounds: Row = {kind: int(instance_bounds(weights[None], kind)[0]) for kind in BOUNDS}
    best = max(bounds.values())
    return {
        "name": solved.instance.name,
        "n": len(weights),
        **bounds,
        "cost": solution.cost,
        "optimal": solution.optimal,
        "gap": solution.cost / best - 1.0 if best else None,
    }


def search_row(instance: NamedInstance) -> Row:
    """Totals of depth-first branch and bound with the weak bound and no start tour; `optimal` is None where the node
    budget ended it."""
    totals = branch_and_bound_totals(instance.weights[None], WEAK_BOUND, node_budget=SEARCH_NODES)
    return {
        "name": instance.name,
        "n": len(instance.weights),
        "bound": WEAK_BOUND,
        "cost": int(totals.costs[0]),
        "optimal": True if totals.proven[0] else None,
        **{name: int(getattr(totals, name)[0]) for name in SEARCH_TOTALS},
    }


def weak_trace(instance: NamedInstance) -> SearchTrace:
    """The same search, node by node."""
    return branch_and_bound_trace(instance.weights, WEAK_BOUND, node_budget=TRACE_NODES)


def trace_rows(instance: NamedInstance) -> Iterator[Row]:
    """One row per node of `weak_trace`, in the order of visits: the bound on every tour through it, the incumbent at
    that time (None before the first), what became of it, and the best lower bound proven after it."""
    trace = weak_trace(instance)
    proven = trace.proven_bounds()
    for node in range(len(trace)):
        incumbent = int(trace.incumbents[node])
        yield {
            "name": instance.name,
            "node": node,
            "parent": int(trace.parents[node]),
            "prefix": trace.prefixes[node, : trace.depths[node]].tolist(),
            "bound": int(trace.bounds[node]),
            "incumbent": None if incumbent == NO_INCUMBENT else incumbent,
            "event": SearchEvent(trace.events[node]).name.lower(),
            "proven_bound": int(proven[node]),
            "phase": "finding" if node < trace.finding_nodes else "proving",
        }
