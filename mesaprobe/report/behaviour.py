"""How good the tours are: headline numbers, references, the distribution of gaps, accuracy by look-ahead need."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64

from mesaprobe.report.markup import Html, details, element, join, table
from mesaprobe.report.plots import embed, label, method_style, new_figure
from mesaprobe.report.wording import (
    NOT_KNOWN,
    known,
    method_name,
    number,
    percent,
    percent_interval,
)

SMALLEST_GAP = 1e-3
"""Left edge of the gap axis; gaps at or below it, zero among them, are what the curve starts with."""


def behaviour_numbers(report: dict[str, Any]) -> Html:
    """The headline numbers and the table of the model beside its references."""
    behaviour = report["behaviour"]
    interval = behaviour["gap_ci"]
    tiles = (
        ("mean gap to the optimum", percent(behaviour["gap_mean"]), f"95% interval {percent_interval(interval)}"),
        ("optimal tours", percent(behaviour["optimal_fraction"]), f"of {number(behaviour['instances'])} instances"),
        ("legal without the mask", percent(behaviour["legal_fraction"]), "rollouts that never repeat a city"),
        (
            "optimal decisions",
            percent(behaviour["decision_accuracy"]),
            f"of {number(behaviour['decision_states'])} states",
        ),
        (
            "optimal where every rule is wrong",
            percent(behaviour["discordant_accuracy"]),
            f"of {number(behaviour['discordant_states'])} discordant states",
        ),
    )
    tours = {"model": behaviour, **behaviour["references"]}
    rows = [
        (method_name(name), percent(each["gap_mean"]), percent(each["optimal_fraction"]))
        for name, each in tours.items()
    ]
    return join(
        [
            element("div", *(_tile(*tile) for tile in tiles), class_="tiles"),
            table(
                "The model and its references, same instances",
                ("method", "mean gap", "optimal tours"),
                rows,
            ),
        ]
    )


def _tile(name: str, value: str, note: str) -> Html:
    return element(
        "div",
        element("span", name, class_="name"),
        element("span", value, class_="value unknown" if value == NOT_KNOWN else "value"),
        element("span", note, class_="note"),
        class_="tile",
    )


def gaps_section(arrays: dict[str, np.ndarray]) -> Html:
    """The distribution of gaps."""
    return embed(
        "gaps",
        gaps_figure(arrays),
        caption=(
            "Share of instances whose tour is at most so far above the optimum; higher and further left is better. "
            "The axis is logarithmic, so each curve starts at its share of tours within "
            f"{percent(SMALLEST_GAP)}, the optimal ones among them."
        ),
        alt="Cumulative distribution of the optimality gap for "
        + ", ".join(map(method_name, arrays["methods"].tolist())),
    )


def gaps_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Empirical distribution functions of the gap, one a method."""
    figure = new_figure(
        xaxis={"type": "log", "title": {"text": "gap to the optimum"}, "tickformat": "~%"},
        yaxis={"title": {"text": "share of instances"}, "tickformat": ".0%", "range": [0, 1.02]},
    )
    end = float(np.max(arrays["gaps"]))
    for position, (method, gaps) in enumerate(zip(arrays["methods"].tolist(), arrays["gaps"], strict=True)):
        style = method_style(method, position)
        x, y = distribution(gaps, end)
        figure.add_scatter(
            x=x,
            y=y,
            name=label(method_name(method)),
            mode="lines",
            line={"color": style.colour, "dash": style.dash, "width": 2.5, "shape": "hv"},
            hovertemplate="%{y:.1%} of tours within %{x:.2%}<extra>%{fullData.name}</extra>",
        )
    return figure


def distribution(
    gaps: Float64[np.ndarray, " instance"], end: float
) -> tuple[Float64[np.ndarray, " point"], Float64[np.ndarray, " point"]]:
    """The steps (gap, share of instances within it) of the empirical distribution, from `SMALLEST_GAP` to `end`."""
    values, counts = np.unique(np.maximum(gaps, SMALLEST_GAP), return_counts=True)
    shares = np.cumsum(counts) / len(gaps)
    if values[0] > SMALLEST_GAP:
        values, shares = np.insert(values, 0, SMALLEST_GAP), np.insert(shares, 0, 0.0)
    return np.append(values, max(end, values[-1])), np.append(shares, 1.0)


def dstar_numbers(report: dict[str, Any]) -> Html:
    """The model's accuracy by d* as the report stores it."""
    bins = report["behaviour"]["accuracy_by_dstar"]
    rows = [(f"d* = {name}", percent(cell["accuracy"]), number(cell["states"])) for name, cell in bins.items()]
    return table("The model's decisions by look-ahead need", ("look-ahead need", "optimal decisions", "states"), rows)


def dstar_section(arrays: dict[str, np.ndarray]) -> Html:
    """Accuracy by look-ahead need, the references beside the model."""
    methods = arrays["methods"].tolist()
    rows = [
        (
            f"d* = {name}",
            number(int(arrays["states"][column])),
            *(_accuracy(arrays, row, column) for row in range(len(methods))),
        )
        for column, name in enumerate(arrays["bins"].tolist())
    ]
    head = ("look-ahead need", "states", *map(method_name, methods))
    return join(
        [
            embed(
                "dstar",
                dstar_figure(arrays),
                caption="Share of decisions that are optimal, with 95% intervals; under each bin its number of states. "
                "The nearest neighbour is right at d* = 0 and, but for ties, wrong elsewhere by definition.",
                alt="Accuracy of decisions by look-ahead need for " + ", ".join(map(method_name, methods)),
            ),
            details("The numbers of this figure", table("Accuracy by look-ahead need, 95% intervals", head, rows)),
        ]
    )


def _accuracy(arrays: dict[str, np.ndarray], row: int, column: int) -> str:
    value, low, high = (float(arrays[key][row, column]) for key in ("accuracy", "low", "high"))
    if not known(value):
        return NOT_KNOWN
    return f"{percent(value)} ({percent_interval((low, high))})"


def dstar_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """One point with its interval per method and bin of d*; bins without states stay empty."""
    bins = [
        f"{label(name)}<br>{count:,}"
        for name, count in zip(arrays["bins"].tolist(), arrays["states"].tolist(), strict=True)
    ]
    figure = new_figure(
        scattermode="group",
        scattergap=0.55,
        xaxis={
            "title": {"text": "look-ahead need d*, number of states"},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": bins,
            "range": [-0.5, len(bins) - 0.5],
        },
        yaxis={"title": {"text": "optimal decisions"}, "tickformat": ".0%", "range": [-0.03, 1.03]},
    )
    for row, method in enumerate(arrays["methods"].tolist()):
        style = method_style(method, row)
        value = arrays["accuracy"][row]
        figure.add_scatter(
            x=bins,
            y=value,
            name=label(method_name(method)),
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 11},
            error_y={
                "array": arrays["high"][row] - value,
                "arrayminus": value - arrays["low"][row],
                "thickness": 1.5,
                "width": 4,
            },
            offsetgroup=str(row),
            hovertemplate="d* = %{x}: %{y:.1%}<extra>%{fullData.name}</extra>",
        )
    return figure
