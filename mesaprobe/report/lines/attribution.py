"""Which far edges move the network's choice: those of the chosen, of the rejected, of neither completion."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import figure_with_interval, summary_with
from mesaprobe.report.markup import Html, details, element, join, paragraph, table
from mesaprobe.report.plots import HIGHLIGHT, NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.wording import number, number_interval

_SIDES = {
    "chosen": "edges of the chosen completion against edges of neither",
    "rejected": "edges of the rejected completion against edges of neither",
    "contrast": "chosen against rejected",
}
_MARKS = ("circle", "diamond", "square", "triangle-up")


def consistency_words(found: dict[str, Any]) -> Html:
    """Value consistency, in a sentence."""
    optimal, own = (found["value_consistency"][name] for name in ("optimal", "own"))
    return paragraph(
        f"Value consistency (rank correlation of logit gaps with value gaps over rejected candidates, given what rules "
        f"know): {figure_with_interval(optimal)} for exact values, {figure_with_interval(own)} for the cost of the "
        "network's own completions."
    )


def attribution_section(arrays: dict[str, np.ndarray]) -> Html:
    """The three contrasts, the effects themselves, and the numbers."""
    contrasts = embed(
        "attribution-contrasts",
        contrasts_figure(arrays),
        caption="2 AUC - 1 of far edges by the effect of their weight, with 95% intervals over instances. Grey bars: "
        "95% of what completions of other states give.",
        alt="Contrasts of far edges on the chosen and the rejected completion",
        min_width=340,
    )
    effects = embed(
        "attribution-effects",
        effects_figure(arrays),
        caption="Change of the gap between first and second choice, in logits for one level of a far edge's weight. "
        "Options that are valued by their completions fall with edges of the chosen one and rise with the rejected "
        "one's.",
        alt="Effects of far edges by the completion on which they lie",
        min_width=340,
    )
    rows = [
        (
            measure,
            side,
            number(float(arrays["values"][i, j])),
            number_interval((float(arrays["lows"][i, j]), float(arrays["highs"][i, j]))),
        )
        for i, measure in enumerate(arrays["measures"].tolist())
        for j, side in enumerate(arrays["sides"].tolist())
    ]
    numbers = table("Contrasts of far edges", ("measure", "side", "2 AUC - 1", "95% interval"), rows, words=(0, 1))
    return join([element("div", contrasts, effects, class_="grid"), details("The contrasts in numbers", numbers)])


def contrasts_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """A row per side, a mark per measure, the chance range behind them."""
    sides = arrays["sides"].tolist()
    rows = [label(_SIDES.get(side, side)) for side in sides]
    figure = new_figure(
        height=340,
        xaxis={"title": {"text": "2 AUC - 1"}, "range": [-1.08, 1.08], "zeroline": True},
        yaxis={"tickvals": list(range(len(sides)))[::-1], "ticktext": rows, "range": [-0.6, len(sides) - 0.4]},
    )
    places = np.arange(len(sides))[::-1].astype(float)
    figure.add_scatter(
        x=np.stack([arrays["chance_low"], arrays["chance_high"], np.full(len(sides), np.nan)], 1).ravel(),
        y=np.stack([places, places, places], 1).ravel(),
        name="completions of other states",
        mode="lines",
        line={"color": NULL_COLOUR, "width": 12},
        opacity=0.45,
        hoverinfo="skip",
    )
    for i, measure in enumerate(arrays["measures"].tolist()):
        value = arrays["values"][i]
        figure.add_scatter(
            x=value,
            y=places + 0.24 - 0.16 * i,
            name=label(measure),
            mode="markers",
            marker={
                "symbol": _MARKS[i % len(_MARKS)] + ("" if i == 0 else "-open"),
                "size": 10 if i == 0 else 8,
                "color": method_style("model").colour if i % 2 == 0 else HIGHLIGHT,
            },
            error_x={
                "type": "data",
                "symmetric": False,
                "array": arrays["highs"][i] - value,
                "arrayminus": value - arrays["lows"][i],
            },
            hovertemplate="%{x:.3f}<extra>" + label(measure) + "</extra>",
        )
    return figure


def effects_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Boxes of the finite differences by side."""
    figure = new_figure(
        height=340, showlegend=False, yaxis={"title": {"text": "effect on the gap, logits a level"}, "zeroline": True}
    )
    for side, colour in (
        ("chosen", method_style("model").colour),
        ("rejected", HIGHLIGHT),
        ("neither", NULL_COLOUR),
    ):
        figure.add_box(
            y=arrays[f"effects_{side}"], name=side, marker={"color": colour, "size": 3}, boxpoints="outliers"
        )
    return figure


ATTRIBUTION = Section(
    "attribution",
    "Completion attribution",
    "Whether weights far from both options move the choice between them because they lie on one option's completion. "
    "The value is the rejected side: a network that builds one whole tour holds the chosen completion honestly, but "
    "only a comparison needs the other one. Rules that look one step ahead give exactly 0.",
    "It is a property of the input-output map: a learned map of values passes, too. At a very sharp choice, rejected "
    "completions leave no trace in the output, and a certain searcher then scores low. Edges that touch an option are "
    "left out, so a look-ahead of two steps is not seen.",
    summary_with("E4", consistency_words),
    Figures(
        "E4",
        (
            *("sides", "measures", "values", "lows", "highs", "chance_low", "chance_high"),
            *("effects_chosen", "effects_rejected", "effects_neither"),
        ),
        attribution_section,
        line="E4",
    ),
)
