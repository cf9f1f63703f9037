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
    """Three curves over the number of instances seen."""
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
