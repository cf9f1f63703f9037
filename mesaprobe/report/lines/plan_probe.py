"""What probes read about the plan, site by site, beside their nulls."""

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64, Int64

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html, details, element, join, paragraph, table
from mesaprobe.report.plots import HIGHLIGHT, NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.wording import number, percent, percent_interval

_ROLES = {
    "decode": "decode token (of the current city)",
    "city": "instance token of the city that the model names next",
}
_KINDS = {"resid_pre": "pre", "attn_out": "attn", "mlp_out": "mlp", "resid_post": "post"}
_SYMBOLS = {"attn_out": "diamond-open", "mlp_out": "square-open"}
_MODEL = method_style("model")
_KEY = (
    "Places in a layer: pre = what enters it, attn and mlp (open marks) = what these write, post = what leaves it. The "
    "line follows the residual stream. Small grey dots are single twins, the dotted line is their mean."
)


def plan_probe_section(arrays: dict[str, np.ndarray]) -> Html:
    """Two views of the same probes, one figure per role of token in each, and the numbers."""
    roles = list(dict.fromkeys(arrays["roles"].tolist()))
    words = {role: _ROLES.get(role, role) for role in roles}
    information = [
        embed(
            f"information-{index}",
            information_figure(arrays, role),
            caption=f"Information at the {words[role]}, with 95% intervals.",
            alt=f"Conditional usable information by site at the {words[role]}, with its nulls",
            min_width=340,
        )
        for index, role in enumerate(roles)
    ]
    accuracy = [
        embed(
            f"accuracy-{index}",
            accuracy_figure(arrays, role),
            caption=f"Accuracy of a probe on the activations alone, at the {words[role]}.",
            alt=f"Probe accuracy by site at the {words[role]}, with its nulls and the baseline",
            min_width=340,
        )
        for index, role in enumerate(roles)
    ]
    return join(
        [
            _selected_words(arrays),
            element("h3", "Information beyond the baseline"),
            paragraph(_KEY),
            element("div", *information, class_="grid"),
            element("h3", "Accuracy, for orientation"),
            element("div", *accuracy, class_="grid"),
            details("The numbers of these figures", _numbers(arrays)),
        ]
    )


def _selected_words(arrays: dict[str, np.ndarray]) -> Html:
    site = int(arrays["selected"])
    role = str(arrays["roles"][site])
    low, high = float(arrays["information_low"][site]), float(arrays["information_high"][site])
    twins = float(arrays["twin_information"][:, site].mean())
    return paragraph(
        "Selected on other instances: ",
        element("code", str(arrays["hooks"][site])),
        f" at the {_ROLES.get(role, role)}. There the probe finds {percent(float(arrays['information'][site]))} "
        f"({percent_interval((low, high))}) beyond the baseline, in random-init twins {percent(twins)} on average, "
        f"with labels shuffled across instances {percent(float(arrays['shuffled_information'][site]))}. The baseline "
        f"(input features and the model's own output) is right on {percent(float(arrays['baseline_accuracy']))} of the "
        f"states and leaves {number(float(arrays['baseline_entropy']))} nats open; information is the share of these "
        "that a probe removes.",
    )


def _numbers(arrays: dict[str, np.ndarray]) -> Html:
    head = (
        *("site", "token", "information", "95% interval", "twins", "shuffled labels"),
        *("accuracy", "twins", "shuffled labels"),
    )
    rows = [
        (
            str(arrays["hooks"][site]),
            str(arrays["roles"][site]),
            percent(float(arrays["information"][site])),
            percent_interval((float(arrays["information_low"][site]), float(arrays["information_high"][site]))),
            percent(float(arrays["twin_information"][:, site].mean())),
            percent(float(arrays["shuffled_information"][site])),
            percent(float(arrays["accuracy"][site])),
            percent(float(arrays["twin_accuracy"][:, site].mean())),
            percent(float(arrays["shuffled_accuracy"][site])),
        )
        for site in range(len(arrays["hooks"]))
    ]
    return table("Plan probes by site; twins are means over random initialisations", head, rows, words=(0, 1))


def information_figure(arrays: dict[str, np.ndarray], role: str) -> go.Figure:
    """Conditional usable information by site for one role, with its interval, nulls and the zero line."""
    sites = _sites_in_order(arrays, role)
    figure = _over_sites(arrays, sites, "information beyond the baseline", "information")
    figure.add_hline(y=0, line={"color": NULL_COLOUR, "width": 1})
    _add_nulls(figure, arrays["twin_information"][:, sites], arrays["shuffled_information"][sites])
    low, value, high = (arrays[key][sites] for key in ("information_low", "information", "information_high"))
    _add_model(figure, arrays, sites, value, {"array": high - value, "arrayminus": value - low})
    _mark_selected(figure, arrays, sites, value)
    return figure


