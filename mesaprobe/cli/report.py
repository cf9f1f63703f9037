"""`mesaprobe report` and `mesaprobe compare`: pages from stored results."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mesaprobe.cli.words import Many, parsed, print_rows


@dataclass(frozen=True)
class ReportArguments:
    """Options of `mesaprobe report`."""

    analysis: Annotated[Path, tyro.conf.Positional]
    """Folder of a stored analysis, e.g. analyses/demo."""


def report(words: list[str]) -> None:
    given: ReportArguments = parsed(ReportArguments, "report", words)
    from mesaprobe.report import render

    print(render(given.analysis))


@dataclass(frozen=True)
class CompareArguments:
    """Options of `mesaprobe compare`."""

    analyses: Many
    """Folders of stored analyses, e.g. analyses/one analyses/other."""
    out: Path | None = None
    """The page to write; default compare.html, and none with --json."""
    json: bool = False
    """One JSON object per analysis and line instead of the page."""


def compare(words: list[str]) -> None:
    given: CompareArguments = parsed(CompareArguments, "compare", words)
    from mesaprobe.report.compare import compare_rows, load_compared, render_comparison

    compared = load_compared([Path(folder) for folder in given.analyses])
    if given.json:
        print_rows(compare_rows(compared), as_json=True, columns={})
    if given.out is not None or not given.json:
        page = render_comparison(compared, given.out or Path("compare.html"))
        print(page, file=sys.stderr if given.json else sys.stdout)
