"""What every line shows first: its value with its interval, and each of its nulls on the same axis."""

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from mesaprobe.report.markup import Html, join, paragraph
from mesaprobe.report.plots import NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.wording import NOT_KNOWN, known, number, number_interval, sentence

_SUBJECT = "this network"


def line_summary(line: str) -> Callable[[dict[str, Any]], Html]:
    """The writer of a line's summary from report.json: a sentence, and a figure where there is a value."""

    def numbers(report: dict[str, Any]) -> Html:
        found = [entry for entry in report["lines"] if entry["id"] == line]
        if not found:
            return paragraph(f"Line {line} was not measured in this analysis.", class_="absent")
        (entry,) = found
        if not known(entry["value"]):
            return paragraph(sentence(entry["reason"] or "there is no value"), class_="absent")
        words = f"{entry['name']}: {number(entry['value'])}, 95% interval {number_interval(entry['ci'])}, "
        why = [paragraph(sentence(entry["reason"]))] if entry["reason"] else []
        figure = embed(
            f"summary-{line}",
            summary_figure(entry),
            caption=f"Line {line}: the value of this network with its 95% interval, and what the same statistic gives "
            "where there is nothing to find.",
            alt=f"Value of line {line} beside its nulls",
            max_width=760,
        )
        return join([paragraph(sentence(f"{words}p = {number(entry['p'])}")), *why, figure])

    return numbers


def summary_with(line: str, more: Callable[[dict[str, Any]], Html]) -> Callable[[dict[str, Any]], Html]:
    """`line_summary`, and behind it what `more` writes from the line's details, where there is a value."""

    def numbers(report: dict[str, Any]) -> Html:
        shown = line_summary(line)(report)
        found = [entry for entry in report["lines"] if entry["id"] == line and known(entry["value"])]
        return join([shown, *(more(entry["details"]) for entry in found)])

    return numbers


def figure_with_interval(estimate: dict[str, Any] | None) -> str:
    """A stored value with its interval in words."""
    if estimate is None or not known(estimate["value"]):
        return NOT_KNOWN
    return f"{number(estimate['value'])} ({number_interval(estimate['ci'])})"


def summary_figure(entry: dict[str, Any]) -> go.Figure:
    """The value at the top with its interval, the nulls below it as open grey marks."""
    style = method_style("model")
    nulls = [(name.replace("_", " "), value) for name, value in (entry["null"] or {}).items() if known(value)]
    rows = [label(name) for name, _ in reversed(nulls)] + [_SUBJECT]
    figure = new_figure(
        height=24 * len(rows) + 96,
        showlegend=False,
        margin={"l": 8, "r": 16, "t": 8, "b": 40},
        xaxis={"title": {"text": "value"}, "zeroline": True},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": rows, "showgrid": False},
    )
    if nulls:
        figure.add_scatter(
            x=[value for _, value in nulls],
            y=[label(name) for name, _ in nulls],
            mode="markers",
            marker={"color": NULL_COLOUR, "symbol": "circle-open", "size": 9, "line": {"width": 2}},
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        )
    low, high = entry["ci"] or (entry["value"], entry["value"])
    figure.add_scatter(
        x=[entry["value"]],
        y=[_SUBJECT],
        mode="markers",
        marker={"color": style.colour, "symbol": style.symbol, "size": 11},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - entry["value"]],
            "arrayminus": [entry["value"] - low],
            "color": style.colour,
        },
        hovertemplate="%{x:.4g}<extra></extra>",
    )
    return figure
