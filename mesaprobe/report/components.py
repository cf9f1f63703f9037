"""The ten components of the evidence vector, each beside the zoo's networks, and the score that they add up to."""

from typing import Any

import numpy as np

from mesaprobe.report.markup import Html, details, element, join, paragraph, table
from mesaprobe.report.strips import Lane, Mark, key, strip
from mesaprobe.report.wording import NOT_KNOWN, known, number, number_interval

Arrays = dict[str, np.ndarray]

ARRAYS = (
    *("components", "lines", "value", "low", "high", "p", "stands_out", "names", "families", "is_search"),
    *("member_values", "member_scores", "score", "weights", "vector", "search_above", "heuristic_below"),
    *("alpha", "families_asked", "rate_names", "rate_wrong", "rate_models", "rate_models_bound"),
    "rate_families_bound",
)
"""What figures/zoo.npz must hold."""

QUESTIONS = {
    "E1": "Which algorithm explains the choices?",
    "E2": "Accuracy as look-ahead need grows",
    "E3": "Changes that no heuristic sees",
    "E4": "Sensitivity to rejected completions",
    "E5": "Values and bounds, decoded",
    "E6": "Rejected plans, decoded",
    "E7": "Interchange of values and plans",
    "E8": "Erasure: is it needed?",
    "E9": "Information from future cities",
    "E10": "Revision and compute scaling",
}
"""A component in a few words (method.md section 5)."""

KEY = (
    ("circle", "search", "searchers of the zoo"),
    ("bar", "subject", "this network, 95% interval"),
    ("square", "heuristic", "heuristics of the zoo"),
)


def components_section(arrays: Arrays) -> Html:
    """Ten strips, then the same in numbers."""
    count = {True: 0, False: 0} | {bool(s): int((arrays["is_search"] == s).sum()) for s in (True, False)}
    note = (
        f"{count[True]} searchers and {count[False]} heuristics stand behind the bars; decoys and disguised members "
        "are left out, as in the fit. Every component has its own scale."
        if sum(count.values())
        else "No network of known mechanism stands behind the bars yet, so a long bar has nothing to be compared with. "
        "Every component has its own scale."
    )
    rows = (_row(arrays, index) for index in range(len(arrays["components"])))
    return join(
        [
            key(KEY if sum(count.values()) else KEY[1:2]),
            element("div", *rows, class_="strips"),
            paragraph(note, class_="caption"),
            details("The ten components in numbers", _numbers(arrays)),
        ]
    )


def _row(arrays: Arrays, index: int) -> Html:
    name, value = str(arrays["components"][index]), float(arrays["value"][index])
    lines = str(arrays["lines"][index])
    question = QUESTIONS.get(name, f"lines {lines}")
    ends = (float(arrays["low"][index]), float(arrays["high"][index]))
    words = f"{name}: this network {number(value)}, 95% interval {number_interval(ends)}"
    lanes = [
        Lane("search", members_of_zoo(arrays, index, search=True), "circle", 16),
        Lane("subject", [Mark(value, words, *ends)], "bar", 20),
        Lane("heuristic", members_of_zoo(arrays, index, search=False), "square", 16),
    ]
    known_members = any(lane.marks for lane in (lanes[0], lanes[2]))
    drawn = known(value) or known_members
    return element(
        "div",
        element("div", element("strong", name), " ", question, class_="strip-name"),
        strip(lanes, label=f"{words}; {_range_words(lanes)}") if drawn else element("span", class_="strip"),
        element("div", *_value_words(arrays, index), class_="strip-value"),
        class_="strip-row",
    )


def members_of_zoo(arrays: Arrays, index: int, *, search: bool) -> list[Mark]:
    """The values that one class of the zoo has in the component of this index."""
    return [
        Mark(float(value), f"{name}: {number(float(value))}")
        for name, value, its in zip(
            arrays["names"].tolist(), arrays["member_values"][:, index], arrays["is_search"], strict=True
        )
        if bool(its) is search and known(float(value))
    ]


def _range_words(lanes: list[Lane]) -> str:
    parts = []
    for lane in lanes:
        values = [mark.value for mark in lane.marks]
        if lane.kind != "subject" and values:
            kind = "searchers" if lane.kind == "search" else "heuristics"
            parts.append(f"{kind} {number(min(values))} to {number(max(values))}")
    return "; ".join(parts) or "no networks of the zoo"


def _value_words(arrays: Arrays, index: int) -> list[Html]:
    value = float(arrays["value"][index])
    if not known(value):
        return [element("span", "no value", class_="unknown")]
    state = "above its nulls" if arrays["stands_out"][index] else "at its nulls"
    return [element("strong", number(value)), element("span", state, class_="quiet")]


def _numbers(arrays: Arrays) -> Html:
    rows = []
    for index, name in enumerate(arrays["components"].tolist()):
        middle = [_median(arrays, index, search=search) for search in (True, False)]
        rows.append(
            (
                name,
                QUESTIONS.get(name, ""),
                str(arrays["lines"][index]),
                number(float(arrays["value"][index])),
                number_interval((float(arrays["low"][index]), float(arrays["high"][index]))),
                number(float(arrays["p"][index])),
                *middle,
                number(float(arrays["weights"][index])),
            )
        )
    figures = ("value", "95% interval", "p", "searchers, median", "heuristics, median", "weight in the score")
    head = ("component", "question", "lines", *figures)
    return table("Components of the evidence vector", head, rows, words=(0, 1, 2), min_width=900)


def _median(arrays: Arrays, index: int, *, search: bool) -> str:
    values = arrays["member_values"][arrays["is_search"] == search, index]
    values = values[np.isfinite(values)]
    return number(float(np.median(values))) if len(values) else NOT_KNOWN


def score_strip(arrays: Arrays) -> Html:
    """The score among the zoo's held-out scores, with the thresholds of the rule."""
    score, scores = float(arrays["score"]), arrays["member_scores"]
    if not known(score):
        return Html()
    lanes = [_score_lane(arrays, "search", "circle", search=True)]
    lanes.append(Lane("subject", [Mark(score, f"this network: {number(score)}")], "bar", 20))
    lanes.append(_score_lane(arrays, "heuristic", "square", search=False))
    limits = ((float(arrays["search_above"]), "search"), (float(arrays["heuristic_below"]), "heuristic"))
    label = f"Score {number(score)} among {len(scores)} networks of the zoo, each scored without its own family"
    return element(
        "figure",
        key((*KEY[:1], ("bar", "subject", "this network"), KEY[2])),
        strip(lanes, label=label, limits=limits),
        element(
            "figcaption",
            f"{label}. Right of the blue dashed line a score is rare enough among heuristics for SEARCH; left of the "
            "orange one it is rare enough among searchers for HEURISTIC; where both hold, neither word is said.",
        ),
    )


def _score_lane(arrays: Arrays, kind: str, shape: Any, *, search: bool) -> Lane:
    chosen = arrays["is_search"] == search
    marks = [
        Mark(float(score), f"{name}: {number(float(score))}")
        for name, score in zip(arrays["names"][chosen].tolist(), arrays["member_scores"][chosen], strict=True)
    ]
    return Lane(kind, marks, shape, 16)
