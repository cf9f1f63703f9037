"""How far the answer hangs on the tokens of cities needed later, layer by layer, and the heads that read them."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import figure_with_interval, summary_with
from mesaprobe.report.markup import Html, join, paragraph, table
from mesaprobe.report.plots import HIGHLIGHT, NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.wording import number, sentence

_STYLES = ("solid", "dash", "dot")
_NAMES = {
    "entry": "changed entry of the plan against its match (the line's value)",
    "next cities": "next cities of the plan, changed entry included",
    "next cities, changed entry's tokens left out": "next cities of the plan, without the changed entry's tokens",
}


def future_cities_section(arrays: dict[str, np.ndarray]) -> Html:
    """The ratio at every layer for each contrast."""
    return embed(
        "future-cities",
        future_cities_figure(arrays),
        caption="Patches at instance tokens, at the stream that enters each layer: 1 if only the plan's tokens move "
        "the answer, -1 if only the matched ones do, 0 if both do alike or neither does. The ringed layer was chosen "
        "on other pairs.",
        alt="Effect of patching planned against matched tokens, by layer",
        max_width=760,
    )


def future_cities_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Ratios with their intervals over layers."""
    figure = new_figure(
        height=400,
        xaxis={"title": {"text": "layer that the patched stream enters"}, "dtick": 1},
        yaxis={"title": {"text": "planned against matched"}, "range": [-1.08, 1.08]},
    )
    figure.add_hline(y=0, line={"color": NULL_COLOUR, "width": 1})
    model, layers = method_style("model"), arrays["layers"]
    for index, contrast in enumerate(arrays["contrasts"].tolist()):
        value, low, high = (arrays[key][index] for key in ("ratio", "ratio_low", "ratio_high"))
        colour = model.colour if index == 0 else NULL_COLOUR
        name = label(_NAMES.get(contrast, contrast))
        figure.add_scatter(
            x=layers + 0.06 * (index - 1),
            y=value,
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": _STYLES[index % len(_STYLES)]},
            marker={"color": colour, "symbol": model.symbol, "size": 9 if index == 0 else 7},
            error_y={"array": high - value, "arrayminus": value - low, "thickness": 1.5, "width": 3},
            hovertemplate="layer %{x:.0f}: %{y:.3f}<extra>" + name + "</extra>",
        )
    at = int(arrays["selected"][0])
    figure.add_scatter(
        x=[layers[at] - 0.06],
        y=[arrays["ratio"][0][at]],
        name="chosen layer",
        mode="markers",
        marker={"symbol": "circle-open", "size": 20, "color": HIGHLIGHT, "line": {"width": 3}},
        hoverinfo="skip",
    )
    return figure


def head_numbers(details: dict[str, Any]) -> Html:
    """The heads through which the changed entry's tokens reach the answer; nothing for analyses made before these."""
    if not (heads := details.get("heads")):
        why = details.get("no_heads")
        return paragraph(sentence(f"No heads were patched: {why}"), class_="absent") if why else join([])
    head = ("head", "chosen", "guessed", "patched whole", "by path", "placebo path")
    rows = [
        (
            f"layer {entry['layer']}, head {entry['head']}",
            "by the screen" if entry["screened"] else "at random",
            number(entry["guessed"]["value"]),
            *(figure_with_interval(entry[kind]) for kind in ("whole", "path", "placebo")),
        )
        for entry in heads
    ]
    words = paragraph(
        "What single heads bring to the token that answers, beside the line and no part of it: how far the answer "
        "moves from the network's choice to its rival, in units of their logit difference. Guessed is a screen by "
        "gradients. Patched whole, the head's output is the relevant twin's. By path, only what the head reads of the "
        "changed entry's tokens is; the placebo path starts at the matched entry's tokens."
    )
    return join([words, table("Heads from the entry's tokens to the answer", head, rows, words=(0, 1), min_width=640)])


FUTURE_CITIES = Section(
    "future-cities",
    "Information flow from cities needed later",
    "Whether the next choice hangs on the tokens of cities that the network's own plan needs only at later steps, more "
    "than on matched cities that were edited as much. A rule that reads no far weight gives exactly 0.",
    "The changed entry belongs to the plan because it was chosen so; without its own tokens the contrast is usually "
    "near 0, since tokens of cities are read as they enter. That far weights matter does not show how they are used.",
    summary_with("E9", head_numbers),
    Figures(
        "E9",
        ("layers", "contrasts", "ratio", "ratio_low", "ratio_high", "moved", "selected"),
        future_cities_section,
        line="E9",
    ),
)
