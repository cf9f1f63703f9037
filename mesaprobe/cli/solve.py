"""`mesaprobe solve`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mesaprobe.cli.words import columns_as_in_json, parsed, print_rows
from mesaprobe.errors import UserError
from mesaprobe.problems import ProblemConfig


@dataclass(frozen=True)
class SolveArguments:
    """Options of `mesaprobe solve`."""

    file: Annotated[Path | None, tyro.conf.Positional] = None
    """A .tsp, .atsp or .npz file; without one, instances are drawn."""
    problem: ProblemConfig = field(default_factory=ProblemConfig)
    count: int | None = None
    """How many instances are drawn; default 5, and 1000 for the tables gaps and ties."""
    method: str = "auto"
    """auto is exact with proof; a named solver or heuristic otherwise."""
    table: Literal["tours", "bounds", "states", "search", "trace", "gaps", "ties"] = "tours"
    """bounds: lower bounds on every tour. states: all labels of the decisions along an optimal tour (in full with
    --json). search, trace: branch and bound with the weak spanning-tree bound, in total or node by node. gaps, ties:
    how far each rule is from the optimum, and shares of ties; without --problem.* of all families at n = 8, 10, 12."""
    plot: Path | None = None
    """Write a page with tours, bound gaps over time and branch-and-bound trees, e.g. solved.html."""
    time_limit: float | None = None
    """Seconds per instance for the exact methods; when it ends them, "optimal" is null."""
    seed: int = 0
    """Seed of methods that draw, and of drawn instances."""
    json: bool = False
    """One JSON object per line instead of a table."""


def solve(words: list[str]) -> None:
    given: SolveArguments = parsed(SolveArguments, "solve", words)
    from mesaprobe.labels import command

    drawn = any(word.startswith("--problem.") for word in words)
    problem = given.problem if drawn or (given.count is not None and given.table not in ("gaps", "ties")) else None
    request = command.SolveRequest(given.file, problem, given.count, given.seed, given.method, given.time_limit)
    if given.table == "gaps" or given.table == "ties":
        if given.plot is not None:
            raise UserError(f"--plot draws single instances; leave it out with --table {given.table}")
        if given.json:
            print_rows(command.reference_json(request, given.table), as_json=True, columns={})
        else:
            print(command.reference_text(request, given.table))
        return
    if given.plot is not None:
        from mesaprobe.report.solve_page import render_solutions

        page = render_solutions(list(command.solved_request(request)), given.plot)
        print(page, file=sys.stderr)
    columns = _TOUR_COLUMNS if given.table == "tours" else columns_as_in_json(command.COLUMNS[given.table])
    print_rows(command.instance_rows(request, given.table), as_json=given.json, columns=columns)


_TOUR_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "name": lambda row: row["name"],
    "n": lambda row: str(row["n"]),
    "method": lambda row: row["method"],
    "cost": lambda row: str(row["cost"]),
    "optimal": lambda row: {True: "proven", False: "no claim", None: "no proof"}[row["optimal"]],
    "seconds": lambda row: f"{row['seconds']:.3f}",
    "tour": lambda row: " ".join(map(str, row["tour"])),
}
