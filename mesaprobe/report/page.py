"""The page: header, verdict, contents, sections, in one file that needs no network."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from mesaprobe.analysis.store import load_figures, load_report
from mesaprobe.errors import UserError
from mesaprobe.files import write_text
from mesaprobe.report.controls import SCRIPT
from mesaprobe.report.markup import Html, element, facts, paragraph
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.sections import SECTIONS
from mesaprobe.report.verdict import verdict_box
from mesaprobe.report.wording import family_name, number, sentence, text

Stored = dict[str, dict[str, np.ndarray]]


def render(folder: Path) -> Path:
    """Write `folder/report.html` from the stored analysis and return its path.

    Reads `report.json` and `figures/*.npz`; computes no results. A figure file that is absent leaves one sentence in
    its section. Raises UserError if the analysis cannot be read, or if a figure file lacks an array.
    """
    page = folder / "report.html"
    write_text(page, _document(load_report(folder), load_figures(folder)))
    return page


def _document(report: dict[str, Any], figures: Stored) -> str:
    name = report["subject"]["name"]
    style = files("mesaprobe.report").joinpath("style.css").read_text(encoding="utf-8")
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en-GB">',
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", f"{name}: mesaprobe report"),
            element("meta", name="description", content=_description(report)),
            element("link", rel="icon", href="data:,"),
            element("style", Html(style)),
        ),
        "<body>",
        element("a", "Skip to the verdict", href="#verdict", class_="skip"),
        _header(report),
        element("div", _contents(), element("main", _verdict(report), *_sections(report, figures)), class_="columns"),
        element("noscript", paragraph("The figures need JavaScript; every table and sentence reads without it.")),
        element("script", Html(get_plotlyjs())),
        element("script", Html(SCRIPT)),
        "</body></html>\n",
    ]
    return "\n".join(parts)


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
    entries = [("verdict", "Verdict"), *((section.id, section.title) for section in SECTIONS)]
    items = (element("li", element("a", title, href=f"#{id_}")) for id_, title in entries)
    return element("nav", element("ol", *items), aria_label="Contents")


def _verdict(report: dict[str, Any]) -> Html:
    return element("section", element("h2", "Verdict"), verdict_box(report), id="verdict")


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
            _figures(section, section.figures, report, figures) if section.figures else "",
            id=section.id,
        )
        for section in SECTIONS
    ]


def _figures(section: Section, wanted: Figures, report: dict[str, Any], figures: Stored) -> Html:
    arrays = figures.get(wanted.stem)
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
