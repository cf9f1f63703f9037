"""The lines that intervene on plan and value: invisible changes, interchange, units, edited plans, scrubbing."""

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html
from mesaprobe.report.plots import HIGHLIGHT, NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.section import Figures, Section

_MODEL = method_style("model")


def invisible_changes_section(arrays: dict[str, np.ndarray]) -> Html:
    """How often the network switches, by the size of the change."""
    return embed(
        "invisible-changes",
        switches_figure(arrays),
        caption="Share of pairs on which the network switches: to the new optimum where the change moves it, anywhere "
        "where it does not, by thirds of the size of the change.",
        alt="Switches on relevant and irrelevant twins by the size of the edit",
        max_width=760,
    )


def switches_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Both rates over thirds of the edit size."""
    sizes = arrays["sizes"]
    edges = np.quantile(sizes, [1 / 3, 2 / 3])
    third = np.searchsorted(edges, sizes, side="left")
    groups = [k for k in range(3) if (third == k).any()]
    names = [f"{sizes[third == k].min():.0f} to {sizes[third == k].max():.0f}" for k in groups]
    figure = new_figure(
        height=320,
        xaxis={"title": {"text": "change of the entries, in weight units"}, "type": "category"},
        yaxis={"title": {"text": "switches"}, "tickformat": "~%", "range": [-0.03, 1.03]},
    )
    for key, name, colour, symbol in (
        ("followed", "to the new optimum (relevant)", _MODEL.colour, _MODEL.symbol),
        ("stray", "anywhere (irrelevant)", NULL_COLOUR, "circle-open"),
    ):
        figure.add_scatter(
            x=names,
            y=[float(arrays[key][third == k].mean()) for k in groups],
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"symbol": symbol, "size": 10},
        )
    return figure


def interchange_section(arrays: dict[str, np.ndarray]) -> Html:
    """Accuracy of the interchange beside every baseline."""
    return embed(
        "interchange-accuracy",
        accuracy_figure(arrays),
        caption="Share of test pairs on which the exchange of the learned subspace makes the network choose what the "
        "high-level model predicts. Grey: the same procedure where there is nothing to find.",
        alt="Interchange accuracy of the search and of its baselines",
        max_width=760,
    )


def accuracy_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """One bar per high-level model or baseline."""
    names = [label(name) for name in arrays["names"].tolist()]
    return _bars(names, arrays["accuracy"].tolist(), "interchange accuracy", own=1)


def unit_tours_section(arrays: dict[str, np.ndarray]) -> Html:
    """Every unit by what drives it and what is lost without it."""
    return embed(
        "unit-tours",
        units_figure(arrays),
        caption="Hidden units: how well minus their coefficients on the edges fit one tour (grey line: coefficients on "
        "edges at random), and the share of the chosen city's lead that is lost: without the unit, on that tour and on "
        "others; and on that tour with its later edges, or as many others, lengthened in the input.",
        alt="Hidden units by their overlap with a tour and their effect on it",
        max_width=760,
    )


def units_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Overlap along x, lead lost along y."""
    figure = new_figure(
        height=360,
        xaxis={"title": {"text": "overlap with the best-fitting tour"}, "range": [-0.03, 1.05]},
        yaxis={"title": {"text": "lead lost"}, "tickformat": "~%", "range": [-1.05, 1.05]},
    )
    figure.add_vline(x=float(arrays["null"].mean()), line={"color": NULL_COLOUR, "width": 1, "dash": "dash"})
    for key, name, colour, symbol in (
        ("own", "without the unit, its tour the optimum", _MODEL.colour, _MODEL.symbol),
        ("others", "without the unit, another tour the optimum", NULL_COLOUR, "circle-open"),
        ("later", "its tour's later edges longer", _MODEL.colour, "diamond-open"),
        ("beside", "as many other edges longer", NULL_COLOUR, "x"),
    ):
        figure.add_scatter(
            x=arrays["overlap"], y=arrays[key], name=name, mode="markers", marker={"color": colour, "symbol": symbol}
        )
    return figure


def plan_editing_section(arrays: dict[str, np.ndarray]) -> Html:
    """The choice against the dose of the edit."""
    return embed(
        "plan-editing",
        doses_figure(arrays),
        caption="Log odds of the city that the edit makes optimal against the one chosen without it, by the dose of "
        "the steering; 1 is the change that the edge itself would make along its directions.",
        alt="Log odds of the new optimum by the dose of the edit",
        max_width=760,
    )


