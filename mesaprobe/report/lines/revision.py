"""The plan that a linear probe decodes after each layer, and what it costs (E10a)."""

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html, details, join, table
from mesaprobe.report.plots import embed, method_style, new_figure
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.wording import number, percent


def revision_section(arrays: dict[str, np.ndarray]) -> Html:
    """Mean cost by layer, and the shares of plans that each layer made better and worse."""
    figure = embed(
        "revision-costs",
        costs_figure(arrays),
        caption="Mean cost of the tour that is decoded after each layer.",
        alt="Cost of the decoded plan by layer",
        max_width=760,
    )
    better, worse = [None, *arrays["better"].tolist()], [None, *arrays["worse"].tolist()]
    rows = [
        (hook, number(cost), "" if up is None else percent(up), "" if down is None else percent(down))
        for hook, cost, up, down in zip(arrays["hooks"].tolist(), arrays["costs"].tolist(), better, worse, strict=True)
    ]
    head = ("after", "mean cost", "plans made better", "plans made worse")
    return join([figure, details("The numbers", table("Decoded plans by layer", head, rows, words=(0,)))])


def costs_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """One point a layer."""
    style = method_style("model")
    names = [f"layer {hook.split('.')[1]}" for hook in arrays["hooks"].tolist()]
    figure = new_figure(
        height=320, showlegend=False, xaxis={"type": "category"}, yaxis={"title": {"text": "cost of the decoded tour"}}
    )
    figure.add_scatter(
        x=names,
        y=arrays["costs"],
        mode="lines+markers",
        line={"color": style.colour, "width": 2},
        marker={"color": style.colour, "symbol": style.symbol, "size": 9},
        hovertemplate="%{x}: %{y:.1f}<extra></extra>",
    )
    return figure


REVISION = Section(
    "revision",
    "Revision: the decoded plan from layer to layer",
    "Whether a whole tour that is decoded after a layer is replaced by a cheaper one after the next, more often than "
    "by a dearer one, and more than with probe noise, random rewiring, a walking rule's step and random-init twins.",
    "Any residual network sharpens its answer with depth. Falling costs are what revising a plan would give, never "
    "proof of it; a plan that is whole after the first layer is not seen to be revised.",
    line_summary("E10a"),
    Figures("E10a", ("hooks", "costs", "better", "worse"), revision_section, line="E10a"),
)
