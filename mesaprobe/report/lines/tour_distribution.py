"""The network's probability of whole tours over their cost."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import figure_with_interval, summary_with
from mesaprobe.report.markup import Html, paragraph
from mesaprobe.report.plots import embed, method_style, new_figure
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.wording import NOT_KNOWN, known, number


def temperature_words(found: dict[str, Any]) -> Html:
    """Slope and implied temperature, in a sentence."""
    slope = figure_with_interval(found["nats_per_unit_of_cost"])
    share = found["implied_temperature_of_mean_tour"]
    warmth = (
        f"a temperature of {number(found['implied_temperature'])} units ({number(share)} of a mean tour)"
        if known(share)
        else f"no temperature, since the slope is not clearly negative ({NOT_KNOWN})"
    )
    return paragraph(
        f"Beyond the rules, a unit of cost changes the log-probability of a tour by {slope} nats: {warmth}. Over "
        f"{number(found['tours_per_instance'])} tours of {number(found['instances'])} instances; before the rules the "
        f"rank correlation is {number(found['rank_correlation_before_rules'])}."
    )


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
    summary_with("E1b", temperature_words),
    Figures("E1b", ("log_p", "costs", "optimum"), tour_distribution_section, line="E1b"),
)
