"""The table of evidence lines, and what is needed to repeat the analysis."""

import re
from typing import Any

import mesaprobe
from mesaprobe.report.markup import Html, details, element, facts, join, paragraph, table
from mesaprobe.report.wording import NOT_KNOWN, duration, known, line_rank, number, number_interval, sentence, text

_STATUS = {"ok": "measured", "na": "not applicable", "underpowered": "underpowered"}


def evidence_table(report: dict[str, Any]) -> Html:
    """Every line with its value, interval, p-value, each null, and the reason where it gives no result."""
    lines = sorted(report["lines"], key=lambda line: line_rank(line["id"]))
    if not lines:
        return paragraph("No line of evidence was measured.")
    head = ("line", "what it measures", "status", "value", "95% interval", "p", "nulls", "reason", "time")
    rows = [
        (
            line["id"],
            sentence(line["name"]).rstrip("."),
            _STATUS.get(line["status"], line["status"]),
            number(line["value"]),
            number_interval(line["ci"]),
            number(line["p"]),
            _nulls(line["null"]),
            sentence(line["reason"]) if line["reason"] else "",
            duration(line["seconds"]),
        )
        for line in lines
    ]
    more = [
        details(
            f"Details of {line['id']}",
            facts((key.replace("_", " "), text(value)) for key, value in line["details"].items()),
        )
        for line in lines
        if line["details"]
    ]
    return join([table("Lines of evidence", head, rows, words=(0, 1, 2, 6, 7), min_width=900), *more])


def _nulls(nulls: dict[str, Any] | None) -> Html | str:
    """Each null; several of one kind (random twin 0, 1 ...) as their range."""
    if not nulls:
        return NOT_KNOWN
    groups: dict[str, list[float | None]] = {}
    for name, value in nulls.items():
        groups.setdefault(re.sub(r" \d+$", "", name.replace("_", " ")), []).append(value)
    items = []
    for kind, values in groups.items():
        given = [value for value in values if known(value)]
        if len(values) == 1 or not given:
            items.append(f"{kind}: {text(values[0])}")
        else:
            items.append(f"{kind}, {len(values)} of them: {number(min(given))} to {number(max(given))}")
    return element("ul", *(element("li", item) for item in items), class_="plain")


def reproducibility(report: dict[str, Any]) -> Html:
    """Protocol, seed, versions and cost."""
    protocol = report["protocol"]
    return facts(
        [
            ("subject", text(report["subject"]["path"])),
            ("hash of the weights", text(report["subject"]["weights_hash"])),
            ("protocol hash", text(protocol["hash"])),
            ("budget", text(protocol["budget"])),
            ("seed", text(protocol["seed"])),
            ("time of the analysis", duration(report["seconds"])),
            ("schema of report.json", text(report["schema"])),
            ("page written by", f"mesaprobe {mesaprobe.__version__}"),
            *((f"version of {name}", text(version)) for name, version in report["versions"].items()),
        ]
    )
