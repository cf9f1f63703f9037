"""Instances drawn in the plane: cities, edges, tours and arrows, on axes of equal scale."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64, Int32, Int64

from mesaprobe.report.plots import label, new_figure
from mesaprobe.report.wording import number

_CITY_SIZE = 24
_HIDDEN_AXIS = {"visible": False, "range": [-0.08, 1.08], "fixedrange": True}


def canvas(height: int = 460) -> go.Figure:
    """An empty drawing: the unit square, no axes, one scale for both directions."""
    return new_figure(
        height=height,
        showlegend=False,
        margin={"l": 4, "r": 4, "t": 4, "b": 4},
        xaxis={**_HIDDEN_AXIS, "scaleanchor": "y"},
        yaxis=_HIDDEN_AXIS,
    )


def to_unit_square(layout: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """The layout shifted and scaled (by one factor) into the unit square, centred."""
    low, high = layout.min(axis=0), layout.max(axis=0)
    return (layout - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5


def layout_note(layout_kind: str, stress: float | None = None) -> str:
    """What distances in the drawing mean."""
    if layout_kind == "coordinates":
        return "Cities stand at their coordinates."
    note = (
        "These weights have no geometry: cities are placed by multidimensional scaling (MDS), so distances in the "
        "drawing are only approximate; read weights from the hover labels"
    )
    return f"{note} (normalised stress {number(stress)}; 0 would be exact)." if stress is not None else f"{note}."


def city_trace(
    points: Float64[np.ndarray, "n 2"], hover: Sequence[str], meta: dict[str, str] | None = None
) -> go.Scatter:
    """The cities as numbered discs; `hover` says what is known of each."""
    return go.Scatter(
        x=points[:, 0],
        y=points[:, 1],
        mode="markers+text",
        marker={"size": _CITY_SIZE, "color": "#ffffff", "line": {"color": "#4b5563", "width": 1.5}},
        text=[str(city) for city in range(len(points))],
        textfont={"color": "#111111", "size": 13},
        hovertext=[label(words) for words in hover],
        hoverinfo="text",
        meta=meta,
        showlegend=False,
    )


def segments(points: Float64[np.ndarray, "n 2"], edges: Int64[np.ndarray, "edge 2"]) -> Float64[np.ndarray, "point 2"]:
    """The path start, end, gap, start, end, gap ... that draws each edge as its own line."""
    gap = np.full((len(edges), 1, 2), np.nan)
    return np.concatenate([points[edges], gap], axis=1).reshape(-1, 2)


def tour_edges(tour: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n 2"]:
    """The edges of a closed tour, each as (from, to) in its direction of travel."""
    return np.stack([tour, np.roll(tour, -1)], axis=1)


def edge_words(weights: Int32[np.ndarray, "n n"], u: int, v: int) -> str:
    """An edge and its weight; both weights where they depend on the direction."""
    if weights[u, v] == weights[v, u]:
        return f"edge {u}-{v}: weight {weights[u, v]}"
    return f"edge {u}→{v}: weight {weights[u, v]}, back {weights[v, u]}"


def wedges(
    points: Float64[np.ndarray, "n 2"],
    source: int,
    widths: Float64[np.ndarray, " n"],
    side: float = 0.0,
) -> Float64[np.ndarray, "point 2"]:
    """Thin triangles from the city `source` that widen towards every other city, to be filled.

    `widths` are the widths at the far end in units of the drawing; `side` shifts all of them sideways, so that two
    sets of wedges between the same cities stay apart. Each triangle is followed by a gap (NaN).
    """
    shapes = []
    for city, width in enumerate(widths):
        step = points[city] - points[source]
        length = float(np.hypot(*step))
        if city == source or length == 0 or width <= 0:
            continue
        across = np.array([-step[1], step[0]]) / length
        start, end = points[source] + side * across, points[city] + side * across
        corners = [start, end + across * width / 2, end - across * width / 2, start]
        shapes.append(np.array([*corners, [np.nan, np.nan]]))
    return np.concatenate(shapes) if shapes else np.empty((0, 2))
