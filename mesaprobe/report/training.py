"""The course of training: loss, gap, and the shares of optimal and legal tours."""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64

from mesaprobe.report.markup import Html, element
from mesaprobe.report.plots import embed, method_style, new_figure

_HEIGHT = 310
_SHARES = (
    ("optimal_fraction", "optimal tours", "model"),
    ("legal_fraction", "legal without mask", "nearest_neighbour"),
    ("teacher_agreement", "agrees with teacher", "greedy_edge"),
)
"""Column, words, and the method whose colour and dash the curve borrows (there are no methods in this figure)."""


def training_section(arrays: dict[str, np.ndarray]) -> Html:
    """Three curves over the number of instances seen; with a curriculum its shares, and what outer compute buys."""
    figures = []
    if "hardness_0" in arrays:
        words = "Share of each level of hardness in the batches, 0 the easiest."
        figures.append(embed("hardness", hardness_figure(arrays), caption=words, alt=words))
    if "outer_gap" in arrays:
        words = "Mean gap against the number of tours whose cost was asked for, with 95 % intervals."
        figures.append(embed("outer-compute", outer_figure(arrays), caption=words, alt=words))
    return element("div", _curves(arrays), *figures)


def _curves(arrays: dict[str, np.ndarray]) -> Html:
    return element(
        "div",
        embed(
            "loss",
            loss_figure(arrays),
            caption="Training loss: cross-entropy in nats.",
            alt="Training loss against instances seen",
        ),
        embed(
            "gap-curve",
            gap_figure(arrays),
            caption="Mean gap to the optimum on held-out instances.",
            alt="Held-out optimality gap against instances seen",
        ),
        embed(
            "shares",
            shares_figure(arrays),
            caption="Shares on held-out instances.",
            alt="Share of optimal tours, of legal rollouts and of agreement with the teacher against instances seen",
        ),
        class_="grid three",
    )


def loss_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Loss of the training stream."""
    figure = _over_instances("loss (nats)", value_axis(arrays["loss"], "~g"))
    _add_curve(figure, arrays, "loss", "loss", "model")
    figure.update_traces(hovertemplate="%{x:,} instances: %{y:.3f}<extra></extra>")
    return figure


def gap_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Mean held-out gap."""
    figure = _over_instances("mean gap", value_axis(arrays["gap_mean"], "~%"))
    _add_curve(figure, arrays, "gap_mean", "mean gap", "model")
    figure.update_traces(hovertemplate="%{x:,} instances: %{y:.2%}<extra></extra>")
    return figure


def hardness_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Levels stacked to 1, the easiest at the bottom."""
    figure = _over_instances("share of batches", {"tickformat": ".0%", "range": [0, 1]})
    levels = sorted(key for key in arrays if key.startswith("hardness_"))
    for position, key in enumerate(levels):
        figure.add_scatter(
            x=arrays["instances_seen"],
            y=arrays[key],
            name=f"level {key.removeprefix('hardness_')}",
            mode="lines",
            stackgroup="levels",
            line={"width": 0.5, "color": method_style("", position).colour},
            hovertemplate="%{x:,} instances: %{y:.1%}<extra>%{fullData.name}</extra>",
        )
    return figure


def outer_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """One curve for each method and each way to keep a tour."""
    figure = new_figure(
        height=_HEIGHT + 90,
        xaxis={"title": {"text": "tours evaluated"}, "type": "log"},
        yaxis={"title": {"text": "mean gap"}, **value_axis(arrays["outer_gap"], "~%")},
    )
    curves = dict.fromkeys(zip(arrays["outer_method"].tolist(), arrays["outer_kept"].tolist(), strict=True))
    for position, (method, kept) in enumerate(curves):
        inside = (arrays["outer_method"] == method) & (arrays["outer_kept"] == kept)
        gap, style = arrays["outer_gap"][inside], method_style("", position)
        figure.add_scatter(
            x=arrays["outer_evaluated_tours"][inside],
            y=gap,
            error_y={"array": arrays["outer_high"][inside] - gap, "arrayminus": gap - arrays["outer_low"][inside]},
            name=f"{method.replace('_', ' ')}, {kept}",
            mode="lines+markers",
            line={"color": style.colour, "dash": style.dash, "width": 1.5},
            marker={"size": 5, "symbol": style.symbol},
        )
    return figure


def value_axis(values: Float64[np.ndarray, " row"], tickformat: str) -> dict[str, Any]:
    """A logarithmic axis with ticks at 1, 2, 5 times powers of ten where positive values span a factor of five or
    more; else a linear one."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low <= 0 or high < 5 * low:
        return {"tickformat": tickformat}
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high < 1000 * low else (1,)
    return {"type": "log", "tickformat": tickformat, "tickvals": [step * 10.0**k for k in decades for step in steps]}


def shares_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Optimal tours, legal rollouts and agreement with the teacher, from 0 to 1."""
    figure = _over_instances("share", {"tickformat": ".0%", "range": [0, 1.03]})
    figure.update_layout(height=_HEIGHT + 55)  # room for the legend
    for column, words, like in _SHARES:
        _add_curve(figure, arrays, column, words, like)
    figure.update_traces(hovertemplate="%{x:,} instances: %{y:.2%}<extra>%{fullData.name}</extra>")
    return figure


def _over_instances(title: str, axis: dict[str, Any]) -> go.Figure:
    return new_figure(
        height=_HEIGHT,
        xaxis={"title": {"text": "instances seen"}, "rangemode": "tozero", "nticks": 6},
        yaxis={"title": {"text": title}, **axis},
    )


def _add_curve(figure: go.Figure, arrays: dict[str, np.ndarray], column: str, name: str, like: str) -> None:
    """One column where it was measured: evaluations are rarer than rows, and their gaps are bridged."""
    measured = ~np.isnan(arrays[column])
    style = method_style(like)
    figure.add_scatter(
        x=arrays["instances_seen"][measured],
        y=arrays[column][measured],
        name=name,
        mode="lines+markers" if measured.sum() < 40 else "lines",
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"size": 5, "symbol": style.symbol},
    )