def doses_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Mean log odds over doses of both signs."""
    figure = new_figure(
        height=320,
        xaxis={"title": {"text": "dose"}, "zeroline": True},
        yaxis={"title": {"text": "log odds of the new optimum, nats"}, "zeroline": True},
        showlegend=False,
    )
    figure.add_scatter(
        x=arrays["doses"],
        y=arrays["log_odds"],
        mode="lines+markers",
        line={"color": _MODEL.colour, "width": 2},
        marker={"symbol": _MODEL.symbol, "size": 10},
    )
    return figure


def scrubbing_section(arrays: dict[str, np.ndarray]) -> Html:
    """What each hypothesis recovers."""
    return embed(
        "causal-scrubbing",
        recovered_figure(arrays),
        caption="Share of the network's choices that survive when all that a hypothesis calls irrelevant comes from "
        "other instances, on the scale from chance to all, with 95% intervals.",
        alt="Recovered share under the search and under the heuristic hypothesis",
        max_width=760,
    )


def recovered_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Two bars with their intervals."""
    figure = _bars(["search", "heuristic"], arrays["recovered"].tolist(), "recovered share", own=1)
    figure.data[0].error_x = {
        "type": "data",
        "symmetric": False,
        "array": (arrays["high"] - arrays["recovered"])[::-1],
        "arrayminus": (arrays["recovered"] - arrays["low"])[::-1],
    }
    return figure


def _bars(names: list[str], values: list[float], title: str, own: int) -> go.Figure:
    """Horizontal bars from the top down; the first `own` are the network's, the others grey."""
    figure = new_figure(
        height=36 * len(names) + 90,
        showlegend=False,
        xaxis={"title": {"text": title}, "tickformat": "~%", "range": [min(0.0, *values) - 0.02, 1.05]},
        yaxis={"type": "category"},
    )
    figure.add_bar(
        x=values[::-1],
        y=names[::-1],
        orientation="h",
        marker={"color": [NULL_COLOUR] * (len(names) - own) + [HIGHLIGHT if own == 0 else _MODEL.colour] * own},
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    return figure


INVISIBLE_CHANGES = Section(
    "invisible-changes",
    "Changes that no heuristic notices",
    "Whether the network follows a change of far entries that makes another next city optimal, while every rule of "
    "HEUR-v1 answers as before; less how often it moves after an equal change that leaves the optimum.",
    "It shows what is computed, not how: a network that maps instances to good choices without any search follows such "
    "changes, too. A look-ahead of few steps does not see so far and scores 0.",
    line_summary("E3"),
    Figures("E3", ("followed", "stray", "sizes"), invisible_changes_section, line="E3"),
)
INTERCHANGE = Section(
    "interchange",
    "Interchange: value and plan",
    "Whether a low-dimensional part of the stream carries what decides: exchanged with another instance it makes the "
    "network choose what the search then chooses; and whether the edge of a plan, edited there, moves the options "
    "whose completion uses it and no others.",
    "A search that holds no compact value before its output (one unit per tour, or sums in the last step) is missed by "
    "the first part. That a subspace works does not show that the network has no other way to its answer.",
    line_summary("E7"),
    Figures("E7", ("accuracy", "names"), interchange_section, line="E7"),
)
UNIT_TOURS = Section(
    "unit-tours",
    "Hidden units that stand for one tour",
    "Whether what drives single hidden units is the length of one tour, whether that tour alone is no longer chosen "
    "without them, and whether lengthening it in the input does the same: the sign of a parallel enumerator.",
    "Searches that do not hold whole tours in single units score 0. Intervals are over units, not instances.",
    line_summary("E7c"),
    Figures("E7c", ("overlap", "null", "own", "others", "later", "beside"), unit_tours_section, line="E7c"),
)
PLAN_EDITING = Section(
    "plan-editing",
    "An edited plan",
    "Whether the rest of the tour follows as a whole when, inside the network, one edge is made to look shorter or "
    "longer.",
    "An edit early in the network is close to an edit of its input, and then says what the behaviour already says.",
    line_summary("E7d"),
    Figures("E7d", ("doses", "log_odds"), plan_editing_section, line="E7d"),
)
CAUSAL_SCRUBBING = Section(
    "causal-scrubbing",
    "Causal scrubbing",
    "How many of the network's choices survive if everything that the search, or the heuristic, calls irrelevant is "
    "taken from other instances; on states where the two disagree.",
    "It tests which variable decides, at one site, not the steps by which it came about.",
    line_summary("E7e"),
    Figures("E7e", ("recovered", "low", "high"), scrubbing_section, line="E7e"),
)
