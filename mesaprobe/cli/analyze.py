"""`mesaprobe analyze`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mesaprobe.cli.words import Many, parsed
from mesaprobe.errors import UserError


@dataclass(frozen=True)
class AnalyzeArguments:
    """Options of `mesaprobe analyze`."""

    subjects: Many
    """Folders of saved models, or package.module:factory where factory() returns a Subject."""
    budget: Literal["quick", "standard", "full"] = "quick"
    """How many instances and repetitions are spent."""
    lines: str | None = None
    """Lines of evidence to run, e.g. E6 or E3,E6; default all."""
    out: Path | None = None
    """Folder of the analysis; default analyses/NAME. With several subjects, the folder that holds theirs."""
    seed: int = 0
    """Seed of all instances and resampling."""
    reuse: bool = False
    """Leave a finished analysis of the same weights, budget, lines and seed as it is."""
    demo: bool = False
    """Analyse a network that ships with the package, looped 2-opt; needs no clone and no training."""


def analyze(words: list[str]) -> None:
    given: AnalyzeArguments = parsed(AnalyzeArguments, "analyze", words)
    if given.demo == bool(given.subjects):
        raise UserError(
            "name at least one subject: a folder such as trained_models/demo, or package.module:factory; or take --demo"
        )
    from mesaprobe.analysis.command import analyze_to_folder
    from mesaprobe.report import render

    lines = None if given.lines is None else [line.strip() for line in given.lines.split(",") if line.strip()]
    for spec in given.subjects or ("mesaprobe.zoo.demo:searcher",):
        folder = analyze_to_folder(
            spec,
            given.out,
            several=len(given.subjects) > 1,
            budget=given.budget,
            lines=lines,
            seed=given.seed,
            reuse=given.reuse,
            show=lambda stage: print(f"  {stage}", file=sys.stderr, flush=True),
        )
        page = folder / "report.html"
        if not (given.reuse and page.is_file()):
            page = render(folder)
        print(page)
