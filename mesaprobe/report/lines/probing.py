"""What probes read of values and plans: site by site beside their nulls, and every target's net score (E5, E6)."""

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64, Int64

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html, details, element, join, paragraph, table
from mesaprobe.report.plots import HIGHLIGHT, NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.wording import number, percent, percent_interval

_VIEWS = {
    "decode": "decode token (of the current city)",
    "city": "instance token of the candidate",
    "hidden": "hidden units of the MLPs, at the decode token",
    "pair": "pairs of instance tokens",
}
_KINDS = {"resid_pre": "pre", "post": "hidden", "resid_post": "post"}
_MODEL = method_style("model")
_KEY = (
    "Direct form, for orientation: it also rewards activations for what the baseline failed to learn. Places in a "
    "layer: pre = what enters it, post = what leaves it. Small grey dots are single twins, the dotted line is their "
    "mean; crosses are the same target for the longest tour."
)


def probing_section(arrays: dict[str, np.ndarray]) -> Html:
    """Every target's net score, then the line's own target site by site, one figure a view, and the numbers."""
    views = list(dict.fromkeys(arrays["roles"].tolist()))
    information = [
        embed(
            f"information-{'-'.join(views)}-{view}",
            information_figure(arrays, view),
            caption=f"Information at the {_VIEWS.get(view, view)}, with 95% intervals.",
            alt=f"Conditional usable information by site at the {_VIEWS.get(view, view)}, with its nulls",
            min_width=340,
        )
        for view in views
    ]
    targets = embed(
        f"targets-{'-'.join(views)}",
        targets_figure(arrays),
        caption="Net score of every target with its 95% interval, at the site chosen on other instances; 0 is the "
        "strongest null. The first one is the line's value.",
        alt="Net score of every target",
        max_width=760,
    )
    return join(
        [
            targets,
            element("h3", "The line's target, site by site"),
            paragraph(_KEY),
            element("div", *information, class_="grid"),
            details("The numbers of these figures", join([_targets(arrays), _sites(arrays)])),
        ]
    )


def targets_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Net scores of all targets, the line's own at the top."""
    names = [label(name) for name in arrays["target_names"].tolist()]
    net, low, high = (arrays[f"target_{key}"] for key in ("net", "low", "high"))
    figure = new_figure(
        height=28 * len(names) + 96,
        showlegend=False,
        margin={"l": 8, "r": 16, "t": 8, "b": 40},
        xaxis={"title": {"text": "information beyond the strongest null"}, "zeroline": True, "tickformat": "~%"},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": names[::-1], "showgrid": False},
    )
    figure.add_scatter(
        x=net,
        y=names,
        mode="markers",
        marker={"color": _MODEL.colour, "symbol": _MODEL.symbol, "size": 10},
        error_x={"type": "data", "symmetric": False, "array": high - net, "arrayminus": net - low},
        customdata=arrays["target_p"],
        hovertemplate="%{y}: %{x:.2%}, p = %{customdata:.3g}<extra></extra>",
    )
    return figure


def _targets(arrays: dict[str, np.ndarray]) -> Html:
    rows = [
        (
            str(arrays["target_names"][i]),
            percent(float(arrays["target_net"][i])),
            percent_interval((float(arrays["target_low"][i]), float(arrays["target_high"][i]))),
            percent(float(arrays["target_information"][i])),
            percent(float(arrays["target_strongest_null"][i])),
            number(float(arrays["target_p"][i])),
        )
        for i in range(len(arrays["target_names"]))
    ]
    head = ("target", "net score", "95% interval", "information", "strongest null", "p")
    return table("Targets; p against all nulls at once", head, rows, words=(0,))


def _sites(arrays: dict[str, np.ndarray]) -> Html:
    head = ("site", "token", "information", "95% interval", "twins", "longest tour")
    rows = [
        (
            str(arrays["hooks"][site]),
            str(arrays["roles"][site]),
            percent(float(arrays["information"][site])),
            percent_interval((float(arrays["information_low"][site]), float(arrays["information_high"][site]))),
            percent(float(np.mean(arrays["twin_information"][:, site]))),
            percent(float(arrays["swap_information"][site])),
        )
        for site in range(len(arrays["hooks"]))
    ]
    return table("The line's target by site; twins are means over random initialisations", head, rows, words=(0, 1))


def information_figure(arrays: dict[str, np.ndarray], role: str) -> go.Figure:
    """Conditional usable information by site for one role, with its interval, nulls and the zero line."""
    sites = _sites_in_order(arrays, role)
    figure = _over_sites(arrays, sites, "information beyond the baseline")
    figure.add_hline(y=0, line={"color": NULL_COLOUR, "width": 1})
    _add_nulls(figure, arrays["twin_information"][:, sites], arrays["swap_information"][sites])
    low, value, high = (arrays[key][sites] for key in ("information_low", "information", "information_high"))
    _add_model(figure, arrays, sites, value, {"array": high - value, "arrayminus": value - low})
    _mark_selected(figure, arrays, sites, value)
    return figure


def _sites_in_order(arrays: dict[str, np.ndarray], role: str) -> Int64[np.ndarray, " site"]:
    """The sites of a role from the input to the output of the network."""
    kinds = list(_KINDS)
    ranks = [kinds.index(kind) if kind in kinds else -1 for kind in arrays["kinds"].tolist()]
    own = np.flatnonzero(arrays["roles"] == role)
    return own[np.lexsort((np.array(ranks)[own], arrays["layers"][own]))]


