"""The table of evidence lines, and what is needed to repeat the analysis."""

from typing import Any

import mesaprobe
from mesaprobe.report.markup import Html, details, element, facts, join, paragraph, table
from mesaprobe.report.wording import NOT_KNOWN, duration, number, number_interval, sentence, text

_STATUS = {"ok": "measured", "na": "not applicable", "underpowered": "underpowered"}


def evidence_table(report: dict[str, Any]) -> Html:
    """Every line with its value, interval, p-value, each null, and the reason where it gives no result."""
    lines = report["lines"]
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
    if not nulls:
        return NOT_KNOWN
    return element(
        "ul",
        *(element("li", f"{name.replace('_', ' ')}: {text(value)}") for name, value in nulls.items()),
        class_="plain",
    )


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
