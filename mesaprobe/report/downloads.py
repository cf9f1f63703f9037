"""The stored results inside the page: links that hold the data itself."""

import base64
import json
from pathlib import Path
from typing import Any

from mesaprobe.analysis.store import EVIDENCE_FILE, load_evidence
from mesaprobe.report.markup import Html, element, paragraph

LARGEST = 3_000_000
"""Bytes up to which a file is put into the page."""


def embedded_results(folder: Path, report: dict[str, Any]) -> dict[str, bytes]:
    """report.json and the tidy evidence as Parquet and as CSV, by file name; without evidence only the first."""
    found = {"report.json": json.dumps(report, indent=1, allow_nan=False).encode()}
    if (folder / EVIDENCE_FILE).is_file():
        found["evidence.csv"] = load_evidence(folder).to_csv(index=False, lineterminator="\n").encode()
        found[EVIDENCE_FILE] = (folder / EVIDENCE_FILE).read_bytes()
    return found


_KINDS = {"json": "application/json", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
_WORDS = {
    "report.json": "verdict, gates, lines and behaviour",
    "evidence.csv": "one row a number with its null, as text",
    "evidence.parquet": "the same table with its types",
}


def downloads_section(name: str, results: dict[str, bytes]) -> Html:
    """One link a file; files that are too large for a page are named instead."""
    items = []
    for file, contents in results.items():
        size = f"{max(1, round(len(contents) / 1000)):,} kB"
        words = f": {_WORDS[file]} ({size})"
        if len(contents) > LARGEST:
            items.append(element("li", element("code", file), f"{words}; too large for this page, it lies beside it"))
            continue
        data = f"data:{_KINDS[file.rpartition('.')[2]]};base64,{base64.b64encode(contents).decode()}"
        items.append(element("li", element("a", file, href=data, download=f"{name}-{file}"), words))
    note = "What the figures draw lies beside the page as figures/*.npz."
    return element("div", element("ul", *items), paragraph(note, class_="caption"))
