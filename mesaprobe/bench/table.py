"""Rows of the performance table and how they are measured.

Interleaving lets both sides meet the same machine, whatever else runs on it; medians keep one bad round from
counting. Everything runs on one thread (torch is set to one, and given its old number back), and a row's peer
says so. A peer that is not installed leaves `peer_value`, `ratio` and `met` null.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mesaprobe.registry import Registry


@dataclass(frozen=True)
class BenchRow:
    """One measurement beside its peer's (DESIGN section 4, machine-readable output)."""

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float | None
    ratio: float | None
    """Above 1: better than the peer."""
    goal: float | None
    """The ratio asked for; None where nothing is asked."""
    met: bool | None


BENCHES: Registry[Callable[[], BenchRow]] = Registry("bench row")


def rows(names: Sequence[str] | None = None) -> Iterator[BenchRow]:
    """Measure the named rows (default: all), one after the other; an unknown name raises UserError at once."""
    chosen = [BENCHES[name] for name in (BENCHES if names is None else names)]
    return (measure() for measure in chosen)


def bench_row(
    name: str,
    value: float,
    unit: str,
    peer: str,
    peer_value: float | None,
    *,
    lower_is_better: bool = False,
    goal: float | None = None,
) -> BenchRow:
    """Fill in the ratio and whether it reaches the goal.

    >>> bench_row("step", 110.0, "ms", "plain", 100.0, lower_is_better=True, goal=1 / 1.1).met
    True
    >>> bench_row("solver", 9.0, "instances/s", "absent", None, goal=2.0).met is None
    True
    """
    ratio = None
    if peer_value is not None:
        ratio = peer_value / value if lower_is_better else value / peer_value
    met = None if ratio is None or goal is None else ratio >= goal * (1 - 1e-9)
    return BenchRow(name, value, unit, peer, peer_value, ratio, goal, met)


def markdown(found: Sequence[BenchRow]) -> str:
    """Rows as a table of the README.

    >>> print(markdown([bench_row("solver", 9.0, "instances/s", "rival", 2.0, goal=2.0)]))
    | row | here | peer, same run | ratio | asked |
    |---|---|---|---|---|
    | `solver` | 9 instances/s | rival: 2 | 4.5 | 2, met |
    """

    def number(value: float | None) -> str:
        return "absent" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

    lines = ["| row | here | peer, same run | ratio | asked |", "|---|---|---|---|---|"]
    for row in found:
        word = {True: ", met", False: ", **not met**", None: ""}[row.met]
        asked = "-" if row.goal is None else f"{number(row.goal)}{word}"
        lines.append(
            f"| `{row.name}` | {number(row.value)} {row.unit} | {row.peer}: {number(row.peer_value)} | "
            f"{number(row.ratio)} | {asked} |"
        )
    return "\n".join(lines)


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object] | None, rounds: int
) -> tuple[float, float | None]:
    """Median seconds of each side over `rounds` rounds that take turns, after one round that does not count."""
    sides = [ours] if peer is None else [ours, peer]
    seconds: list[list[float]] = [[] for _ in sides]
    for counted in [False] + [True] * rounds:
        for side, times in zip(sides, seconds, strict=True):
            started = time.perf_counter()
            side()
            if counted:
                times.append(time.perf_counter() - started)
    medians = [statistics.median(times) for times in seconds]
    return medians[0], medians[1] if peer is not None else None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
