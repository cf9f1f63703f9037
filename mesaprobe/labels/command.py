"""From what a person asks of `mesaprobe solve` to rows and tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from mesaprobe.errors import UserError
from mesaprobe.files import plain
from mesaprobe.labels.reference_tables import (
    REFERENCE_INSTANCES,
    REFERENCE_PROBLEMS,
    HeuristicGap,
    gap_table,
    heuristic_gaps,
    ties_table,
)
from mesaprobe.labels.state_table import state_rows
from mesaprobe.labels.ties import TieShares, tie_table
from mesaprobe.problems import ProblemConfig
from mesaprobe.problems.npz import NamedInstance
from mesaprobe.problems.tsplib import read_instance_file
from mesaprobe.solvers.tables import (
    BOUNDS,
    SEARCH_TOTALS,
    Row,
    SolvedInstance,
    bound_row,
    drawn_instances,
    search_row,
    solved_instances,
    tour_row,
    trace_rows,
)

InstanceTable: TypeAlias = Literal["tours", "bounds", "states", "search", "trace"]
ReferenceTable: TypeAlias = Literal["gaps", "ties"]
REFERENCE_TABLES: tuple[str, ...] = get_args(ReferenceTable)

COLUMNS: dict[InstanceTable, tuple[str, ...]] = {
    "tours": ("name", "n", "method", "cost", "optimal", "seconds", "tour"),
    "bounds": ("name", "n", *BOUNDS, "cost", "optimal", "gap"),
    "states": (
        *("name", "step", "prefix", "value", "margin", "optimal_cities", "runner_up_cities", "need", "incumbent"),
        *(*BOUNDS, "tier"),
    ),
    "search": ("name", "n", "cost", "optimal", *SEARCH_TOTALS),
    "trace": ("name", "node", "parent", "prefix", "bound", "incumbent", "event", "proven_bound", "phase"),
}
"""What of each row fits in a line."""

DRAWN = 5
"""Instances that are drawn where no number is given."""


@dataclass(frozen=True)
class SolveRequest:
    """Which instances, and how they are solved."""

    file: Path | None = None
    problem: ProblemConfig | None = None
    """Of drawn instances; None if none was asked for."""
    count: int | None = None
    seed: int = 0
    method: str = "auto"
    time_limit: float | None = None


def solved_request(request: SolveRequest) -> Iterator[SolvedInstance]:
    """The instances of the file, or drawn ones, each solved as it is asked for."""
    return solved_instances(_instances(request), request.method, request.time_limit, request.seed)


def instance_rows(request: SolveRequest, table: InstanceTable) -> Iterator[Row]:
    """Rows of one of the tables about single instances."""
    if table == "tours":
        return map(tour_row, solved_request(request))
    if table == "bounds":
        return map(bound_row, solved_request(request))
    instances = _instances(request)
    if table == "search":
        return map(search_row, instances)
    make = state_rows if table == "states" else trace_rows
    return (row for instance in instances for row in make(instance))


def reference_rows(request: SolveRequest, table: ReferenceTable) -> Iterator[HeuristicGap | TieShares]:
    """Rows about problems: of the one asked for, or of every family at n = 8, 10 and 12."""
    if request.file is not None:
        raise UserError(f"the table {table} is about drawn instances; leave out {request.file}")
    count = REFERENCE_INSTANCES if request.count is None else request.count
    problems: Sequence[ProblemConfig] = REFERENCE_PROBLEMS if request.problem is None else (request.problem,)
    if table == "gaps":
        return (row for problem in problems for row in heuristic_gaps(problem, count, request.seed))
    return iter(tie_table(problems, count, request.seed))


def reference_text(request: SolveRequest, table: ReferenceTable) -> str:
    """The same as a Markdown table."""
    rows = list(reference_rows(request, table))
    if table == "gaps":
        return gap_table([row for row in rows if isinstance(row, HeuristicGap)])
    return ties_table([row for row in rows if isinstance(row, TieShares)])


def reference_json(request: SolveRequest, table: ReferenceTable) -> Iterator[Row]:
    """The same, one object per row, as each is there."""
    return map(plain, reference_rows(request, table))


def _instances(request: SolveRequest) -> list[NamedInstance]:
    if request.file is not None:
        if request.problem is not None or request.count is not None:
            raise UserError(f"give the file {request.file}, or --problem.* and --count for drawn instances, not both")
        return read_instance_file(request.file)
    if request.problem is None:
        raise UserError("name a file, or draw instances with --problem.family and --problem.n")
    return drawn_instances(request.problem, DRAWN if request.count is None else request.count, request.seed)
