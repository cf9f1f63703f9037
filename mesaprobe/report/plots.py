"""What every figure shares: colours, the template, and how a figure stands in the page.

Colours come from Okabe and Ito's palette, darkened where needed so that they can be told apart on white and on
near-black by readers with any colour vision; line styles and marker shapes repeat the distinction.
Text, axis and grid colours are set by style.css, which follows the reader's light or dark scheme.
"""

from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from mesaprobe.report.markup import Html, element, escape

NULL_COLOUR = "#848c96"
"""Every null and floor is grey; which one it is shows in its dash and marker."""


@dataclass(frozen=True)
class Style:
    """How one method looks wherever it appears."""

    colour: str
    dash: str
    symbol: str


_STYLES = {
    "model": Style("#1f7fc4", "solid", "circle"),
    "optimal": Style("#009e73", "solid", "diamond"),
    "nearest_neighbour": Style("#d55e00", "dash", "square"),
    "greedy_edge": Style("#b5559c", "dot", "triangle-up"),
    "cheapest_insertion": Style("#b58900", "dashdot", "triangle-down"),
    "farthest_insertion": Style("#4c9fb3", "longdash", "pentagon"),
    "savings": Style("#8a6d5a", "longdashdot", "star"),
    "mst_preorder": Style("#9aa657", "dot", "cross"),
    "two_opt_or_opt": Style("#c23b3b", "solid", "hexagon"),
    "annealing": Style("#6a51a3", "solid", "star-diamond"),
    "random_legal": Style(NULL_COLOUR, "dashdot", "x"),
}
_OTHERS = (
    Style("#7a7a3a", "dashdot", "triangle-left"),
    Style("#3f6f8f", "longdash", "triangle-right"),
    Style("#a0527a", "longdashdot", "bowtie"),
)
HIGHLIGHT = "#e69f00"
"""Marks the one thing that the text talks about (the selected site, the changed entry)."""

DIVERGING = [
    [0.0, "#7f3b08"],
    [0.25, "#e08214"],
    [0.45, "#fbe3c4"],
    [0.5, "#f4f4f4"],
    [0.55, "#d3e4f2"],
    [0.75, "#4393c3"],
    [1.0, "#053061"],
]
"""Orange below zero, blue above, near-white at zero: safe for red-green colour blindness."""

SEQUENTIAL = [[(i / 10) ** 2, colour] for i, colour in enumerate(sample_colorscale("Viridis", 11))]
"""Viridis over 0 to 1 with its colours crowded towards 0, where most attention weights lie."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_AXIS = {
    "gridcolor": "rgba(128,136,146,0.25)",
    "linecolor": "rgba(128,136,146,0.6)",
    "zerolinecolor": "rgba(128,136,146,0.6)",
    "automargin": True,
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": "rgba(128,136,146,0.6)",
    "title": {"standoff": 10, "font": {"size": 13}},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": _FONT, "size": 13, "color": "#444"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 30, "b": 48},
        "height": 380,
        "dragmode": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "font": {"family": _FONT, "size": 13}},
        "legend": {"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "xanchor": "left", "x": 0},
        "xaxis": {**_AXIS, "zeroline": False},
        "yaxis": {**_AXIS, "zeroline": False},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#848c96", "activecolor": "#1f7fc4"},
        "coloraxis": {"colorbar": {"thickness": 12, "outlinewidth": 0}},
    }
)


def method_style(method: str, position: int = 0) -> Style:
    """The style of a method; one that has no style of its own gets one by its `position` in the figure."""
    return _STYLES.get(method) or _OTHERS[position % len(_OTHERS)]


def new_figure(**layout: object) -> go.Figure:
    """An empty figure in the report's template."""
    return go.Figure(layout={"template": TEMPLATE, **layout})


def label(words: object) -> str:
    """Stored words for use inside a figure, where plotly would read `<` and `&` as markup."""
    return str(escape(words))


def embed(
    name: str, figure: go.Figure, *, caption: str, alt: str, min_width: int = 0, max_width: int | None = None
) -> Html:
    """A figure as data beside the box that it is drawn in, by the script of `controls`.

    `name` is unique in the page. Below `min_width` pixels the figure scrolls inside its own box. `alt` says in words
    what the figure is, for readers who do not see it.
    """
    height = figure.layout.height or TEMPLATE.layout.height
    style = f"height:{height}px;min-width:{min_width}px" + (f";max-width:{max_width}px" if max_width else "")
    box = element("div", id=f"plot-{name}", class_="plot", role="img", aria_label=alt, style=style)
    # plotly writes `<` as \u003c, so that no stored string can end the script element.
    data = element("script", Html(figure.to_json()), type="application/json", data_plot=f"plot-{name}")
    scroll = element("div", box, class_="scroll", tabindex=0 if min_width else None)
    return element("figure", scroll, element("figcaption", caption), data)
