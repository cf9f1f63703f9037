"""The verdict box and the table of gates."""

from typing import Any

from mesaprobe.report.markup import Html, details, element, facts, join, paragraph, table
from mesaprobe.report.reasons import REASONS
from mesaprobe.report.wording import NOT_KNOWN, known, number, sentence, text

_CAVEAT = (
    "The strongest word of this instrument is “search-like with respect to a zoo of networks of known mechanism”, "
    "never “is a mesa-optimizer”. It asks whether the network contains an inner optimiser, aligned or not; it does "
    "not ask what goal that would have."
)
_CUT = (
    "By convention memory, one-step rules (also the arg-min over distances) and constructive rules count as "
    "heuristics; look-ahead, local search and dynamic programming inside the network count as search."
)
_LABELS = {
    "SEARCH": "search-like with respect to this zoo",
    "HEURISTIC": "heuristic-like with respect to this zoo",
    "INCONCLUSIVE": "the evidence does not decide",
}
_PASSED = {True: "✓\N{NO-BREAK SPACE}passed", False: "✗\N{NO-BREAK SPACE}failed", None: NOT_KNOWN}


def verdict_box(report: dict[str, Any]) -> Html:
    """Label, reason in plain words, what is missing, and the numbers behind the label."""
    verdict, problem = report["verdict"], report["subject"]["problem"]
    label = verdict["label"]
    scope = f"Valid for the family {text(problem['family'])} with n = {text(problem['n'])} only."
    return element(
        "div",
        paragraph(
            element("strong", label, class_="label"),
            " ",
            element("span", _LABELS[label]),
            class_="verdict-label",
        ),
        _reason(verdict),
        _missing(report),
        _numbers(verdict),
        paragraph(_CAVEAT, " ", scope, class_="caveat"),
        paragraph(_CUT, class_="caveat"),
        class_=f"verdict {label.lower()}",
    )


def _reason(verdict: dict[str, Any]) -> Html:
    parts = []
    if verdict["leaning"]:
        parts.append(paragraph(element("strong", "Leaning: "), verdict["leaning"], " (a leaning is no verdict)."))
    if verdict["reason"]:
        code = element("code", verdict["reason"])
        parts.append(paragraph(element("strong", "Reason "), code, ". ", REASONS[verdict["reason"]].meaning))
    return join(parts)


def _missing(report: dict[str, Any]) -> Html:
    """What would have to be there for a verdict: by the reason, by the gates, by the lines."""
    verdict = report["verdict"]
    if verdict["label"] != "INCONCLUSIVE":
        return Html()
    items = [REASONS[verdict["reason"]].missing] if verdict["reason"] else []
    for word, state in (("failed", False), ("not known", None)):
        names = [gate["id"] for gate in report["gates"] if gate["passed"] is state]
        if names:
            items.append(f"Gates {word}: {', '.join(names)}.")
    silent = [f"{line['id']} ({line['status']})" for line in report["lines"] if line["status"] != "ok"]
    if silent:
        items.append(f"Lines without a result: {', '.join(silent)}.")
    return join(
        [paragraph(element("strong", "Missing for a verdict")), element("ul", *(element("li", i) for i in items))]
    )


def _numbers(verdict: dict[str, Any]) -> Html:
    zoo, objective = verdict["zoo"], verdict["objective"]
    cap = verdict["log10_lr_cap"]
    capped = f" (capped at ±{number(cap)})" if known(cap) else ""
    why = f" ({objective['why']})" if objective["why"] else ""
    members = f"{text(zoo['members'])} members of {text(zoo['families'])} families, hash {text(zoo['hash'])}"
    pairs = [
        ("log10 likelihood ratio, search : heuristic", f"{number(verdict['log10_lr'])}{capped}"),
        ("conformal p under “heuristic”", number(verdict["conformal_p_under_heuristic"])),
        ("conformal p under “search”", number(verdict["conformal_p_under_search"])),
        ("kind of search", text(verdict["kind"])),
        ("objective", f"{text(objective['status'])}{why}"),
        ("error rates", text(verdict["error_rates"])),
        ("zoo", members),
    ]
    return details("The numbers behind the label", facts(pairs))


def gates_table(report: dict[str, Any]) -> Html:
    """Every gate with its state and why."""
    if not report["gates"]:
        return paragraph("No gate was evaluated.")
    rows = [(gate["id"], gate["name"], _PASSED[gate["passed"]], sentence(gate["why"])) for gate in report["gates"]]
    return table(
        "Gates: conditions that must hold before a label may be given",
        ("gate", "name", "state", "why"),
        rows,
        words=(0, 1, 2, 3),
        min_width=600,
    )
