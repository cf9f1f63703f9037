"""The study's page: one HTML file that works offline, drawn from the stored results."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from mesaprobe.files import write_text
from mesaprobe.report.document import document
from mesaprobe.report.markup import Html, element, paragraph, table
from mesaprobe.report.plots import embed, method_style, new_figure
from mesaprobe.studies.contrasts import Contrast, Mean
from mesaprobe.studies.fixes import FixesResults
from mesaprobe.training.arms import ARMS

PAGE_FILE = "results.html"
_UNKNOWN = "not known"


def write_page(results: FixesResults, folder: Path) -> Path:
    """Write the page beside the results; returns its path."""
    body = element(
        "main",
        element("h1", "Do changes of the training set-up prevent inner search?"),
        paragraph(_answer(results)),
        _arms(results),
        _contrasts(results),
        embed("accuracy", _accuracy_figure(results), caption=_ACCURACY_WORDS, alt="Discordant accuracy over steps"),
        _cells(results),
        element("h2", "Retention"),
        paragraph(_RETENTION_WORDS),
        embed("retention", _retention_figure(results), caption="E7 of searchers trained on.", alt="E7 over steps"),
        _retention(results),
    )
    path = folder / PAGE_FILE
    write_text(path, document("Fixes study", "Arms of training compared for inner search", body))
    return path


_ACCURACY_WORDS = (
    "Accuracy of the whole system, outer loop included, on decisions where every rule names a wrong city; mean over "
    "seeds. Networks are compared at the first checkpoint that reaches the level."
)
_RETENTION_WORDS = (
    "Certified searchers are trained further on optimal tours. E7 is the line of interchange: how far exchanged inner "
    "states move the answer as a search would. Editing arms have another attention and cannot take these weights."
)


def _answer(results: FixesResults) -> str:
    words = ", ".join(f"{contrast.arm}: {contrast.word}" for contrast in results.contrasts)
    level = f"Networks are compared at a discordant accuracy of {results.level:.1%} of the whole system"
    if results.level < results.level_asked:
        level += f" (the {results.level_asked:.0%} asked for is not reached by all; this is the common range)"
    return (
        f"{words}. Gate: {results.gate} ({results.plain_classed_search:.0%} of the plain networks are classed SEARCH). "
        f"{level}, on {results.discordant_states} states. Words follow the zoo that ships, and nothing else."
    )


def _arms(results: FixesResults) -> Html:
    rows = [
        [
            arm.arm,
            ARMS[arm.arm].words,
            str(arm.networks),
            _shown(arm.system, ".1%"),
            _shown(arm.single_pass, ".1%"),
            _shown(arm.score, ".2f"),
            _shown(arm.log10_lr, ".2f"),
            _shown(arm.e7, ".2f"),
        ]
        for arm in results.arms
    ]
    head = ["arm", "what it is", "networks", "whole system", "single pass", "score S", "log10 LR", "E7"]
    return table("Arms at matched accuracy, mean over seeds (95 %)", head, rows, words=(0, 1), min_width=900)


def _contrasts(results: FixesResults) -> Html:
    def row(contrast: Contrast) -> list[str]:
        p = _UNKNOWN if contrast.p is None or contrast.p_holm is None else f"{contrast.p:.3f} ({contrast.p_holm:.3f})"
        return [contrast.arm, _shown(contrast.difference, ".2f"), p, contrast.word, contrast.why]

    caption = "Score S of single forward passes against the plain arm, seeds paired"
    head = ["arm", "difference (95 %)", "exact p (Holm)", "word", "why"]
    return table(caption, head, map(row, results.contrasts), words=(0, 3, 4), min_width=700)


def _cells(results: FixesResults) -> Html:
    def row(cell: dict[str, Any]) -> list[str]:
        numbers = [_number(cell[name], form) for name, form in (("score", ".2f"), ("log10_lr", ".2f"), ("e7", ".2f"))]
        e7 = _UNKNOWN if cell["e7_low"] is None else f"{numbers[2]} ({cell['e7_low']:.2f} to {cell['e7_high']:.2f})"
        shares = [f"{cell[name]:.1%}" for name in ("system", "single_pass", "gap")]
        return [cell["arm"], str(cell["seed"]), str(cell["step"]), *shares, *numbers[:2], e7, cell["label"]]

    head = ["arm", "seed", "step", "whole system", "single pass", "gap, single pass", "S", "log10 LR", "E7", "label"]
    return table("Networks", head, map(row, results.cells), words=(0, 9), min_width=900)


def _retention(results: FixesResults) -> Html:
    def row(course: dict[str, Any]) -> list[str]:
        return [course["searcher"], course["arm"], str(course["seed"]), _number(course["retained"], ".1%")]

    head = ["searcher", "arm", "seed", "retained"]
    return table("Area under E7 over steps, against its first value", head, map(row, results.retained), words=(0, 1))


def _accuracy_figure(results: FixesResults) -> go.Figure:
    axis = {"title": {"text": "discordant accuracy"}, "tickformat": ".0%", "range": [0, 1.03]}
    figure = new_figure(height=340, xaxis={"title": {"text": "steps"}}, yaxis=axis)
    for position, arm in enumerate(results.arms):
        courses = [points for name, points in results.courses.items() if name.split("-seed")[0] == arm.arm]
        steps = [point.step for point in courses[0]]
        means = [sum(points[i].system for points in courses) / len(courses) for i in range(len(steps))]
        _add(figure, steps, means, arm.arm, position)
    figure.add_hline(y=results.level, line={"dash": "dot", "width": 1})
    return figure


def _retention_figure(results: FixesResults) -> go.Figure:
    figure = new_figure(height=340, xaxis={"title": {"text": "further steps"}}, yaxis={"title": {"text": "E7"}})
    groups = {(row["searcher"], row["arm"], row["seed"]) for row in results.retention}
    for position, (searcher, arm, seed) in enumerate(sorted(groups)):
        rows = [r for r in results.retention if (r["searcher"], r["arm"], r["seed"]) == (searcher, arm, seed)]
        _add(figure, [r["step"] for r in rows], [r["e7"] for r in rows], f"{searcher}, {arm}", position)
    return figure


def _add(figure: go.Figure, x: list[Any], y: list[Any], name: str, position: int) -> None:
    style = method_style("", position)
    line = {"color": style.colour, "dash": style.dash, "width": 2}
    figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line=line, marker={"symbol": style.symbol, "size": 6})


def _shown(mean: Mean, form: str) -> str:
    if mean.value is None:
        return _UNKNOWN
    if mean.low is None or mean.high is None:
        return f"{mean.value:{form}}"
    return f"{mean.value:{form}} ({mean.low:{form}} to {mean.high:{form}})"


def _number(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else f"{value:{form}}"
