"""Several stored analyses side by side: verdicts, behaviour, components and lines, on one page or as plain rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mesaprobe.analysis.store import load_figures, load_report
from mesaprobe.errors import UserError
from mesaprobe.files import write_text
from mesaprobe.report.components import ARRAYS, KEY, QUESTIONS, members_of_zoo
from mesaprobe.report.document import document
from mesaprobe.report.markup import Html, details, element, join, paragraph, table
from mesaprobe.report.strips import Lane, Mark, key, strip
from mesaprobe.report.verdict import opening_sentence
from mesaprobe.report.wording import (
    known,
    line_rank,
    number,
    number_interval,
    percent,
    percent_interval,
    sentence,
    text,
)

MOST = 8
"""Analyses on one page: as many as there are colours that can be told apart."""
_COLUMN = 190
"""Least width of a column, in pixels."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One stored analysis among others."""

    name: str
    """The subject's name; where several share it, with the folder."""
    folder: Path
    report: dict[str, Any]
    zoo: dict[str, np.ndarray] | None
    """figures/zoo.npz, if it is there and whole."""

    def component(self, name: str) -> dict[str, Any] | None:
        """Value, interval and p of one component; None where it has no value."""
        if self.zoo is None or name not in self.zoo["components"].tolist():
            return None
        row = self.zoo["components"].tolist().index(name)
        if not known(float(self.zoo["value"][row])):
            return None
        found = {key: _null(float(self.zoo[key][row])) for key in ("value", "low", "high", "p")}
        return found | {"stands_out": bool(self.zoo["stands_out"][row])}

    def line(self, id_: str) -> dict[str, Any] | None:
        """The stored entry of one line; None where it was not measured."""
        return next((line for line in self.report["lines"] if line["id"] == id_), None)


