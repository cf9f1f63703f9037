"""`mesaprobe study`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mesaprobe.cli.words import parsed, print_rows
from mesaprobe.errors import UserError


@dataclass(frozen=True)
class StudyArguments:
    """Options of `mesaprobe study`."""

    study: Annotated[Literal["fixes", "curriculum"], tyro.conf.Positional]
    """fixes: arms of training, compared for the inner search of the networks that come out. curriculum: easy
    instances first against none, compared by tier on what the networks can do."""
    pilot: bool = False
    """fixes: four paired seeds of a small shape, to see the spread."""
    out: Path | None = None
    """Folder of the study, default analyses/fixes-pilot or analyses/curriculum; the same command goes on with what is
    there."""
    zoo: Path = Path("trained_models/zoo")
    """fixes: where the certified searchers lie."""
    json: bool = False
    """One JSON object a row instead of a table."""


def study(words: list[str]) -> None:
    given: StudyArguments = parsed(StudyArguments, "study", words)
    {"fixes": _fixes, "curriculum": _curriculum}[given.study](given)


def _show(stage: str) -> None:
    print(f"  {stage}", file=sys.stderr, flush=True)


def _curriculum(given: StudyArguments) -> None:
    from mesaprobe.studies.curriculum import CurriculumDesign, run_curriculum, table_rows

    results = run_curriculum(CurriculumDesign(), given.out or Path("analyses/curriculum"), _show)
    print_rows(table_rows(results), as_json=given.json, columns=_CURRICULUM_COLUMNS)
    if not given.json:
        print(results.note)


def _fixes(given: StudyArguments) -> None:
    if not given.pilot:
        raise UserError("only the pilot can be run: add --pilot (the full study is frozen after it)")
    from mesaprobe.studies.design import PILOT
    from mesaprobe.studies.fixes import run_fixes, table_rows
    from mesaprobe.studies.page import write_page

    out = given.out or Path("analyses/fixes-pilot")
    results = run_fixes(PILOT, out, given.zoo, _show)
    page = write_page(results, out)
    print_rows(table_rows(results), as_json=given.json, columns=_COLUMNS)
    if not given.json:
        print(f"{results.gate}\n{page}")


def _interval(name: str, form: str) -> Any:
    def show(row: Any) -> str:
        value, low, high = (row[f"{name}{part}"] for part in ("", "_low", "_high"))
        if value is None:
            return "-"
        return f"{value:{form}}" + ("" if low is None else f" ({low:{form}} to {high:{form}})")

    return show


_COLUMNS = {
    "arm": lambda row: row["arm"],
    "networks": lambda row: str(row["networks"]),
    "discordant accuracy": _interval("system", ".1%"),
    "single pass": _interval("single_pass", ".1%"),
    "score S": _interval("score", ".2f"),
    "E7": _interval("e7", ".2f"),
    "S minus A0": _interval("difference", ".2f"),
    "p (Holm)": lambda row: "-" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
    "word": lambda row: row["word"] or "-",
}
_CURRICULUM_COLUMNS = {
    "measure": lambda row: row["measure"],
    "tier": lambda row: row["tier"],
    "instances": lambda row: f"{row['instances']:,}",
    "decisions": lambda row: "-" if row["decisions"] is None else f"{row['decisions']:,}",
    "none": _interval("none", ".2%"),
    "easy to hard": _interval("easy_to_hard", ".2%"),
    "difference": _interval("difference", "+.2%"),
    "each seed": lambda row: " ".join(f"{pair:+.2%}" for pair in row["pairs"]),
    "p": lambda row: f"{row['p']:.2f}",
}
