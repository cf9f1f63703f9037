"""Reference figures of the problems themselves: how far each rule is from the optimum, and how often optima tie.

Our weights are integers, so that ties are ties; with real-valued distances (`tests/test_heuristic_gaps.py`) the gaps
of the rules agree with independent measurements.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mesaprobe.errors import UserError
from mesaprobe.labels.hardness import optimality_gaps
from mesaprobe.labels.ties import TieShares
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.exact.held_karp import held_karp

REFERENCE_PROBLEMS = tuple(
    ProblemConfig(family, n) for family in ("matrix", "asymmetric", "euclidean") for n in (8, 10, 12)
)
REFERENCE_INSTANCES = 1000


@dataclass(frozen=True)
class HeuristicGap:
    """One rule on natural instances of one problem; fractions of 1."""

    family: str
    n: int
    instances: int
    heuristic: str
    degree: int
    gap_mean: float
    gap_error: float
    """Standard error of the mean."""
    optimal_fraction: float


def heuristic_gaps(
    config: ProblemConfig, count: int = REFERENCE_INSTANCES, seed: int = 0, names: Sequence[str] | None = None
) -> Iterator[HeuristicGap]:
    """Every inexact algorithm of the library that applies to the problem (or those named), on the same `count` >= 2
    drawn instances; n <= 20.

    >>> rows = heuristic_gaps(ProblemConfig(n=8), 200, names=["nearest_neighbour", "two_opt_or_opt"])
    >>> [row.gap_mean > 0.1 for row in rows]
    [True, False]
    """
    if count < 2:
        raise UserError(f"mean gaps need at least 2 instances, got {count}")
    problem = make_problem(config)
    instances = problem.draw(count, np.random.default_rng(seed))
    optimum = held_karp(instances.weights).costs
    chosen = [ALGORITHMS[name] for name in (ALGORITHMS if names is None else names)]
    for algorithm in chosen:
        if algorithm.exact or not algorithm.applies_to(problem):
            continue
        gaps = optimality_gaps(instances, algorithm(instances.weights, instances.coordinates, seed), optimum)
        error = float(gaps.std(ddof=1)) / count**0.5
        yield HeuristicGap(
            config.family,
            config.n,
            count,
            algorithm.name,
            algorithm.degree,
            float(gaps.mean()),
            error,
            float((gaps == 0).mean()),
        )


def gap_table(rows: Sequence[HeuristicGap]) -> str:
    """Markdown: a line per rule, a column per problem, each cell "optimal % / mean gap %"; - where it does not apply.

    >>> print(gap_table([HeuristicGap("matrix", 8, 1000, "savings", 2, 0.1234, 0.004, 0.25)]))
    | heuristic | degree | matrix 8 |
    |---|---|---|
    | savings | 2 | 25.0 / 12.34 |
    """
    problems = list(dict.fromkeys((row.family, row.n) for row in rows))
    cells = {(row.heuristic, row.family, row.n): row for row in rows}
    lines = []
    for name, degree in dict.fromkeys((row.heuristic, row.degree) for row in rows):
        found = [cells.get((name, *problem)) for problem in problems]
        printed = ["-" if row is None else f"{100 * row.optimal_fraction:.1f} / {_gap(row)}" for row in found]
        lines.append([name, str(degree), *printed])
    return _markdown(["heuristic", "degree", *(f"{family} {n}" for family, n in problems)], lines)


def _gap(row: HeuristicGap) -> str:
    """Percent, with three digits where there are few."""
    return f"{100 * row.gap_mean:.2f}" if row.gap_mean >= 0.001 or row.gap_mean == 0 else f"{100 * row.gap_mean:.3f}"


def ties_table(rows: Sequence[TieShares]) -> str:
    """Markdown: a line per problem, shares in percent."""
    lines = [
        [f"{row.family} {row.n}", f"{row.instances:,}", f"{row.states:,}"]
        + [f"{100 * share:.1f}" for share in (row.tied_instances, row.tied_actions, row.tied_completions)]
        for row in rows
    ]
    head = ["problem", "instances", "states", "instances with several optimal tours, %"]
    return _markdown(
        [*head, "states with several optimal cities, %", "states with several optimal completions, %"], lines
    )


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"|{'|'.join(row)}|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in rows)
