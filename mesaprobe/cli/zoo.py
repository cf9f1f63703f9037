"""`mesaprobe zoo`."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mesaprobe.cli.words import parsed, print_rows
from mesaprobe.errors import UserError


@dataclass(frozen=True)
class ZooArguments:
    """Options of `mesaprobe zoo`."""

    action: Annotated[Literal["list", "build", "certify", "calibrate", "table"], tyro.conf.Positional]
    """list: members, mechanisms, certificates, and what accuracy or architecture alone tell of the class.
    build: members that are not there. certify: test that their labels are true. calibrate: run the lines of evidence
    over certified members. table: error rates of the rule, every family judged by a zoo without it."""
    members: tuple[str, ...] = ("all",)
    """Members, families, or compiled, trained, search, heuristic, all."""
    folder: Path = Path("trained_models/zoo")
    """Where the members lie."""
    processes: int = 0
    """Members at a time, one thread each; 0 takes all cores."""
    again: bool = False
    """certify: also where a certificate of these weights is stored."""
    budget: str = "quick"
    """calibrate, table: quick, standard or full."""
    lines: tuple[str, ...] = ()
    """calibrate: only these lines, e.g. E3 E7; default all."""
    records: Path | None = None
    """calibrate, table: where the evidence of members is stored; default inside the package."""
    json: bool = False
    """One JSON object per line instead of a table."""


def zoo(words: list[str]) -> None:
    given: ZooArguments = parsed(ZooArguments, "zoo", words)
    if given.processes < 0:
        raise UserError(f"processes must not be negative, got {given.processes}")
    if given.action in ("list", "table"):
        (_zoo_list if given.action == "list" else _zoo_table)(given)
        return
    import os

    from mesaprobe.zoo.build import build, certify_members
    from mesaprobe.zoo.catalogue import select

    chosen, processes = select(given.members), given.processes or os.cpu_count() or 1
    if given.action == "build":
        outcomes = build(given.folder, chosen, processes)
    elif given.action == "calibrate":
        from mesaprobe.evidence import BUDGETS, LINES
        from mesaprobe.zoo.calibrate import calibrate
        from mesaprobe.zoo.records import records_folder

        BUDGETS[given.budget]
        outcomes = calibrate(
            given.folder,
            chosen,
            processes,
            budget=given.budget,
            lines=given.lines or tuple(LINES),
            folder=given.records or records_folder(),
        )
    else:
        outcomes = certify_members(given.folder, chosen, processes, again=given.again)
    failed = 0
    for outcome in outcomes:
        row = dataclasses.asdict(outcome)
        print(json.dumps(row) if given.json else f"{outcome.name}: {outcome.text}", flush=True)
        failed += outcome.failed
    if failed:
        raise UserError(f"{failed} of {len(chosen)} members failed; the lines above say why")


def _zoo_list(given: ZooArguments) -> None:
    from mesaprobe.zoo.command import families_certified, list_rows, overlaps

    print_rows(
        list_rows(given.folder, given.members),
        as_json=given.json,
        columns={
            "name": lambda row: row["name"],
            "family": lambda row: row["family"] + (" (sealed)" if row["sealed"] else ""),
            "class": lambda row: row["class"],
            "degree": lambda row: str(row["degree"]),
            "certified": lambda row: "yes" if row["certified"] else "no",
            "gap": lambda row: "-" if row["gap_mean"] is None else f"{row['gap_mean']:.1%}",
            "mechanism": lambda row: row["mechanism"],
        },
    )
    if given.json:
        return
    for role, families in families_certified(given.folder).items():
        print(f"{role}: {len(families)} families certified ({', '.join(families) or 'none'})")
    for overlap in overlaps(given.folder):
        failed = "; FAILED" if overlap.passed is False else ""
        print(f"{overlap.name} ({overlap.members} members): {overlap.why}{failed}")


def _zoo_table(given: ZooArguments) -> None:
    from mesaprobe.evidence import BUDGETS
    from mesaprobe.verdict.table import stored_table, table_words

    BUDGETS[given.budget]
    table = stored_table(given.budget, "matrix", 8, folder=given.records)
    print(json.dumps(table, allow_nan=False) if given.json else table_words(table))
