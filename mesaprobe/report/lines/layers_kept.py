"""Accuracy over the layers kept, on hard and on easy decisions."""

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html
from mesaprobe.report.plots import embed, method_style, new_figure
from mesaprobe.report.section import Figures, Section


def layers_kept_section(arrays: dict[str, np.ndarray]) -> Html:
    """The two curves."""
    return embed(
        "layers-kept",
        layers_kept_figure(arrays),
        caption=f"Right answers read from the stream after each layer: {int(arrays['hard_states'])} decisions that "
        f"every rule gets wrong, and {int(arrays['easy_states'])} where the nearest city is optimal.",
        alt="Accuracy over layers kept on hard and easy decisions",
        max_width=760,
    )


def layers_kept_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Accuracy over layers."""
    figure = new_figure(
        height=340,
        xaxis={"title": {"text": "layers kept"}, "dtick": 1},
        yaxis={"title": {"text": "right decisions"}, "tickformat": "~%", "range": [-0.03, 1.05]},
    )
    for key, name, style in (
        ("hard", "every rule wrong", method_style("model")),
        ("easy", "nearest city optimal", method_style("nearest_neighbour")),
    ):
        figure.add_scatter(
            x=arrays["kept"],
            y=arrays[key],
            name=name,
            mode="lines+markers",
            line={"color": style.colour, "dash": style.dash},
            marker={"color": style.colour, "symbol": style.symbol, "size": 9},
            hovertemplate="%{x} layers: %{y:.1%}<extra>" + name + "</extra>",
        )
    return figure


LAYERS_KEPT = Section(
    "layers-kept",
    "Accuracy over layers kept",
    "Whether more layers help on decisions that every rule gets wrong more than on easy ones, read through the "
    "network's own last norm and unembedding after each layer.",
    "Every residual network sharpens its answer with depth, and gains from more compute are no proof of search. It is "
    "one of three parts of E10.",
    line_summary("E10c"),
    Figures("E10c", ("kept", "hard", "easy", "hard_states", "easy_states"), layers_kept_section, line="E10c"),
)
