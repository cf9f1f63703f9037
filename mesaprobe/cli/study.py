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

    study: Annotated[Literal["fixes"], tyro.conf.Positional]
    """fixes: arms of training, compared for the inner search of the networks that come out."""
    pilot: bool = False
    """Four paired seeds of a small shape, to see the spread."""
    out: Path = Path("analyses/fixes-pilot")
    """Folder of the study; the same command goes on with what is there."""
    zoo: Path = Path("trained_models/zoo")
    """Where the certified searchers lie."""
    json: bool = False
    """One JSON object an arm instead of a table."""


def study(words: list[str]) -> None:
    given: StudyArguments = parsed(StudyArguments, "study", words)
    if not given.pilot:
        raise UserError("only the pilot can be run: add --pilot (the full study is frozen after it)")
    from mesaprobe.studies.design import PILOT
    from mesaprobe.studies.fixes import run_fixes, table_rows
    from mesaprobe.studies.page import write_page

    results = run_fixes(PILOT, given.out, given.zoo, lambda stage: print(f"  {stage}", file=sys.stderr, flush=True))
    page = write_page(results, given.out)
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
