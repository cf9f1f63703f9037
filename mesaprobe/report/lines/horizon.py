"""Accuracy over look-ahead need, beside the network's local imitator."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import figure_with_interval, line_summary, summary_with
from mesaprobe.report.markup import Html, join, paragraph, table
from mesaprobe.report.plots import NULL_COLOUR, embed, method_style, new_figure
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.wording import number, percent


def horizon_numbers(details: dict[str, Any]) -> Html:
    """The same on instances drawn otherwise, the slopes, and the same state by another road."""
    drawn = [("as trained", details["unmatched"]), *details["drawn_otherwise"].items()]
    rows = [
        (
            name,
            figure_with_interval(entry),
            percent(entry.get("accuracy")),
            percent(entry.get("imitator_accuracy")),
            number(entry.get("ratio")) if name != "as trained" else "1",
        )
        for name, entry in drawn
    ]
    head = ("instances", "value (95% interval)", "network right", "imitator right", "ratio")
    slopes = details["slopes"]
    words = [
        paragraph(
            f"Slope of the log odds of being right, with margin and step beside it: "
            f"{figure_with_interval(slopes['d*'])} per step of d*, {figure_with_interval(slopes['log2 nodes'])} per "
            f"doubling of the branch-and-bound tree. Other numbers of cities: {details['other_n']}."
        )
    ]
    same = details["same_state_by_another_road"]
    if same is not None:
        words.append(
            paragraph(
                f"Context: reached by another road, the same state is answered with the same city in "
                f"{percent(same['same_city'])} of {same['states']} cases (divergence {number(same['divergence'])} "
                f"nats; between instances {number(same['divergence_between_instances'])})."
            )
        )
    return join([table("Deep decisions (d* of 2 and more) of instances drawn otherwise", head, rows), *words])


def horizon_section(arrays: dict[str, np.ndarray]) -> Html:
    """The two curves."""
    return embed(
        "horizon-curve",
        horizon_figure(arrays),
        caption="Share of right decisions by look-ahead need d*, margins matched, with 95% intervals over instances: "
        "the network, and boosted trees that imitate it from local features.",
        alt="Accuracy over look-ahead need of the network and of its local imitator",
        max_width=760,
    )


def horizon_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """acc(k) and acc_g(k) over k."""
    figure = new_figure(
        height=360,
        xaxis={"title": {"text": "look-ahead need d*"}, "type": "category"},
        yaxis={"title": {"text": "right decisions"}, "tickformat": "~%", "range": [-0.03, 1.05]},
    )
    style = method_style("model")
    for prefix, name, colour, dash, symbol in (
        ("own", "network", style.colour, style.dash, style.symbol),
        ("local", "its local imitator", NULL_COLOUR, "dash", "square-open"),
    ):
        value, low, high = (arrays[f"{prefix}_{end}"] for end in ("value", "low", "high"))
        figure.add_scatter(
            x=arrays["needs"].tolist(),
            y=value,
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash},
            marker={"color": colour, "symbol": symbol, "size": 9},
            error_y={"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low},
            hovertemplate="d* = %{x}: %{y:.1%}<extra>" + name + "</extra>",
        )
    return figure


HORIZON = Section(
    "horizon",
    "Look-ahead horizon",
    "Whether the network stays right where a decision needs looking further ahead, and by how much more than boosted "
    "trees that imitate it from local features. The value averages d* of 2 and more.",
    "What is computed, not how: a learned map from states to values scores high, too. A searcher over few tours is "
    "wrong about the optimum as often as a rule and scores low; the next section asks it about its own tours.",
    summary_with("E2", horizon_numbers),
    Figures(
        "E2",
        ("needs", *(f"{arm}_{end}" for arm in ("own", "local") for end in ("value", "low", "high"))),
        horizon_section,
        line="E2",
    ),
)
OWN_HORIZON = Section(
    "own-horizon",
    "Look-ahead by the network's own tours",
    "How often the network names the city from which its own later choices make the cheapest tour, where that is not "
    "the nearest city, and by how much more often than its local imitator. The optimum plays no part.",
    "A network that is right for any other reason agrees with its own completions as well. What it shows is that "
    "choices fit consequences, not that these were looked at.",
    line_summary("E2b"),
)