def accuracy_figure(arrays: dict[str, np.ndarray], role: str) -> go.Figure:
    """Accuracy of the probe on activations alone for one role, with its nulls and the baseline."""
    sites = _sites_in_order(arrays, role)
    figure = _over_sites(arrays, sites, "probe accuracy", "accuracy")
    figure.add_scatter(
        x=[-0.5, len(sites) - 0.5],
        y=[float(arrays["baseline_accuracy"])] * 2,
        name="baseline",
        mode="lines",
        line={"color": NULL_COLOUR, "width": 2, "dash": "dash"},
        hovertemplate="%{y:.2%}<extra>baseline</extra>",
    )
    _add_nulls(figure, arrays["twin_accuracy"][:, sites], arrays["shuffled_accuracy"][sites])
    value = arrays["accuracy"][sites]
    _add_model(figure, arrays, sites, value, None)
    _mark_selected(figure, arrays, sites, value)
    return figure


def _sites_in_order(arrays: dict[str, np.ndarray], role: str) -> Int64[np.ndarray, " site"]:
    """The sites of a role from the input to the output of the network."""
    kinds = list(_KINDS)
    ranks = [kinds.index(kind) if kind in kinds else -1 for kind in arrays["kinds"].tolist()]
    own = np.flatnonzero(arrays["roles"] == role)
    return own[np.lexsort((np.array(ranks)[own], arrays["layers"][own]))]


def _over_sites(arrays: dict[str, np.ndarray], sites: np.ndarray, title: str, measure: str) -> go.Figure:
    """Sites along x; the range of y is the same for every role, so that roles can be compared."""
    kinds = [_KINDS.get(kind, kind) for kind in arrays["kinds"][sites].tolist()]
    names = [f"{layer} {label(kind)}" for layer, kind in zip(arrays["layers"][sites].tolist(), kinds, strict=True)]
    ends = [arrays[key] for key in arrays if key.endswith(measure) or key.startswith(f"{measure}_")]
    low, high = min(np.nanmin(part) for part in ends), max(np.nanmax(part) for part in ends)
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


def _add_nulls(
    figure: go.Figure, twins: Float64[np.ndarray, "seed site"], shuffled: Float64[np.ndarray, " site"]
) -> None:
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
        y=shuffled,
        name="shuffled labels",
        mode="markers",
        marker={**grey, "symbol": "x-thin", "size": 8, "line": {**grey, "width": 2}},
        hovertemplate="%{y:.2%}<extra>shuffled labels</extra>",
    )


def _add_model(
    figure: go.Figure,
    arrays: dict[str, np.ndarray],
    sites: np.ndarray,
    value: Float64[np.ndarray, " site"],
    errors: dict[str, np.ndarray] | None,
) -> None:
    """Every site of the model as a point; the residual stream is also joined by a line."""
    kinds = arrays["kinds"][sites].tolist()
    stream = [i for i, kind in enumerate(kinds) if kind not in _SYMBOLS]
    figure.add_scatter(
        x=stream,
        y=value[stream],
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
        marker={"color": _MODEL.colour, "size": 9, "symbol": [_SYMBOLS.get(kind, _MODEL.symbol) for kind in kinds]},
        error_y=None if errors is None else {**errors, "thickness": 1.5, "width": 3},
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


PLAN_PROBE = Section(
    "plan-probe",
    "Plan probe: the edge two steps ahead",
    "Whether the activations tell, beyond the input features and the model's own output, which edge its tour takes "
    "two steps later. Read it against the nulls: random-init twins of the same shape, and labels shuffled across "
    "instances.",
    "That a plan can be read does not show that it is used, nor that alternatives were compared: a network that "
    "imitates a tour-building rule holds plans too. Accuracy alone is no evidence, since everything can be read "
    "from the input.",
    line_summary("E6"),
    Figures(
        "E6",
        (
            *("hooks", "roles", "layers", "kinds", "selected", "baseline_accuracy", "baseline_entropy"),
            *("information", "information_low", "information_high", "twin_information", "shuffled_information"),
            *("accuracy", "twin_accuracy", "shuffled_accuracy"),
        ),
        plan_probe_section,
        line="E6",
    ),
)