def load_compared(folders: Sequence[Path]) -> list[Compared]:
    """Read the analyses; UserError for fewer than two or more than eight, for one named twice, or if one is broken."""
    if not 2 <= len(folders) <= MOST:
        raise UserError(f"name 2 to {MOST} analyses to compare, e.g. analyses/one analyses/other; got {len(folders)}")
    places = [folder.resolve() for folder in folders]
    twice = [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice; an analysis cannot be compared with itself")
    reports = [load_report(folder) for folder in folders]
    names = [report["subject"]["name"] for report in reports]
    found = []
    for folder, report, name in zip(folders, reports, names, strict=True):
        zoo = load_figures(folder).get("zoo")
        whole = zoo is not None and set(ARRAYS) <= set(zoo)
        found.append(
            Compared(name if names.count(name) == 1 else f"{name} ({folder})", folder, report, zoo if whole else None)
        )
    return found


def compare_rows(compared: Sequence[Compared]) -> list[dict[str, Any]]:
    """One plain object an analysis, with stable names; what is not known is null."""
    behaviour = ("gap_mean", "gap_ci", "optimal_fraction", "legal_fraction", "decision_accuracy", "discordant_accuracy")
    verdict = ("leaning", "reason", "kind", "log10_lr", "conformal_p_under_heuristic", "conformal_p_under_search")
    return [
        {
            "name": one.name,
            "folder": str(one.folder),
            "problem": one.report["subject"]["problem"]["family"],
            "n": one.report["subject"]["problem"]["n"],
            "label": one.report["verdict"]["label"],
            **{key: one.report["verdict"][key] for key in verdict},
            "zoo": one.report["verdict"]["zoo"]["hash"],
            "protocol": one.report["protocol"],
            **{key: one.report["behaviour"][key] for key in behaviour},
            "components": {name: one.component(name) for name in QUESTIONS},
            "lines": {
                line["id"]: {key: line[key] for key in ("status", "reason", "value", "ci", "p")}
                for line in one.report["lines"]
            },
        }
        for one in compared
    ]


def render_comparison(compared: Sequence[Compared], page: Path) -> Path:
    """Write the page and return its path; UserError if it cannot be written."""
    names = ", ".join(one.name for one in compared)
    title = f"{len(compared)} networks side by side"
    header = element(
        "header",
        paragraph("mesaprobe compare", class_="kicker"),
        element("h1", title),
        paragraph("Which of these networks search, and which run heuristics?", class_="question"),
        _legend(compared),
    )
    sections = [
        ("verdicts", "Verdicts", join([_warnings(compared), _table("Verdicts", _VERDICT, compared)])),
        ("behaviour", "Behaviour", _table("Behaviour on each analysis' own instances", _behaviour(compared), compared)),
        ("components", "Ten components beside the zoo", _components(compared)),
        ("lines", "Lines of evidence", _lines(compared)),
    ]
    body = (element("section", element("h2", heading), content, id=id_) for id_, heading, content in sections)
    write_text(
        page,
        document(f"{title}: mesaprobe", f"mesaprobe compares {names}.", header, element("main", *body), figures=False),
    )
    return page


def _legend(compared: Sequence[Compared]) -> Html:
    return key([("bar", f"subject{index}", one.name) for index, one in enumerate(compared)])


def _warnings(compared: Sequence[Compared]) -> Html:
    """What keeps these numbers from being compared."""
    told = {
        "They solve different problems": [
            f"{r['problem']['family']}, n = {r['problem']['n']}" for r in _subjects(compared)
        ],
        "They were measured under different protocols": [one.report["protocol"]["hash"] for one in compared],
        "They were compared with different zoos": [text(one.report["verdict"]["zoo"]["hash"]) for one in compared],
        "They were measured with different seeds": [str(one.report["protocol"]["seed"]) for one in compared],
    }
    items = [
        f"{words}: {'; '.join(f'{one.name}: {value}' for one, value in zip(compared, values, strict=True))}."
        for words, values in told.items()
        if len(set(values)) > 1
    ]
    if not items:
        return paragraph("Same problem, protocol, zoo and seed: the numbers can be compared.", class_="absent")
    lead = paragraph(element("strong", "Compare with care."))
    return element("div", lead, element("ul", *(element("li", item) for item in items)), class_="absent")


def _subjects(compared: Sequence[Compared]) -> list[dict[str, Any]]:
    return [one.report["subject"] for one in compared]


_Row = tuple[str, Callable[[Compared], str]]

_VERDICT: tuple[_Row, ...] = (
    ("verdict", lambda one: one.report["verdict"]["label"]),
    ("in words", lambda one: opening_sentence(one.report, one.zoo)),
    ("leaning", lambda one: one.report["verdict"]["leaning"] or "none"),
    ("reason", lambda one: one.report["verdict"]["reason"] or "none needed"),
    ("kind of search", lambda one: one.report["verdict"]["kind"] or "none named"),
    ("tour cost represented", lambda one: text(one.report["verdict"]["objective"]["status"])),
    ("log10 likelihood ratio", lambda one: number(one.report["verdict"]["log10_lr"])),
    ("p under “heuristic”", lambda one: number(one.report["verdict"]["conformal_p_under_heuristic"])),
    ("p under “search”", lambda one: number(one.report["verdict"]["conformal_p_under_search"])),
    (
        "gates not passed",
        lambda one: ", ".join(g["id"] for g in one.report["gates"] if g["passed"] is not True) or "none",
    ),
    ("teacher", lambda one: text(one.report["subject"]["teacher"])),
    ("arm", lambda one: text(one.report["subject"]["arm"])),
    ("parameters", lambda one: number(one.report["subject"]["parameters"])),
    ("budget", lambda one: text(one.report["protocol"]["budget"])),
)


def _behaviour(compared: Sequence[Compared]) -> list[_Row]:
    def share(name: str) -> Callable[[Compared], str]:
        return lambda one: percent(one.report["behaviour"][name])

    def by_dstar(name: str) -> Callable[[Compared], str]:
        return lambda one: percent(one.report["behaviour"]["accuracy_by_dstar"].get(name, {}).get("accuracy"))

    bins = dict.fromkeys(name for one in compared for name in one.report["behaviour"]["accuracy_by_dstar"])
    return [
        ("mean gap", share("gap_mean")),
        ("95% interval of the gap", lambda one: percent_interval(one.report["behaviour"]["gap_ci"])),
        ("optimal tours", share("optimal_fraction")),
        ("legal without the mask", share("legal_fraction")),
        ("optimal decisions", share("decision_accuracy")),
        ("optimal where every rule is wrong", share("discordant_accuracy")),
        *((f"optimal decisions at d* = {name}", by_dstar(name)) for name in bins),
        ("instances", lambda one: number(one.report["behaviour"]["instances"])),
    ]


def _table(caption: str, rows: Sequence[_Row], compared: Sequence[Compared]) -> Html:
    """One column a network."""
    cells = [(name, *(write(one) for one in compared)) for name, write in rows]
    head = ("", *(one.name for one in compared))
    return table(caption, head, cells, words=range(len(head)), min_width=_COLUMN * len(head))


def _components(compared: Sequence[Compared]) -> Html:
    with_zoo = next((one.zoo for one in compared if one.zoo is not None and len(one.zoo["names"])), None)
    keys = [("bar", f"subject{index}", one.name) for index, one in enumerate(compared)]
    rows = [_component(name, compared, with_zoo) for name in QUESTIONS]
    numbers = [
        (
            name,
            *(_interval_words(one.component(name)) for one in compared),
        )
        for name in QUESTIONS
    ]
    head = ("component", *(one.name for one in compared))
    return join(
        [
            key([KEY[0], *keys, KEY[2]] if with_zoo is not None else keys),
            element("div", *rows, class_="strips"),
            paragraph("Whiskers are 95% intervals. Every component has its own scale.", class_="caption"),
            details(
                "The components in numbers",
                table(
                    "Components with their 95% intervals",
                    head,
                    numbers,
                    words=range(len(head)),
                    min_width=_COLUMN * len(head),
                ),
            ),
        ]
    )


def _component(name: str, compared: Sequence[Compared], zoo: dict[str, np.ndarray] | None) -> Html:
    lanes, told = [], []
    for index, one in enumerate(compared):
        found = one.component(name)
        words = f"{one.name}: {_interval_words(found)}"
        told.append(words)
        marks = []
        if found is not None:
            ends = (np.nan if found[end] is None else found[end] for end in ("low", "high"))
            marks = [Mark(found["value"], words, *ends)]
        lanes.append(Lane(f"subject{index}", marks, "bar", 17))
    if zoo is not None:
        row = zoo["components"].tolist().index(name)
        lanes.insert(0, Lane("search", members_of_zoo(zoo, row, search=True), "circle", 16))
        lanes.append(Lane("heuristic", members_of_zoo(zoo, row, search=False), "square", 16))
    drawn = any(lane.marks for lane in lanes)
    values = (one.component(name) for one in compared)
    return element(
        "div",
        element("div", element("strong", name), " ", QUESTIONS[name], class_="strip-name"),
        strip(lanes, label=f"{name}. {'; '.join(told)}") if drawn else element("span", class_="strip"),
        element(
            "div",
            *(element("span", "no value" if v is None else number(v["value"])) for v in values),
            class_="strip-value",
        ),
        class_="strip-row",
    )


def _interval_words(found: dict[str, Any] | None) -> str:
    if found is None:
        return "no value"
    return f"{number(found['value'])} ({number_interval((found['low'], found['high']))})"


def _lines(compared: Sequence[Compared]) -> Html:
    ids = sorted({line["id"] for one in compared for line in one.report["lines"]}, key=line_rank)
    if not ids:
        return paragraph("None of these analyses measured a line of evidence.", class_="absent")
    rows = [(id_, *(_line_words(one.line(id_)) for one in compared)) for id_ in ids]
    head = ("line", *(one.name for one in compared))
    return table(
        "Value with its 95% interval, and p", head, rows, words=range(len(head)), min_width=_COLUMN * len(head)
    )


def _line_words(line: dict[str, Any] | None) -> str:
    if line is None:
        return "not measured"
    if not known(line["value"]):
        return sentence(line["reason"] or "no value").rstrip(".")
    words = f"{number(line['value'])} ({number_interval(line['ci'])}), p = {number(line['p'])}"
    return words if line["status"] == "ok" else f"{words}; {line['status']}"


def _null(value: float) -> float | None:
    return value if known(value) else None