def _over_sites(arrays: dict[str, np.ndarray], sites: np.ndarray, title: str) -> go.Figure:
    """Sites along x; the range of y is the same for every role, so that roles can be compared."""
    kinds = [_KINDS.get(kind, kind) for kind in arrays["kinds"][sites].tolist()]
    names = [f"{layer} {label(kind)}" for layer, kind in zip(arrays["layers"][sites].tolist(), kinds, strict=True)]
    names_of_ends = ("information", "information_low", "information_high", "twin_information", "swap_information")
    ends = np.concatenate([arrays[key].ravel() for key in names_of_ends])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = 0.06 * max(high - low, 1e-6)
    return new_figure(
        height=400,
        xaxis={
            "title": {"text": "layer and place in it"},
            "tickvals": list(range(len(sites))),
            "ticktext": names,
            "range": [-0.6, len(sites) - 0.4],
            "tickangle": -90,
        },
        yaxis={"title": {"text": title}, "tickformat": "~%", "range": [min(low, 0.0) - room, high + room]},
    )


def _add_nulls(figure: go.Figure, twins: Float64[np.ndarray, "seed site"], swap: Float64[np.ndarray, " site"]) -> None:
    seeds, sites = twins.shape
    grey = {"color": NULL_COLOUR}
    figure.add_scatter(
        x=np.arange(sites),
        y=twins.mean(axis=0),
        name="random-init twins",
        mode="lines",
        line={**grey, "width": 1.5, "dash": "dot"},
        hovertemplate="%{y:.2%}<extra>twins, mean</extra>",
        legendgroup="twins",
    )
    figure.add_scatter(
        x=np.tile(np.arange(sites), seeds),
        y=twins.ravel(),
        mode="markers",
        marker={**grey, "size": 5, "opacity": 0.7},
        hovertemplate="%{y:.2%}<extra>one twin</extra>",
        legendgroup="twins",
        showlegend=False,
    )
    figure.add_scatter(
        x=np.arange(sites),
        y=swap,
        name="longest tour",
        mode="markers",
        marker={**grey, "symbol": "x-thin", "size": 8, "line": {**grey, "width": 2}},
        hovertemplate="%{y:.2%}<extra>longest tour</extra>",
    )


def _add_model(
    figure: go.Figure,
    arrays: dict[str, np.ndarray],
    sites: np.ndarray,
    value: Float64[np.ndarray, " site"],
    errors: dict[str, np.ndarray],
) -> None:
    """Every site of the model as a point, joined by a line."""
    figure.add_scatter(
        x=np.arange(len(sites)),
        y=value,
        mode="lines",
        line={"color": _MODEL.colour, "width": 2},
        hoverinfo="skip",
        legendgroup="model",
        showlegend=False,
    )
    figure.add_scatter(
        x=np.arange(len(sites)),
        y=value,
        name="model",
        mode="markers",
        marker={"color": _MODEL.colour, "size": 9, "symbol": _MODEL.symbol},
        error_y={**errors, "thickness": 1.5, "width": 3},
        customdata=[label(hook) for hook in arrays["hooks"][sites].tolist()],
        hovertemplate="%{customdata}: %{y:.2%}<extra>model</extra>",
        legendgroup="model",
    )


def _mark_selected(
    figure: go.Figure, arrays: dict[str, np.ndarray], sites: np.ndarray, value: Float64[np.ndarray, " site"]
) -> None:
    place = np.flatnonzero(sites == int(arrays["selected"]))
    if len(place):
        figure.add_scatter(
            x=place,
            y=value[place],
            name="selected site",
            mode="markers",
            marker={"symbol": "circle-open", "size": 20, "color": HIGHLIGHT, "line": {"width": 3}},
            hoverinfo="skip",
        )


_ARRAYS = (
    *("hooks", "roles", "layers", "kinds", "selected", "information", "information_low", "information_high"),
    *("twin_information", "swap_information", "target_names", "target_net", "target_low", "target_high"),
    *("target_information", "target_strongest_null", "target_p"),
)

VALUES = Section(
    "values",
    "Values and bounds inside the network",
    "Whether the activations tell what a candidate next city costs in the end (its regret), beyond distances and "
    "rules, beyond the model's own output, and beyond every null: random-init twins, an arbitrary target, the same "
    "target for the longest tour, the raw input. Beside it the optimum, bounds, and what a branch-and-bound search "
    "would go through.",
    "That a value can be read does not show that it is used; lines that intervene must show that. Linear probes miss "
    "what is coded otherwise, and a network can know values without having searched for them.",
    line_summary("E5"),
    Figures("E5", _ARRAYS, probing_section, line="E5"),
)

PLANS = Section(
    "plans",
    "Plans inside the network: the rejected completion and the chosen one",
    "Whether the activations tell which edges the model would take if it were made to go to its second choice, edges "
    "that its own tour does not use; beyond what rules would build after either choice, the model's output and every "
    "null. The chosen completion stands beside it.",
    "A readable plan need not be used, and the chosen plan alone is no evidence of search: a network that imitates a "
    "tour-building rule holds it, too. A network that compares all tours at once may keep no trace of those that lost.",
    line_summary("E6"),
    Figures("E6", _ARRAYS, probing_section, line="E6"),
)
