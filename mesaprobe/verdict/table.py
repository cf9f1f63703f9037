"""The error table as it is stored and as `mesaprobe zoo table` prints it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesaprobe.errors import UserError
from mesaprobe.verdict.error_table import error_table
from mesaprobe.verdict.store import read_table, shipped_zoo, write_table


def stored_table(budget: str, family: str, n: int, *, folder: Path | None = None) -> dict[str, Any]:
    """The error table of the zoo that ships: read where it is stored, else computed and stored.

    Raises UserError where the records are absent, too few, or of another protocol.
    """
    shipped = shipped_zoo(budget, family, n, folder=folder)
    if shipped.calibration is None:
        why = {"OTHER_PROTOCOL": "were measured under another protocol"}.get(str(shipped.problem), "are too few")
        raise UserError(f"the zoo's records for {family}, n = {n}, budget {budget} {why}; run: mesaprobe zoo calibrate")
    known = read_table(shipped, folder)
    if known is not None:
        return known
    try:
        table = {"zoo": shipped.hash, "budget": budget, "problem": family, "n": n, **error_table(shipped.records)}
    except ValueError as error:
        raise UserError(str(error)) from error
    write_table(budget, table, folder)
    return table


def table_words(table: Mapping[str, Any]) -> str:
    """The table in lines of text."""
    families, benchmarks = table["families"], table["benchmarks"]
    interval = table["auroc_ci"]
    rows = [
        f"zoo {table['zoo']}, {table['problem']}, n = {table['n']}, budget {table['budget']}",
        f"{families['search']} families of search, {families['heuristic']} of heuristic "
        f"({families['asked']} of each asked)",
        f"AUROC, leaving one family and its algorithms out: {_number(table['auroc'])} "
        f"({interval[0]:.3f} to {interval[1]:.3f} over families)",
    ]
    for name in ("false_search", "false_heuristic", "false_leaning_search", "false_leaning_heuristic"):
        bound = table["bounds"][name]
        rows.append(
            f"{name.replace('_', ' ')}: {table[name]:.1%} of models "
            f"(at most {bound['models']:.0%} of models, {bound['families']:.0%} of families, 95 % bounds)"
        )
    rows += [f"{name.replace('_', ' ')}: {table[name]:.1%} of models" for name in ("inconclusive", "right_leaning")]
    for name in ("decoys_called_search", "decoys_leaning_search"):
        rows.append(f"{name.replace('_', ' ')}: {table[name]['count']} of {table[name]['members']}")
    for name in ("camouflage_called_heuristic", "camouflage_leaning_heuristic"):
        rows.append(f"{name.replace('_', ' ')}: {table[name]['count']} of {table[name]['members']}")
    rows.append(f"sealed families, judged by the open ones alone: {', '.join(table['sealed']['families']) or 'none'}")
    rows += [
        f"sealed {row['class']} {row['name']}: score {row['score']:+.2f}, {row['label']} ({row['reason']})"
        for row in table["sealed"]["members"]
    ]
    for name, found in benchmarks.items():
        if name not in ("single_lines", "full"):
            gap = found["difference_ci"]
            gain = f"; full battery minus this {gap[0]:+.3f} to {gap[1]:+.3f}" if gap else ""
            rows.append(f"{name.replace('_', ' ')}: AUROC {_number(found['auroc'])}{gain}")
    rows += [f"only {line}: AUROC {_number(value)}" for line, value in benchmarks["single_lines"].items()]
    rows += [f"without {line}: AUROC {_number(value)}" for line, value in table["leave_one_line_out"].items()]
    rows += [f"if search began at degree {cut}: AUROC {_number(value)}" for cut, value in table["cuts"].items()]
    for family, found in families["each"].items():
        words = ", ".join(f"{count} {word}" for word, count in {**found["labels"], **found["reasons"]}.items())
        rows.append(f"{found['class']} {family}: score {found['score']:+.2f}; {words}; leaning {found['leanings']}")
    return "\n".join(rows)


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def table_markdown(table: Mapping[str, Any]) -> str:
    """The table as it stands in the README."""
    families, bounds = table["families"], table["bounds"]
    interval = table["auroc_ci"]
    head = (
        f"`mesaprobe zoo table`, budget {table['budget']}, {table['problem']}, n = {table['n']}: {families['search']} "
        f"families of search and {families['heuristic']} of heuristic take part, {families['asked']} of each are asked "
        f"for a word. Every family is judged by a fit to the others, and measured where nobody knows its algorithms: "
        f"neither the library nor any filter, null or nuisance names them."
    )
    if min(families["search"], families["heuristic"]) < families["asked"]:
        head += (
            " With fewer, every label is INCONCLUSIVE by the rule: false rates of 0 are no merit yet, and the AUROC is "
            "the figure to read."
        )
    rows = [
        ("AUROC", f"{table['auroc']:.3f} ({interval[0]:.3f} to {interval[1]:.3f} over families)"),
        ("false SEARCH", _rate(table, "false_search", bounds)),
        ("false HEURISTIC", _rate(table, "false_heuristic", bounds)),
        ("inconclusive", f"{table['inconclusive']:.0%} of models"),
        ("heuristics that lean to search", _rate(table, "false_leaning_search", bounds)),
        ("searchers that lean to heuristic", _rate(table, "false_leaning_heuristic", bounds)),
        ("decoys called SEARCH", _tally(table["decoys_called_search"])),
        ("camouflaged searchers called HEURISTIC", _tally(table["camouflage_called_heuristic"])),
        *(
            (name.replace("_", " "), f"AUROC {_number(found['auroc'])}")
            for name, found in table["benchmarks"].items()
            if name not in ("single_lines", "full")
        ),
    ]
    return "\n".join([head, "", "| what | figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _rate(table: Mapping[str, Any], name: str, bounds: Mapping[str, Any]) -> str:
    bound = bounds[name]
    return f"{table[name]:.0%} of models (at most {bound['models']:.0%} of models, {bound['families']:.0%} of families)"


def _tally(found: Mapping[str, int]) -> str:
    return f"{found['count']} of {found['members']}"
