"""From a subject as a person names it to a stored analysis."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mesaprobe.analysis.analysis import Analysis, analyze
from mesaprobe.analysis.estimate import estimate_words
from mesaprobe.analysis.store import REPORT_FILE, load_report
from mesaprobe.analysis.unfinished import FinishedLines
from mesaprobe.errors import UserError
from mesaprobe.evidence import LINES, protocol_hash
from mesaprobe.files import make_folder
from mesaprobe.models import Subject, load
from mesaprobe.verdict.store import shipped_zoo


def find_subject(spec: str) -> Subject:
    """The subject saved in a folder, or what `package.module:factory` returns (the current folder is importable)."""
    if ":" not in spec or Path(spec).exists():
        return load(spec)
    module_name, _, factory_name = spec.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"subject {spec!r} cannot be imported: {error}") from error
    finally:
        sys.path.pop(0)
    subject = factory() if callable(factory) else None
    if not isinstance(subject, Subject):
        raise UserError(f"{spec} must be a function that returns a mesaprobe.Subject, got {type(subject).__name__}")
    return subject


def analyze_to_folder(
    spec: str,
    out: Path | None,
    *,
    several: bool,
    budget: str,
    lines: Sequence[str] | None,
    seed: int,
    reuse: bool,
    show: Callable[[str], None] | None = None,
) -> Path:
    """Analyse one subject and store it; the folder is `out`, `out`/NAME for several, or analyses/NAME.

    With `reuse`, a finished analysis of the same weights under the same protocol and seed, judged by the same zoo, is
    left as it is.
    """
    subject = find_subject(spec)
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in subject.name) or "subject"
    folder = Path("analyses") / name if out is None else out / name if several else out
    if reuse and _is_same(folder, subject, budget, lines, seed):
        return folder
    for line in lines or ():
        LINES[line]  # a wrong name says so before a folder is made
    make_folder(folder)
    if show is not None:
        show(estimate_words(int(subject.description.get("parameters") or 0), budget, lines or list(LINES)))
    finished = FinishedLines(folder, subject, budget, seed)
    try:
        analysis: Analysis = analyze(subject, budget=budget, lines=lines, seed=seed, show=show, finished=finished)
    except KeyboardInterrupt:
        raise UserError(f"stopped; the lines that were done are kept in {folder}, the same command goes on") from None
    analysis.save(folder)
    finished.clear()
    return folder


def _is_same(folder: Path, subject: Subject, budget: str, lines: Sequence[str] | None, seed: int) -> bool:
    if not (folder / REPORT_FILE).is_file():
        return False
    report = load_report(folder)
    protocol = {"hash": protocol_hash(budget, lines or list(LINES)), "budget": budget, "seed": seed}
    zoo = shipped_zoo(budget, subject.problem.config.family, subject.problem.n)
    return (
        report["protocol"] == protocol
        and report["subject"]["weights_hash"] == subject.weights_hash
        and report["verdict"]["zoo"]["hash"] == zoo.hash
    )
