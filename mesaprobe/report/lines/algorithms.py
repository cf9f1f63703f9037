"""Which algorithm the network's behaviour looks like: every algorithm of the library, ranked."""

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html, details, join, paragraph, table
from mesaprobe.report.plots import NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.wording import number, number_interval, percent

_KINDS = {
    "search": ("search (degree 3 to 5)", method_style("model").colour, ""),
    "rule": ("rule (degree 0 to 2)", method_style("nearest_neighbour").colour, "/"),
    "null": ("null: local imitator, noisy oracle", NULL_COLOUR, "."),
}


def algorithms_section(arrays: dict[str, np.ndarray]) -> Html:
    """The ranked bar chart and its numbers."""
    names = [_words(name) for name in arrays["names"].tolist()]
    chart = embed(
        "algorithm-ranking",
        ranking_figure(arrays),
        caption="How much of the network's own log-likelihood, above uniform guessing, each algorithm reaches as a "
        "noisy policy on discordant decisions: 1 = as good as the network's own output, 0 = uniform guessing. Bars "
        "with 95% intervals over instances. The number before a name is its degree.",
        alt="Ranked bar chart of the algorithms whose choices resemble the network's",
        min_width=420,
        max_width=860,
    )
    rows = [
        (
            name,
            str(int(degree)),
            number(float(value)),
            number_interval((float(low), float(high))),
            percent(float(exceedance)),
            merged.replace("_", " "),
        )
        for name, degree, value, low, high, exceedance, merged in zip(
            names,
            arrays["degrees"],
            arrays["values"],
            arrays["lows"],
            arrays["highs"],
            arrays["exceedance"],
            arrays["merged"].tolist(),
            strict=True,
        )
    ]
    head = ("algorithm", "degree", "share", "95% interval", "exceedance", "cannot be told from")
    first = paragraph(f"The behaviour looks most like: {names[0]}.")
    numbers = table("Share of the network's log-likelihood, and the chance to be the most frequent", head, rows)
    return join([first, chart, details("The ranking in numbers", numbers)])


def ranking_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Bars from the best at the top, coloured and hatched by kind."""
    names = [
        label(f"{int(degree)} {_words(name)}")
        for name, degree in zip(arrays["names"].tolist(), arrays["degrees"], strict=True)
    ]
    figure = new_figure(
        height=20 * len(names) + 120,
        barmode="overlay",
        xaxis={"title": {"text": "share of the network's log-likelihood"}, "zeroline": True},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": names[::-1], "showgrid": False},
    )
    for kind, (words, colour, shape) in _KINDS.items():
        own = np.flatnonzero(arrays["kinds"] == kind)
        figure.add_bar(
            x=arrays["values"][own],
            y=[names[i] for i in own],
            orientation="h",
            name=words,
            marker={"color": colour, "pattern": {"shape": shape}},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (arrays["highs"] - arrays["values"])[own],
                "arrayminus": (arrays["values"] - arrays["lows"])[own],
                "thickness": 1.2,
                "width": 2,
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    return figure


def _words(name: str) -> str:
    return name.replace("_", " ")


ALGORITHM_RANKING = Section(
    "algorithm-ranking",
    "Which algorithm does the behaviour look like?",
    "Every algorithm of the library as a noisy policy, fitted on other instances and scored on decisions that every "
    "rule gets wrong and on which the library disagrees most. The line's value is the best search less the best of "
    "rules and nulls.",
    "A likeness of behaviour is no mechanism. A nearly perfect network is fitted best by the exact values whatever "
    "goes on inside, and the line then gives no value. An algorithm that is not in the library cannot be found.",
    line_summary("E1"),
    Figures(
        "E1",
        ("names", "kinds", "degrees", "values", "lows", "highs", "exceedance", "merged"),
        algorithms_section,
        line="E1",
    ),
)
