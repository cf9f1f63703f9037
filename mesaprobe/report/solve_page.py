"""The page of `mesaprobe solve --plot`: the tour, the gap that branch and bound closes, and its tree."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64, Int64

from mesaprobe.analysis.layout import plane_layouts
from mesaprobe.errors import UserError
from mesaprobe.files import write_text
from mesaprobe.report.controls import controls, menu
from mesaprobe.report.document import document
from mesaprobe.report.drawing import canvas, city_trace, edge_words, layout_note, segments, to_unit_square, tour_edges
from mesaprobe.report.markup import Html, element, facts, join, paragraph
from mesaprobe.report.plots import HIGHLIGHT, NULL_COLOUR, Style, embed, label, method_style, new_figure
from mesaprobe.report.wording import duration, method_name, number, percent
from mesaprobe.solvers.exact.search_trace import NO_INCUMBENT, SearchEvent, SearchTrace
from mesaprobe.solvers.tables import TRACE_NODES, SolvedInstance, weak_trace

SHOWN = 12
"""Instances on one page."""
DRAWN_CITIES = 200
"""Largest n that is drawn."""
SEARCHED_CITIES = 20
"""Largest n whose search is drawn."""
TREE_NODES = 2000
"""Nodes of the tree that are drawn."""
_POINTS = 3000
"""Points of each line of the gap figure."""

_EVENTS = {
    SearchEvent.EXPANDED: Style("#1f7fc4", "solid", "circle"),
    SearchEvent.PRUNED: Style(NULL_COLOUR, "dot", "x"),
    SearchEvent.INCUMBENT: Style(HIGHLIGHT, "solid", "star"),
    SearchEvent.NO_BETTER: Style("#8a6d5a", "dot", "triangle-down"),
}
_EVENT_WORDS = {
    SearchEvent.EXPANDED: "expanded",
    SearchEvent.PRUNED: "pruned: the bound reaches the incumbent",
    SearchEvent.INCUMBENT: "new incumbent",
    SearchEvent.NO_BETTER: "a tour, no better",
}


def render_solutions(solved: Sequence[SolvedInstance], page: Path) -> Path:
    """Write one page about the first 12 of the solved instances and return its path.

    The tree and the gap are those of depth-first branch and bound with the weak spanning-tree bound and no start tour,
    whatever method found the tour; they are drawn up to n = 20. Raises UserError without instances and for n outside 2
    to 200.
    """
    if not solved:
        raise UserError("there are no instances to draw")
    shown = list(solved[:SHOWN])
    for one in shown:
        if not 2 <= len(one.instance.weights) <= DRAWN_CITIES:
            raise UserError(f"a plot takes 2 to {DRAWN_CITIES} cities, got {len(one.instance.weights)}")
    traces = [weak_trace(one.instance) if len(one.instance.weights) <= SEARCHED_CITIES else None for one in shown]
    title = shown[0].instance.name if len(shown) == 1 else f"{len(shown)} of {len(solved)} instances"
    options = [(str(index), one.instance.name) for index, one in enumerate(shown)]
    choice = controls("Show", menu("instance", "Instance", options))
    body = element("section", choice, *(_instance(i, *pair) for i, pair in enumerate(zip(shown, traces, strict=True))))
    header = element("header", paragraph("mesaprobe solve", class_="kicker"), element("h1", title))
    write_text(page, document(f"{title}: mesaprobe solve", "Tours, bounds and branch-and-bound trees.", header, body))
    return page


def _instance(index: int, solved: SolvedInstance, trace: SearchTrace | None) -> Html:
    parts = [_facts(solved, trace), element("h2", "Tour"), _tour(index, solved)]
    if trace is None:
        parts.append(paragraph(f"A search is drawn for at most {SEARCHED_CITIES} cities.", class_="absent"))
    else:
        parts += [element("h2", "Bound gap over time"), _gap(index, trace), element("h2", "Tree"), _tree(index, trace)]
    return element("div", *parts, data_when=f"instance={index}")


def _facts(solved: SolvedInstance, trace: SearchTrace | None) -> Html:
    solution = solved.solution
    claim = {True: "proven optimal", False: "no claim", None: "stopped without a proof"}[solution.optimal]
    pairs = [
        ("cities (n)", number(len(solved.instance.weights))),
        ("method", method_name(solution.method)),
        ("cost", f"{number(solution.cost)} ({claim})"),
        ("time", duration(solution.seconds)),
    ]
    if trace is not None:
        totals = trace.totals()
        pairs += [
            ("search nodes", number(len(trace)) + ("" if trace.proven else " (budget spent, no proof)")),
            ("finding, proving", f"{number(trace.finding_nodes)}, {number(len(trace) - trace.finding_nodes)}"),
            ("backtracks", f"{number(int(totals.backtracks[0]))} (deepest {int(totals.deepest_backtrack[0])})"),
        ]
    return facts(pairs)


def _tour(index: int, solved: SolvedInstance) -> Html:
    weights, tour = solved.instance.weights, np.array(solved.solution.tour)
    points = None if solved.instance.coordinates is None else solved.instance.coordinates[None]
    layout = plane_layouts(weights[None], points, seed=0)
    points, edges, style = to_unit_square(layout.positions[0]), tour_edges(tour), method_style("optimal")
    path, middle = segments(points, edges), points[edges].mean(axis=1)
    step = points[edges[:, 1]] - points[edges[:, 0]]
    figure = canvas()
    line = {"color": style.colour, "width": 3}
    figure.add_scatter(x=path[:, 0], y=path[:, 1], mode="lines", line=line, hoverinfo="skip")
    figure.add_scatter(
        x=middle[:, 0],
        y=middle[:, 1],
        mode="markers",
        marker={
            "color": style.colour,
            "symbol": "triangle-up",
            "size": 11,
            "angle": np.degrees(np.arctan2(step[:, 0], step[:, 1])),
        },
        hovertext=[label(edge_words(weights, int(u), int(v))) for u, v in edges],
        hoverinfo="text",
    )
    places = np.argsort(tour)
    figure.add_trace(city_trace(points, [f"city {city}: place {places[city] + 1}" for city in range(len(tour))]))
    words = paragraph("Tour: ", element("code", " ".join(map(str, tour.tolist()))))
    caption = layout_note(layout.kind, float(layout.stress[0]))
    return join([embed(f"tour-{index}", figure, caption=caption, alt="The tour drawn through its cities"), words])


def _gap(index: int, trace: SearchTrace) -> Html:
    """Incumbent and best proven bound after each node, as steps."""
    figure = new_figure(
        xaxis={"title": {"text": "nodes visited"}}, yaxis={"title": {"text": "cost of a tour"}}, showlegend=True
    )
    nodes, incumbents, proven = gap_curves(trace)
    known = incumbents != NO_INCUMBENT
    shape = {"shape": "hv", "width": 2}
    figure.add_scatter(x=nodes[known], y=incumbents[known], name="incumbent", line={**shape, "color": HIGHLIGHT})
    figure.add_scatter(x=nodes, y=proven, name="best proven bound", line={**shape, "color": "#1f7fc4", "dash": "dash"})
    if 0 < trace.finding_nodes < len(trace):
        figure.add_vline(x=trace.finding_nodes, line={"color": NULL_COLOUR, "dash": "dot"})
    found = np.flatnonzero(known)
    opening = (
        "no tour was found"
        if not len(found)
        else (
            f"the first tour, met after {nodes[found[0]]} nodes, lies "
            f"{percent(float(incumbents[found[0]] / max(trace.cost, 1) - 1))} above the best"
        )
    )
    caption = (
        "Branch and bound with the spanning-tree bound: above, the cheapest tour so far; below, what every tour is "
        f"proven to cost at least. Dotted line: the last new incumbent, after which the search only proves; {opening}."
    )
    alt = "The incumbent's cost falls and the proven bound rises until they meet"
    return embed(f"gap-{index}", figure, caption=caption, alt=alt)


def gap_curves(
    trace: SearchTrace,
) -> tuple[Int64[np.ndarray, " point"], Int64[np.ndarray, " point"], Int64[np.ndarray, " point"]]:
    """Nodes visited, incumbent and proven bound after them, where one of the two changes (thinned to some 3,000)."""
    found = np.where(trace.events == SearchEvent.INCUMBENT, trace.bounds, NO_INCUMBENT)
    incumbents = np.minimum.accumulate(np.minimum(trace.incumbents, found))
    proven = trace.proven_bounds()
    changes = np.flatnonzero(np.diff(incumbents, prepend=-1) | np.diff(proven, prepend=-1))
    kept = changes[:: max(1, len(changes) // _POINTS)]
    kept = np.unique([*kept, len(trace) - 1])
    return kept + 1, incumbents[kept], proven[kept]


def _tree(index: int, trace: SearchTrace) -> Html:
    count = min(len(trace), TREE_NODES)
    places = tree_places(trace.parents[:count])
    depths = trace.depths[:count].astype(float)
    figure = new_figure(
        height=460,
        showlegend=True,
        xaxis={"visible": False},
        yaxis={"title": {"text": "cities in the prefix"}, "autorange": "reversed", "dtick": 1},
    )
    edges = np.stack([trace.parents[1:count], np.arange(1, count)], axis=1).astype(np.int64)
    path = segments(np.stack([places, depths], axis=1), edges)
    thin = {"color": NULL_COLOUR, "width": 1}
    figure.add_scatter(x=path[:, 0], y=path[:, 1], mode="lines", line=thin, hoverinfo="skip", showlegend=False)
    for event, style in _EVENTS.items():
        rows = np.flatnonzero(trace.events[:count] == event)
        figure.add_trace(_nodes(trace, rows, places, depths, style, _EVENT_WORDS[event]))
    shown = (
        f"all {number(count)} nodes" if count == len(trace) else f"the first {number(count)} of {len(trace):,} nodes"
    )
    cut = "" if trace.proven else f" The search was ended after {number(TRACE_NODES)} nodes."
    caption = (
        f"Depth-first from left to right, the nearest city first; {shown}.{cut} Hover over a node for its numbers."
    )
    alt = "The branch-and-bound tree; nodes are marked as expanded, pruned, new incumbent or no better"
    return embed(f"tree-{index}", figure, caption=caption, alt=alt, min_width=600)


def _nodes(
    trace: SearchTrace, rows: np.ndarray, places: np.ndarray, depths: np.ndarray, style: Style, words: str
) -> go.Scatter:
    def hover(node: int) -> str:
        incumbent = int(trace.incumbents[node])
        prefix = " ".join(map(str, trace.prefixes[node, : trace.depths[node]].tolist()))
        best = "none yet" if incumbent == NO_INCUMBENT else number(incumbent)
        return f"node {node}: {prefix}; bound {number(int(trace.bounds[node]))}, incumbent {best}"

    return go.Scatter(
        x=places[rows],
        y=depths[rows],
        mode="markers",
        name=words,
        marker={"color": style.colour, "symbol": style.symbol, "size": 7},
        hovertext=[label(hover(int(node))) for node in rows],
        hoverinfo="text",
    )


def tree_places(parents: Int64[np.ndarray, " node"]) -> Float64[np.ndarray, " node"]:
    """Where each node of a tree stands from left to right: leaves one apart in the order of visits, others in the
    middle of their first and last child. Parents come before their children.

    >>> tree_places(np.array([-1, 0, 1, 1, 0]))
    array([1.25, 0.5 , 0.  , 1.  , 2.  ])
    """
    first, last = np.full(len(parents), np.nan), np.full(len(parents), np.nan)
    inner = np.zeros(len(parents), dtype=bool)
    inner[parents[1:]] = True
    first[~inner] = last[~inner] = np.arange(np.count_nonzero(~inner))
    for node in range(len(parents) - 1, 0, -1):
        parent, place = parents[node], (first[node] + last[node]) / 2
        first[parent] = place  # children come in order, so the last one seen here is the first
        if np.isnan(last[parent]):
            last[parent] = place
    return (first + last) / 2
