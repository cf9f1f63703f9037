"""The network's probability of whole tours over their cost."""

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html
from mesaprobe.report.plots import embed, method_style, new_figure
from mesaprobe.report.section import Figures, Section


def tour_distribution_section(arrays: dict[str, np.ndarray]) -> Html:
    """One instance as an example."""
    return embed(
        "tour-distribution",
        tour_distribution_figure(arrays),
        caption="One instance: the log-probability of whole tours over their cost above the cheapest shown.",
        alt="Log-probability of tours over their cost for one instance",
        max_width=760,
    )


def tour_distribution_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """A point a tour."""
    figure = new_figure(
        height=360,
        showlegend=False,
        xaxis={"title": {"text": "cost above the cheapest tour shown"}},
        yaxis={"title": {"text": "log-probability, nats"}},
    )
    figure.add_scatter(
        x=arrays["costs"] - float(arrays["optimum"]),
        y=arrays["log_p"],
        mode="markers",
        marker={"color": method_style("model").colour, "size": 5, "opacity": 0.6},
        hovertemplate="cost +%{x}: %{y:.1f} nats<extra></extra>",
    )
    return figure


TOUR_DISTRIBUTION = Section(
    "tour-distribution",
    "Distribution over whole tours",
    "Whether the network's probability of a whole tour follows its cost, beyond what rules say of the tour: rank "
    "fidelity, and the temperature that it implies. Context, not part of the score.",
    "Good values of single steps add up to a distribution over tours as well. Most tours are far from the optimum, and "
    "the network hardly ever meets them.",
    line_summary("E1b"),
    Figures("E1b", ("log_p", "costs", "optimum"), tour_distribution_section, line="E1b"),
)
