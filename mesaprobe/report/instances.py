"""The instance viewer: instances in the plane with the tours of every method."""

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Int64

from mesaprobe.report.controls import controls, menu, switch
from mesaprobe.report.drawing import canvas, city_trace, edge_words, layout_note, segments, to_unit_square, tour_edges
from mesaprobe.report.markup import Html, element, join, paragraph, table
from mesaprobe.report.plots import NULL_COLOUR, embed, label, method_style
from mesaprobe.report.wording import method_name, number, percent

_OTHER_EDGES = "other_edges"
_WIDTHS = {"optimal": 10.0, "model": 3.0}
"""The optimum lies wide and pale under the model's thin line, so that shared and differing edges both show."""


def instances_section(arrays: dict[str, np.ndarray]) -> Html:
    """Controls, the drawing, and one table of tours per instance."""
    methods, count = arrays["methods"].tolist(), len(arrays["weights"])
    kind = str(arrays["layout_kind"])
    switches = [
        switch(
            "method",
            method,
            method_name(method),
            on=method in _WIDTHS,
            swatch=method_style(method, row).colour,
            dash="wide" if method == "optimal" else method_style(method, row).dash,
        )
        for row, method in enumerate(methods)
    ]
    switches.append(switch("method", _OTHER_EDGES, "all other edges", on=False, swatch=NULL_COLOUR, dash="dot"))
    choice = menu("instance", "Instance", [(str(i), f"{i + 1} of {count}") for i in range(count)])
    drawing = embed(
        "instances",
        instances_figure(arrays),
        caption=join(_note(kind, float(stress), index) for index, stress in enumerate(arrays["stress"])),
        alt="Cities of one instance with the tours of the model, the optimum and simple rules",
    )
    tables = element("div", *(_tours_table(arrays, index) for index in range(count)))
    return join([controls("Show", choice, *switches), element("div", drawing, tables, class_="pair")])


def _note(kind: str, stress: float, index: int) -> Html:
    return element("span", layout_note(kind, stress), data_when=f"instance={index}")


def _tours_table(arrays: dict[str, np.ndarray], index: int) -> Html:
    methods = arrays["methods"].tolist()
    costs, tours = arrays["costs"][:, index], arrays["tours"][:, index]
    optimum = costs[methods.index("optimal")] if "optimal" in methods else None
    rows = [
        (
            method_name(method),
            number(int(cost)),
            percent(None if optimum is None else float(cost / optimum - 1)),
            "\N{NO-BREAK SPACE}".join(map(str, tour.tolist())),
        )
        for method, cost, tour in zip(methods, costs, tours, strict=True)
    ]
    words = table(f"Tours of instance {index + 1}", ("method", "cost", "gap", "tour"), rows, words=(0, 3))
    hint = paragraph(
        "Hover over a city or over the middle of an edge for its numbers. Arrow heads show the model's direction."
    )
    return element("div", words, hint, data_when=f"instance={index}")


def instances_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Every instance with every tour, as traces that the controls switch; the first instance is shown at first."""
    figure = canvas()
    methods = arrays["methods"].tolist()
    for index, weights in enumerate(arrays["weights"]):
        points = to_unit_square(arrays["layout"][index])
        tours = arrays["tours"][:, index]
        traces = [_other_edges(points, weights, tours)]
        order = sorted(range(len(methods)), key=lambda row: -_WIDTHS.get(methods[row], 2.0))
        for row in order:
            traces.extend(_tour(points, weights, tours, methods, row))
        traces.append(city_trace(points, _city_words(tours, methods), {}))
        for trace in traces:
            method = trace.meta.get("method")
            trace.meta = {"instance": str(index), **trace.meta}
            trace.visible = index == 0 and (method is None or method in _WIDTHS)
        figure.add_traces(traces)
    return figure


def _city_words(tours: Int64[np.ndarray, "method n"], methods: list[str]) -> list[str]:
    places = np.argsort(tours, axis=1)
    return [
        f"city {city}: "
        + ", ".join(
            f"place {places[row, city] + 1} in the {method_name(name)} tour" for row, name in enumerate(methods[:2])
        )
        for city in range(tours.shape[1])
    ]


def _tour(
    points: np.ndarray, weights: np.ndarray, tours: np.ndarray, methods: list[str], row: int
) -> tuple[go.Scatter, go.Scatter]:
    """The line of a tour, and at the middle of each edge a mark that says its weight and who takes it."""
    method, style = methods[row], method_style(methods[row], row)
    edges = tour_edges(tours[row])
    path = segments(points, edges)
    meta = {"method": method}
    line = go.Scatter(
        x=path[:, 0],
        y=path[:, 1],
        mode="lines",
        line={"color": style.colour, "width": _WIDTHS.get(method, 2.0), "dash": style.dash},
        opacity=0.35 if method == "optimal" else 1.0,
        hoverinfo="skip",
        meta=meta,
    )
    start, end = points[edges[:, 0]], points[edges[:, 1]]
    middle, step = (start + end) / 2, end - start
    marks = go.Scatter(
        x=middle[:, 0],
        y=middle[:, 1],
        mode="markers",
        marker={
            "color": style.colour,
            "symbol": "triangle-up",
            "size": 11,
            "angle": np.degrees(np.arctan2(step[:, 0], step[:, 1])),
            "opacity": 1.0 if method == "model" else 0.0,
        },
        hovertext=[label(_edge_words(weights, tours, methods, int(u), int(v))) for u, v in edges],
        hoverinfo="text",
        meta=meta,
    )
    return line, marks


def _edge_words(weights: np.ndarray, tours: np.ndarray, methods: list[str], u: int, v: int) -> str:
    users = [
        method_name(method)
        for method, tour in zip(methods, tours, strict=True)
        if {u, v} in [set(edge) for edge in tour_edges(tour).tolist()]
    ]
    return f"{edge_words(weights, u, v)} (in the tour of: {', '.join(users)})"


def _other_edges(points: np.ndarray, weights: np.ndarray, tours: np.ndarray) -> go.Scatter:
    """The edges that no tour takes, thin, with their weights."""
    taken = {frozenset(edge) for tour in tours for edge in tour_edges(tour).tolist()}
    n = len(points)
    free = [(u, v) for u in range(n) for v in range(u + 1, n) if frozenset((u, v)) not in taken]
    edges = np.array(free, dtype=np.int64).reshape(-1, 2)
    # A middle point between the ends of each line carries the label.
    ends = segments(points, edges).reshape(-1, 3, 2)
    path = np.stack([ends[:, 0], (ends[:, 0] + ends[:, 1]) / 2, ends[:, 1], ends[:, 2]], axis=1).reshape(-1, 2)
    words = [edge_words(weights, u, v) for u, v in free]
    return go.Scatter(
        x=path[:, 0],
        y=path[:, 1],
        mode="lines",
        line={"color": NULL_COLOUR, "width": 1, "dash": "dot"},
        hovertext=[label(words[i // 4]) if i % 4 == 1 else "" for i in range(len(path))],
        hoverinfo="text",
        meta={"method": _OTHER_EDGES},
    )
