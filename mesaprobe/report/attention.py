"""Where the heads look: on the drawing of an instance, as a map, and all of them at a glance."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mesaprobe.report.controls import controls, menu
from mesaprobe.report.drawing import canvas, city_trace, layout_note, to_unit_square, wedges
from mesaprobe.report.markup import Html, element, join, paragraph
from mesaprobe.report.plots import HIGHLIGHT, NULL_COLOUR, SEQUENTIAL, TEMPLATE, embed, label, method_style, new_figure
from mesaprobe.report.wording import percent

_WIDEST = 0.13
"""Width of a wedge at attention 1, in units of the drawing."""

_APART = 0.012
"""Half the distance between wedges to the two tokens of one city."""

_MOST_PANELS = 16
"""Heads of a layer up to which all maps are shown at a glance."""

_PANEL = 150
"""Height and least width of one small map, in pixels."""

_SOURCES = (
    ("instance", "instance token", method_style("model").colour),
    ("tour", "tour token", method_style("nearest_neighbour").colour),
)


def attention_section(arrays: dict[str, np.ndarray]) -> Html:
    """Controls for layer and head, the drawing and the map of that head, then all maps."""
    layers, heads = arrays["patterns"].shape[:2]
    tour = arrays["tour"].tolist()
    choose = controls(
        "Show",
        menu("layer", "Layer", [(str(i), str(i)) for i in range(layers)]),
        menu("head", "Head", [(str(i), str(i)) for i in range(heads)]),
        *(_wedge_key(name, colour) for _, name, colour in _SOURCES),
    )
    shares = join(_head_words(arrays, layer, head) for layer in range(layers) for head in range(heads))
    drawing = embed(
        "attention-drawing",
        drawing_figure(arrays),
        caption=f"The tour so far is {' → '.join(map(str, tour))} (dotted); the last decode token stands for city "
        f"{tour[-1]}. The wider a wedge is at its far end, the more attention goes there. "
        + layout_note(str(arrays["layout_kind"])),
        alt="Attention of the last decode token to each city, drawn on the instance",
    )
    one = embed(
        "attention-head",
        head_figure(arrays),
        caption="The whole map of this head: each row says where one token (query) looks. The colour scale is not "
        "linear: it spends most colours on small weights.",
        alt="Attention map of the chosen head with token labels",
    )
    parts = [choose, shares, element("div", drawing, one, class_="grid"), element("h3", "All heads")]
    return join([*parts, _all_heads(arrays, layers, heads)])


def _all_heads(arrays: dict[str, np.ndarray], layers: int, heads: int) -> Html:
    if heads > _MOST_PANELS:
        words = f"The {layers} layers of {heads} heads each are too many for one figure; choose them one by one above."
        return paragraph(words, class_="absent")
    return embed(
        "attention-all",
        grid_figure(arrays),
        caption="The colours are those of the map above. Hover for tokens and weights.",
        alt="Attention maps of all heads, rows are layers, columns are heads",
        min_width=_PANEL * heads + 110,
        max_width=2 * _PANEL * heads + 110,
    )


def _wedge_key(name: str, colour: str) -> Html:
    return element(
        "span", element("span", class_="swatch block", style=f"border-color:{colour}"), f"to the {name} of a city"
    )


def token_names(arrays: dict[str, np.ndarray]) -> list[str]:
    """A name for each position: the instance token of a city, or a step of the tour with its city."""
    names = [f"token {position}" for position in range(arrays["patterns"].shape[-1])]
    for city, position in enumerate(arrays["city_positions"].tolist()):
        names[position] = f"city {city}"
    tour, positions = arrays["tour"].tolist(), arrays["decode_positions"].tolist()
    for step, (city, position) in enumerate(zip(tour, positions, strict=True), start=1):
        names[position] = f"step {step} ({city})"
    return names


def attention_to_cities(arrays: dict[str, np.ndarray], layer: int, head: int) -> dict[str, Float64[np.ndarray, " n"]]:
    """Attention of the last decode token to each city, apart for its instance token and its tour token."""
    row = arrays["patterns"][layer, head, arrays["decode_positions"][-1]].astype(np.float64)
    to_tour = np.zeros(len(arrays["city_positions"]))
    np.add.at(to_tour, arrays["tour"], row[arrays["decode_positions"]])
    return {"instance": row[arrays["city_positions"]], "tour": to_tour}


def _head_words(arrays: dict[str, np.ndarray], layer: int, head: int) -> Html:
    weights = attention_to_cities(arrays, layer, head)
    to_instance, to_tour = float(weights["instance"].sum()), float(weights["tour"].sum())
    city = int(weights["instance"].argmax())
    return element(
        "p",
        f"Layer {layer}, head {head}: the last decode token gives {percent(to_instance)} of its attention to instance "
        f"tokens, most to city {city} ({percent(float(weights['instance'][city]))}), and {percent(to_tour)} to tour "
        f"tokens, {percent(float(weights['tour'][arrays['tour'][-1]]))} to itself.",
        data_when=f"layer={layer} head={head}",
    )


def drawing_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """The instance with one set of wedges per head and kind of token; the first head is shown at first."""
    figure = canvas()
    points = to_unit_square(arrays["layout"])
    tour = arrays["tour"]
    figure.add_scatter(
        x=points[tour, 0],
        y=points[tour, 1],
        mode="lines",
        line={"color": NULL_COLOUR, "width": 2, "dash": "dot"},
        hoverinfo="skip",
    )
    layers, heads = arrays["patterns"].shape[:2]
    for layer in range(layers):
        for head in range(heads):
            figure.add_traces(_head_traces(arrays, points, layer, head))
    return figure


def _head_traces(arrays: dict[str, np.ndarray], points: np.ndarray, layer: int, head: int) -> list[go.Scatter]:
    weights = attention_to_cities(arrays, layer, head)
    source = int(arrays["tour"][-1])
    meta = {"layer": str(layer), "head": str(head)}
    traces = []
    for side, (key, _, colour) in zip((_APART, -_APART), _SOURCES, strict=True):
        shape = wedges(points, source, _WIDEST * weights[key], side)
        traces.append(
            go.Scatter(
                x=shape[:, 0],
                y=shape[:, 1],
                mode="lines",
                fill="toself",
                fillcolor=colour,
                line={"color": colour, "width": 0.5},
                opacity=0.75,
                hoverinfo="skip",
                meta=meta,
                visible=layer == head == 0,
            )
        )
    words = [
        f"city {city}: {percent(float(weights['instance'][city]))} to its instance token, "
        f"{percent(float(weights['tour'][city]))} to its tour token, weight {arrays['weights'][source, city]} from here"
        for city in range(len(points))
    ]
    cities = city_trace(points, words, meta)
    cities.visible = layer == head == 0
    cities.marker.line.color = [HIGHLIGHT if city == source else "#4b5563" for city in range(len(points))]
    cities.marker.line.width = [4 if city == source else 1.5 for city in range(len(points))]
    return [*traces, cities]


def head_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """The attention map of each head, switched by the controls."""
    names = [label(name) for name in token_names(arrays)]
    figure = new_figure(height=460)
    layers, heads = arrays["patterns"].shape[:2]
    for layer in range(layers):
        for head in range(heads):
            figure.add_heatmap(
                **_map(arrays, layer, head, names),
                coloraxis="coloraxis",
                meta={"layer": str(layer), "head": str(head)},
                visible=layer == head == 0,
            )
    figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": {"tickformat": ".0%"}},
        xaxis={
            "title": {"text": "looks at (key)"},
            "tickangle": -90,
            "showgrid": False,
            "type": "category",
            "dtick": 1,
        },
        yaxis={
            "title": {"text": "token (query)"},
            "autorange": "reversed",
            "showgrid": False,
            "type": "category",
            "dtick": 1,
        },
    )
    return figure


def _map(arrays: dict[str, np.ndarray], layer: int, head: int, names: list[str]) -> dict[str, Any]:
    return {
        "z": arrays["patterns"][layer, head].astype(np.float32),
        "x": names,
        "y": names,
        "hovertemplate": f"layer {layer}, head {head}: from %{{y}} to %{{x}}: %{{z:.1%}}<extra></extra>",
    }


def grid_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Small maps of all heads; token labels stand at the outer edges only."""
    layers, heads = arrays["patterns"].shape[:2]
    names = [label(name) for name in token_names(arrays)]
    figure = make_subplots(
        rows=layers,
        cols=heads,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.02,
        column_titles=[f"head {head}" for head in range(heads)],
        row_titles=[f"layer {layer}" for layer in range(layers)],
    )
    for layer in range(layers):
        for head in range(heads):
            figure.add_heatmap(**_map(arrays, layer, head, names), coloraxis="coloraxis", row=layer + 1, col=head + 1)
    figure.update_layout(
        template=TEMPLATE,
        height=_PANEL * layers + 110,
        margin={"t": 56},
        coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "showscale": False},
    )
    figure.update_annotations(font={"size": 12})
    figure.update_xaxes(tickfont={"size": 9}, tickangle=-90, showgrid=False, type="category", dtick=1)
    figure.update_yaxes(tickfont={"size": 9}, autorange="reversed", showgrid=False, type="category", dtick=1)
    return figure
