"""The instance explorer: one state at a time, with everything that is known of its candidates.

Python writes the inputs, the empty tables and the data; explorer.js fills them for the state that is chosen.
"""

import json
from importlib.resources import files
from typing import Any

import numpy as np

from mesaprobe.report.drawing import layout_note, to_unit_square
from mesaprobe.report.markup import Html, element, join, paragraph

Arrays = dict[str, np.ndarray]

ARRAYS = (
    *("weights", "layout", "layout_kind", "stress", "tours", "is_decision", "values", "probabilities"),
    "completions",
)
"""What figures/explorer.npz must hold; `lens` and `attention` may be absent."""


def script() -> str:
    """The explorer's part of the page's script."""
    return files("mesaprobe.report").joinpath("explorer.js").read_text(encoding="utf-8")


def explorer_section(arrays: Arrays) -> Html:
    """Inputs, drawing, candidates, lens and attention of one state, and the data of all of them."""
    # `<` can't end the script element: json knows it as \\u003c too.
    data = json.dumps(explorer_data(arrays), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = [
        _inputs(arrays),
        element("p", class_="state-words", aria_live="polite", data_part="words"),
        element("div", _drawing(), _candidates(), class_="pair"),
        _lens("lens" in arrays),
        _attention("attention" in arrays),
        element("script", Html(data), type="application/json", data_part="data"),
    ]
    return element("div", *parts, class_="explorer", id="explorer-app")


def explorer_data(arrays: Arrays) -> dict[str, Any]:
    """All states as plain lists; probabilities and weights of attention in thousandths, unknown values null."""
    count, steps = arrays["values"].shape[:2]
    return {
        "decisions": arrays["is_decision"].tolist(),
        "layers": _layer_names(arrays),
        "instances": [
            {
                "points": np.round(to_unit_square(arrays["layout"][i]), 3).tolist(),
                "weights": arrays["weights"][i].tolist(),
                "tour": arrays["tours"][i].tolist(),
                "note": layout_note(str(arrays["layout_kind"]), float(arrays["stress"][i])),
                "states": [_state(arrays, i, s) for s in range(steps)],
            }
            for i in range(count)
        ],
    }


def _state(arrays: Arrays, i: int, s: int) -> dict[str, Any]:
    values = arrays["values"][i, s]
    state: dict[str, Any] = {
        "values": [float(value) if np.isfinite(value) else None for value in values],
        "probabilities": _thousandths(arrays["probabilities"][i, s]),
        "completions": [
            tour.tolist() if np.isfinite(value) else None
            for tour, value in zip(arrays["completions"][i, s], values, strict=True)
        ],
    }
    if "lens" in arrays:
        state["lens"] = _thousandths(arrays["lens"][:, i, s])
    if "attention" in arrays:
        state["attention"] = _thousandths(arrays["attention"][i, s])
    return state


def _thousandths(shares: np.ndarray) -> list[Any]:
    return np.round(1000 * shares.astype(np.float64)).astype(int).tolist()


def _layer_names(arrays: Arrays) -> list[str]:
    layers = len(arrays["lens"]) - 1 if "lens" in arrays else 0
    return ["input", *(f"after layer {layer}" for layer in range(layers))] if layers else []


def _inputs(arrays: Arrays) -> Html:
    count, steps = arrays["values"].shape[:2]
    instances = [(str(i), f"{i + 1} of {count}") for i in range(count)]
    first = int(np.argmax(arrays["is_decision"]))
    numbers = [
        (str(s), f"{s + 1} of {steps}" + ("" if arrays["is_decision"][s] else " (no decision)")) for s in range(steps)
    ]
    inputs = [
        _select("instance", "Instance", instances, 0),
        element("button", "◀ step", type="button", data_part="back", aria_label="Previous step"),
        _select("step", "Step", numbers, first),
        element("button", "step ▶", type="button", data_part="on", aria_label="Next step"),
    ]
    if "attention" in arrays:
        layers, heads = arrays["attention"].shape[2:4]
        choices = [("", "not drawn")] + [
            (f"{layer}.{head}", f"layer {layer}, head {head}") for layer in range(layers) for head in range(heads)
        ]
        inputs.append(_select("attention-of", "Attention on the drawing", choices, 0))
    return element("fieldset", element("legend", "State"), *inputs, class_="controls")


def _select(part: str, title: str, options: list[tuple[str, str]], chosen: int) -> Html:
    choices = (
        element("option", words, value=value, selected=index == chosen) for index, (value, words) in enumerate(options)
    )
    return element("label", title, " ", element("select", *choices, data_part=part))


def _drawing() -> Html:
    swatches = (
        ("tour", "tour so far"),
        ("chosen", "cheapest way on after the network's choice"),
        ("other", "the same after the compared city"),
    )
    legend = (
        element("span", element("span", class_=f"swatch {kind}"), words, class_="entry") for kind, words in swatches
    )
    return element(
        "figure",
        element("div", class_="state-drawing", data_part="drawing"),
        element("figcaption", element("span", *legend, class_="strip-key"), element("span", data_part="note")),
    )


def _candidates() -> Html:
    head = ("compare", "city", "distance", "Q*", "regret", "probability")
    cells = (element("th", words, scope="col", class_="words" if words == "city" else "number") for words in head)
    body = element("tbody", data_part="candidates")
    caption = "Candidates: exact cost of the cheapest way on through each (Q*), and the network's probability"
    grid = element("table", element("caption", caption), element("thead", element("tr", *cells)), body)
    return element("div", _scrolling(grid, "Candidates"), element("p", class_="caption", data_part="rest"))


def _lens(there: bool) -> Html:
    title = element("h3", "What each layer would answer (logit lens)")
    if not there:
        words = "This network has no residual stream with a final norm and an unembedding to look through."
        return join([title, paragraph(words, class_="absent")])
    grid = element(
        "table",
        element("caption", "Probability of the next city", data_part="lens-caption"),
        element("thead", data_part="lens-head"),
        element("tbody", data_part="lens"),
        class_="heat",
    )
    note = paragraph(
        "Any residual network sharpens its answer with depth, so a changing answer is no sign of search by itself.",
        class_="caption",
    )
    return join([title, _scrolling(grid, "Logit lens"), note])


def _attention(there: bool) -> Html:
    title = element("h3", "Attention to the cities at this step")
    if not there:
        return join([title, paragraph("This network has no attention patterns to read.", class_="absent")])
    grid = element(
        "table",
        element("caption", "From the token that answers to each city's instance token"),
        element("thead", data_part="attention-head"),
        element("tbody", data_part="attention"),
        class_="heat",
    )
    return join([title, _scrolling(grid, "Attention to the cities")])


def _scrolling(grid: Html, name: str) -> Html:
    return element("div", grid, class_="scroll", tabindex=0, role="region", aria_label=name)
