"""The page: header, verdict, contents, sections, in one file that needs no network."""

from pathlib import Path
from typing import Any

import numpy as np

from mesaprobe.analysis.store import load_figures, load_report
from mesaprobe.errors import UserError
from mesaprobe.files import write_text
from mesaprobe.report import components, explorer
from mesaprobe.report.document import document
from mesaprobe.report.downloads import downloads_section, embedded_results
from mesaprobe.report.markup import Html, element, facts, paragraph
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.sections import SECTIONS
from mesaprobe.report.verdict import verdict_box
from mesaprobe.report.wording import family_name, number, sentence, text

_DOWNLOADS = "Download the results"

Stored = dict[str, dict[str, np.ndarray]]


def render(folder: Path) -> Path:
    """Write `folder/report.html` from the stored analysis and return its path.

    Reads `report.json` and `figures/*.npz`; computes no results. A figure file that is absent leaves one sentence in
    its section. Raises UserError if the analysis cannot be read, or if a figure file lacks an array.
    """
    page = folder / "report.html"
    report = load_report(folder)
    write_text(page, _document(report, load_figures(folder), embedded_results(folder, report)))
    return page


def _document(report: dict[str, Any], figures: Stored, results: dict[str, bytes]) -> str:
    name = report["subject"]["name"]
    return document(
        f"{name}: mesaprobe report",
        _description(report),
        element("a", "Skip to the verdict", href="#verdict", class_="skip"),
        _header(report),
        element(
            "div",
            _contents(),
            element("main", _verdict(report, figures), *_sections(report, figures), _downloads(name, results)),
            class_="columns",
        ),
        element("script", Html(explorer.script())) if "explorer" in figures else Html(),
    )


def _description(report: dict[str, Any]) -> str:
    problem = report["subject"]["problem"]
    return (
        f"Does {report['subject']['name']} (travelling salesman, {problem['family']}, n = {problem['n']}) search or "
        f"run heuristics? Verdict: {report['verdict']['label']}."
    )


def _header(report: dict[str, Any]) -> Html:
    subject, problem = report["subject"], report["subject"]["problem"]
    pairs = [
        ("problem", family_name(problem["family"])),
        ("cities (n)", text(problem["n"])),
        ("teacher", text(subject["teacher"])),
        ("parameters", number(subject["parameters"])),
        ("layers", text(subject["layers"])),
        ("d_model", text(subject["d_model"])),
        ("attention", text(subject["attention"])),
        ("arm", text(subject["arm"])),
    ]
    return element(
        "header",
        paragraph("mesaprobe report", class_="kicker"),
        element("h1", subject["name"]),
        paragraph("Does this network search, or does it run heuristics?", class_="question"),
        facts(pairs),
    )


def _contents() -> Html:
    entries = [
        ("verdict", "Verdict"),
        *((section.id, section.title) for section in SECTIONS),
        ("downloads", _DOWNLOADS),
    ]
    items = (element("li", element("a", title, href=f"#{id_}")) for id_, title in entries)
    listed = element("details", element("summary", "Contents"), element("ol", *items), open=True)
    return element("nav", listed, aria_label="Contents")


def _verdict(report: dict[str, Any], figures: Stored) -> Html:
    zoo = figures.get("zoo")
    if zoo is not None and not set(components.ARRAYS) <= set(zoo):
        zoo = None  # its own section says what is lacking
    return element("section", element("h2", "Verdict"), verdict_box(report, zoo), id="verdict")


def _downloads(name: str, results: dict[str, bytes]) -> Html:
    return element("section", element("h2", _DOWNLOADS), downloads_section(name, results), id="downloads")


def _sections(report: dict[str, Any], figures: Stored) -> list[Html]:
    return [
        element(
            "section",
            element("h2", section.title),
            element(
                "div",
                paragraph(section.shows),
                paragraph(element("strong", "Limits. "), section.limits),
                class_="lead",
            ),
            section.numbers(report) if section.numbers else "",
            _figures(section, section.figures, report, figures) if section.figures else Html(),
            id=section.id,
        )
        for section in SECTIONS
    ]


def _figures(section: Section, wanted: Figures, report: dict[str, Any], figures: Stored) -> Html:
    arrays = figures.get(wanted.stem)
    if (
        arrays is None
        and section.numbers
        and wanted.line
        and wanted.line not in {line["id"] for line in report["lines"]}
    ):
        return Html()  # that the line was not measured stands there already
    if arrays is None:
        file = element("code", f"figures/{wanted.stem}.npz")
        reasons = [line["reason"] for line in report["lines"] if line["id"] == wanted.line and line["reason"]]
        why = f": {reasons[0]}" if reasons else ""
        return paragraph("Not drawn, since this analysis holds no ", file, sentence(why) or ".", class_="absent")
    lacking = [key for key in wanted.arrays if key not in arrays]
    if lacking:
        raise UserError(
            f"figures/{wanted.stem}.npz lacks {', '.join(lacking)}, which the section {section.title!r} draws; "
            "analyse the subject again"
        )
    return wanted.draw(arrays)
