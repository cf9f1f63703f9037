"""What would change the verdict: the nearest threshold, gates that did not pass, lines without a result."""

from typing import Any

import numpy as np

from mesaprobe.report.components import score_strip
from mesaprobe.report.markup import Html, element, join, paragraph, table
from mesaprobe.report.reasons import REASONS, command_for
from mesaprobe.report.wording import NOT_KNOWN, known, number, sentence

Arrays = dict[str, np.ndarray]

_PASSED = {True: "✓\N{NO-BREAK SPACE}passed", False: "✗\N{NO-BREAK SPACE}failed", None: NOT_KNOWN}


_ASKED = {"G1": "both", "G2": "both", "G3": "both", "G4": "SEARCH", "G5": "SEARCH", "G6": "SEARCH", "G7": "HEURISTIC"}
"""Which word a gate guards (method.md 7.5)."""


def change_words(report: dict[str, Any]) -> Html:
    """What is missing by the reason, by the gates and by the lines, from report.json alone."""
    reason = report["verdict"]["reason"]
    items = []
    if reason:
        command = element("code", command_for(report), class_="command")
        items.append(element("li", REASONS[reason].missing, " ", command))
    for word, state in (("failed", False), ("not known", None)):
        for gate in (gate for gate in report["gates"] if gate["passed"] is state):
            why = sentence(gate["why"])
            guards = f" (asked for {_ASKED.get(gate['id'], 'both')})"
            head = element("strong", f"Gate {gate['id']} {word}: ")
            items.append(element("li", head, f"{gate['name']}{guards}. {why}"))
    for line in (line for line in report["lines"] if line["status"] != "ok"):
        why = sentence(line["reason"] or "no reason was stored")
        items.append(element("li", element("strong", f"Line {line['id']} without a result: "), why))
    if not items:
        return paragraph("Every gate passed and every line gave a result.")
    return element("ul", *items, class_="reasons")


def thresholds_section(arrays: Arrays) -> Html:
    """The score among the zoo's, and how far it is from each threshold of the rule; the nearest first."""
    score = float(arrays["score"])
    if not known(score):
        return paragraph("There is no score: the zoo is not calibrated for this problem and budget.", class_="absent")
    rows = []
    for word, against, key, above in (
        ("SEARCH", "heuristic", "search_above", True),
        ("HEURISTIC", "search", "heuristic_below", False),
    ):
        limit = float(arrays[key])
        if not known(limit):
            left = "no score is enough: too few families"
        elif (score > limit) if above else (score < limit):
            left = "reached"
        else:
            left = f"{number(abs(limit - score))} {'below' if above else 'above'} it"
        condition = f"p under “{against}” at most {number(float(arrays['alpha']))}"
        side = "above" if above else "below"
        rows.append((abs(limit - score) if known(limit) else np.inf, (word, condition, side, number(limit), left)))
    rows.sort(key=lambda row: row[0])
    head = ("word", "asks, besides its gates", "score", "threshold", "this network")
    caption = f"Thresholds of the rule; this network's score is {number(score)}"
    return join(
        [
            score_strip(arrays),
            table(caption, head, [row for _, row in rows], words=(0, 1, 2, 4)),
            _pulls(arrays),
        ]
    )


def _pulls(arrays: Arrays) -> Html:
    """Which components carry the score: weight times rank."""
    shares = arrays["weights"] * arrays["vector"]
    order = [int(i) for i in np.argsort(-np.abs(shares)) if known(float(shares[i])) and abs(shares[i]) > 0]
    if not order:
        return Html()
    words = ", ".join(f"{arrays['components'][i]} {'+' if shares[i] > 0 else ''}{number(shares[i])}" for i in order[:5])
    return paragraph(
        f"What carries the score (weight times rank within the zoo; above 0 speaks for search): {words}.",
        class_="caption",
    )


def gates_table(report: dict[str, Any]) -> Html:
    """Every gate with its state and why."""
    if not report["gates"]:
        return paragraph("No gate was evaluated.")
    rows = [
        (gate["id"], gate["name"], _ASKED.get(gate["id"], "both"), _PASSED[gate["passed"]], sentence(gate["why"]))
        for gate in report["gates"]
    ]
    return table(
        "Gates: conditions that must hold before a label may be given",
        ("gate", "name", "asked for", "state", "why"),
        rows,
        words=(0, 1, 2, 3, 4),
        min_width=600,
    )
