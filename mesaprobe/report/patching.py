"""Where the changed entry travels: resample patching by layer and location, with its placebos."""

import re

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64

from mesaprobe.report.drawing import canvas, city_trace, layout_note, segments, to_unit_square
from mesaprobe.report.markup import Html, element, join, paragraph
from mesaprobe.report.plots import DIVERGING, HIGHLIGHT, NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.wording import number, percent

_PLACEBOS = (
    ("identity", "the clean run's own activation: must be 0% everywhere"),
    ("irrelevant", "activations of an unrelated instance"),
    ("random", "a random direction of the same length as the true difference"),
)
_STREAM = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


def patching_section(arrays: dict[str, np.ndarray]) -> Html:
    """The pair in words and drawn, the map of effects, and the placebos on the same scale."""
    limit = colour_limit(arrays)
    main = embed(
        "patching",
        effects_figure(arrays, arrays["effects"], limit, values=True),
        caption="Effect of putting one location's residual stream from the changed instance into the clean run: 0% "
        "leaves the choice as it is on the clean instance, 100% switches it fully to the choice of the changed one.",
        alt="Heat map of patching effects, layers by locations",
        min_width=52 * len(arrays["locations"]) + 140,
    )
    placebos = [
        embed(
            f"patching-{name}",
            effects_figure(arrays, arrays[name], limit, values=False),
            caption=f"{name.capitalize()}: {words}. Largest effect {percent(float(np.abs(arrays[name]).max()))}.",
            alt=f"Heat map of the {name} placebo on the colour scale of the effects",
            min_width=260,
        )
        for name, words in _PLACEBOS
    ]
    pair = embed(
        "patching-pair",
        pair_figure(arrays),
        caption=f"The clean instance. {layout_note(str(arrays['layout_kind']))}",
        alt="The pair of instances: prefix, changed entry and both choices",
    )
    words = element("div", *(paragraph(line) for line in pair_words(arrays)))
    return join(
        [
            element("div", pair, words, class_="pair"),
            element("h3", "Effects"),
            main,
            element("h3", "Placebos, on the same colour scale"),
            element("div", *placebos, class_="grid three"),
        ]
    )


def pair_words(arrays: dict[str, np.ndarray]) -> list[str]:
    """The pair in sentences: what was changed, and what the model chooses on each side."""
    clean, corrupt = int(arrays["clean_choice"]), int(arrays["corrupt_choice"])
    prefix = " → ".join(map(str, arrays["prefix"].tolist()))
    return [
        f"The two instances differ in one thing: {_change(arrays)}.",
        f"After the prefix {prefix} the model goes to city {clean} on the clean instance and to city {corrupt} on the "
        "changed (corrupt) one.",
        f"The logit of city {corrupt} minus that of city {clean} is {number(float(arrays['clean_difference']))} on the "
        f"clean and {number(float(arrays['corrupt_difference']))} on the changed instance; effects are shares of the "
        "way between the two.",
    ]


def _change(arrays: dict[str, np.ndarray]) -> str:
    """The change in words: one weight, or a city that moved (then both ends are the same city)."""
    u, v = arrays["changed"].tolist()
    if u == v:
        return f"city {u} stands elsewhere on the changed instance, which changes all weights of its row"
    before, after = int(arrays["clean_weights"][u, v]), int(arrays["corrupt_weights"][u, v])
    reach = (
        "It is a weight of the current city, so a rule that looks one step ahead can react to it"
        if int(arrays["prefix"][-1]) in (u, v)
        else "It is no weight of the current city, so a rule that compares only the next steps cannot react to it"
    )
    return (
        f"the weight between cities {u} and {v} is {before} on the clean instance and {after} on the changed one. It "
        f"stands in the tokens of both cities, so both are also patched together. {reach}"
    )


def colour_limit(arrays: dict[str, np.ndarray]) -> float:
    """The symmetric end of the colour scale that all four maps share: at least 1."""
    return max(1.0, *(float(np.abs(arrays[key]).max()) for key in ("effects", *(name for name, _ in _PLACEBOS))))


def effects_figure(
    arrays: dict[str, np.ndarray], effects: Float64[np.ndarray, "layer location"], limit: float, *, values: bool
) -> go.Figure:
    """One heat map; the embedding is at the bottom, as a network is drawn. `values` writes the numbers into it."""
    layers = [label(_layer_words(name)) for name in arrays["layer_names"].tolist()]
    figure = new_figure(
        height=(34 if values else 16) * len(layers) + 170,
        margin={"l": 8, "r": 8, "b": 8},
        xaxis={
            "tickangle": -90,
            "showgrid": False,
            "type": "category",
            "dtick": 1,
            "tickfont": {"size": 13 if values else 10},
        },
        yaxis={"showgrid": False, "type": "category", "dtick": 1, "tickfont": {"size": 13 if values else 10}},
    )
    figure.add_heatmap(
        z=effects,
        x=[label(name) for name in arrays["locations"].tolist()],
        y=layers,
        colorscale=DIVERGING,
        zmin=-limit,
        zmax=limit,
        showscale=values,
        colorbar={"thickness": 12, "outlinewidth": 0, "tickformat": ".0%", "nticks": 5},
        xgap=1,
        ygap=1,
        texttemplate="%{z:.0%}" if values else None,
        hovertemplate="%{y}, %{x}: %{z:.1%}<extra></extra>",
    )
    return figure


def _layer_words(hook: str) -> str:
    stream = _STREAM.fullmatch(hook)
    return hook if stream is None else f"{'into' if stream[2] == 'pre' else 'out of'} layer {stream[1]}"


def pair_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """The prefix, the changed entry (or moved city) and the two choices on the clean instance."""
    figure = canvas(height=400)
    points = to_unit_square(arrays["layout"])
    u, v = arrays["changed"].tolist()
    prefix, current = arrays["prefix"], int(arrays["prefix"][-1])
    before, after = arrays["clean_weights"][u, v], arrays["corrupt_weights"][u, v]
    clean, corrupt = int(arrays["clean_choice"]), int(arrays["corrupt_choice"])
    lines = [
        (f"changed weight: {before} → {after}", [[u, v]], HIGHLIGHT, 14, "solid"),
        ("prefix", np.stack([prefix[:-1], prefix[1:]], axis=1), NULL_COLOUR, 4, "solid"),
        (f"clean choice: {clean}", [[current, clean]], method_style("model").colour, 4, "solid"),
        (f"changed choice: {corrupt}", [[current, corrupt]], method_style("nearest_neighbour").colour, 4, "dash"),
    ]
    for name, edges, colour, width, dash in lines if u != v else lines[1:]:
        path = segments(points, np.asarray(edges, dtype=np.int64).reshape(-1, 2))
        line = {"color": colour, "width": width, "dash": dash}
        figure.add_scatter(
            x=path[:, 0],
            y=path[:, 1],
            mode="lines",
            line=line,
            name=name,
            hoverinfo="skip",
            opacity=0.45 if width > 4 else 1,
        )
    cities = city_trace(points, [f"city {city}" for city in range(len(points))])
    cities.marker.line.color = [HIGHLIGHT if city in (u, v) else "#4b5563" for city in range(len(points))]
    figure.add_trace(cities)
    figure.update_layout(showlegend=True, margin={"b": 70})
    return figure
