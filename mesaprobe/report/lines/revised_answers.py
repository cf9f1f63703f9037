"""Whether the answer goes back to what it was when the layer that revised it is silenced."""

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html
from mesaprobe.report.plots import NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.section import Figures, Section


def revised_answers_section(arrays: dict[str, np.ndarray]) -> Html:
    """Reverted answers by kind of patch."""
    better, worse = arrays["events"].tolist()
    return embed(
        "revised-answers",
        revised_answers_figure(arrays),
        caption=f"Decisions whose answer goes back to the city that it was before the revising layer: {better} flips "
        f"to a better city, {worse} to a worse one.",
        alt="Share of answers that revert, by what is taken away",
        max_width=640,
    )


def revised_answers_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Bars by kind of patch, for flips to a better and to a worse city."""
    figure = new_figure(
        height=340,
        barmode="group",
        xaxis={"title": {"text": "what is taken away at the revising layer"}},
        yaxis={"title": {"text": "answers that revert"}, "tickformat": "~%", "range": [0, 1.05]},
    )
    kinds = [label(kind) for kind in arrays["kinds"].tolist()]
    for key, name, colour in (
        ("reverted_better", "flips to a better city", method_style("model").colour),
        ("reverted_worse", "flips to a worse city", NULL_COLOUR),
    ):
        figure.add_bar(
            x=kinds,
            y=arrays[key],
            name=name,
            marker={"color": colour},
            hovertemplate="%{x}: %{y:.1%}<extra>" + name + "</extra>",
        )
    return figure


REVISED_ANSWERS = Section(
    "revised-answers",
    "Revised answers",
    "Whether an answer that a later layer bettered comes back when that layer's update is taken away at the answering "
    "token, more often than when another state's update of the same length is, and than an answer that it worsened.",
    "Every residual network sharpens its answer with depth, a scorer of local features as well as a network trained on "
    "optimal tours; only flips for the better that have a firmer place than flips for the worse count. That a revision "
    "has a place does not show that alternatives were compared. It is one of three parts of E10.",
    line_summary("E10b"),
    Figures("E10b", ("kinds", "reverted_better", "reverted_worse", "events"), revised_answers_section, line="E10b"),
)
