"""What erasing the regrets costs on hard and on easy states, beside erasures of other things."""

import numpy as np
import plotly.graph_objects as go

from mesaprobe.report.lines.summary import line_summary
from mesaprobe.report.markup import Html
from mesaprobe.report.plots import HIGHLIGHT, NULL_COLOUR, embed, label, method_style, new_figure
from mesaprobe.report.section import Figures, Section

_CONCEPT = "regret"


def erasure_section(arrays: dict[str, np.ndarray]) -> Html:
    """Every erasure as a point."""
    return embed(
        "erasure-necessity",
        erasure_figure(arrays),
        caption="Rise of regret on easy states (across) and on hard ones (up) under each erasure, in units of what the "
        "network gains over the rule that imitates it best. On the dashed line both suffer alike; the line's value is "
        f"how far the regret's mark lies above the ringed null. Erased from layer "
        f"{int(arrays['layers'][int(arrays['first'])])} on.",
        alt="Regret on hard against easy states under each erasure",
        max_width=640,
    )


def erasure_figure(arrays: dict[str, np.ndarray]) -> go.Figure:
    """Change on hard states against change on easy ones; the concept stands out, the subtracted null is ringed."""
    names, hard, easy = arrays["arms"].tolist(), arrays["hard_change"], arrays["easy_change"]
    figure = new_figure(
        height=420,
        xaxis={"title": {"text": "rise of regret, easy states"}, "zeroline": True},
        yaxis={"title": {"text": "rise of regret, hard states"}, "zeroline": True},
    )
    ends = [float(min(hard.min(), easy.min(), 0.0)), float(max(hard.max(), easy.max(), 0.05))]
    figure.add_scatter(
        x=ends, y=ends, name="alike", mode="lines", line={"color": NULL_COLOUR, "dash": "dash"}, hoverinfo="skip"
    )
    model = method_style("model")
    groups = (
        ("regret", [_CONCEPT], {"color": model.colour, "symbol": model.symbol, "size": 13}),
        (
            "regret, first layer alone",
            [f"{_CONCEPT}, first layer alone"],
            {"color": model.colour, "symbol": "circle-open", "size": 11, "line": {"width": 2}},
        ),
        (
            "other concepts",
            [name for name in names if not name.startswith((_CONCEPT, "random"))],
            {"color": NULL_COLOUR, "symbol": "diamond-open", "size": 10, "line": {"width": 2}},
        ),
        (
            "random erasures",
            [name for name in names if name.startswith("random")],
            {"color": NULL_COLOUR, "symbol": "circle-open", "size": 8, "line": {"width": 1.5}},
        ),
        (
            "subtracted null",
            [str(arrays["reference"])],
            {"color": HIGHLIGHT, "symbol": "circle-open", "size": 19, "line": {"width": 3}},
        ),
    )
    for group, members, marker in groups:
        rows = [names.index(name) for name in members if name in names]
        if rows:
            figure.add_scatter(
                x=easy[rows],
                y=hard[rows],
                name=group,
                mode="markers",
                marker=marker,
                customdata=[label(names[row]) for row in rows],
                hovertemplate="%{customdata}: easy %{x:.3g}, hard %{y:.3g}<extra></extra>",
            )
    return figure


ERASURE_NECESSITY = Section(
    "erasure-necessity",
    "Erasing the regrets",
    "Whether the network needs what it linearly holds of its options' regrets, beyond rules, on states that rules "
    "cannot solve more than on easy ones. Null erasures take away as many dimensions: other objectives' regrets, "
    "control labels, random directions of the same variance.",
    "That regrets are needed does not show that a search computed them: a learnt value map would be hit as well. The "
    "line is blind to searchers that hold no regret linearly before the answer (compiled enumerators), and to those "
    "that are no better than rules on hard states.",
    line_summary("E8"),
    Figures(
        "E8",
        ("arms", "hard_change", "easy_change", "reference", "r2", "layers", "first"),
        erasure_section,
        line="E8",
    ),
)
