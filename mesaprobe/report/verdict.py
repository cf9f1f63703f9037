"""The verdict box: one sentence with its error rate, or why there is none and what would change that."""

from typing import Any

import numpy as np

from mesaprobe.report.markup import Html, details, element, facts, join, paragraph
from mesaprobe.report.reasons import REASONS, command_for
from mesaprobe.report.wording import known, number, percent, sentence, text

Arrays = dict[str, np.ndarray]

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
_SUBJECTS = {"search": "heuristics", "heuristic": "searchers"}
"""Whom a wrong word of this kind would be about."""


def verdict_box(report: dict[str, Any], zoo: Arrays | None) -> Html:
    """The opening sentence, its two axes, and what stands behind it; `zoo` is figures/zoo.npz, if it was stored."""
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
        paragraph(opening_sentence(report, zoo), class_="opening"),
        _no_verdict(report, zoo) if label == "INCONCLUSIVE" else "",
        _axes(verdict),
        _numbers(verdict),
        paragraph(_CAVEAT, " ", scope, class_="caveat"),
        paragraph(_CUT, class_="caveat"),
        class_=f"verdict {label.lower()}",
    )


def opening_sentence(report: dict[str, Any], zoo: Arrays | None) -> str:
    """What may be said, with how often the same words are wrong about networks of known mechanism."""
    verdict = report["verdict"]
    label, leaning = verdict["label"], verdict["leaning"]
    version = f"zoo {text(verdict['zoo']['hash'])}"
    if label != "INCONCLUSIVE":
        word = label.lower()
        rate = _error_words(zoo, f"false_{word}", f"calls {{}} {word}", word)
        return f"{word.capitalize()}-like with respect to {version}: {rate}."
    if leaning:
        rate = _error_words(zoo, f"false_leaning_{leaning}", f"leans to {leaning} for {{}}", leaning)
        return f"No verdict; the evidence leans to {leaning} with respect to {version}, which is weaker: {rate}."
    return (
        f"No verdict: it cannot be said whether this network searches or runs heuristics ({text(verdict['reason'])})."
    )


def _error_words(zoo: Arrays | None, rate: str, verb: str, word: str) -> str:
    """E.g. `the rule calls 0 of 22 heuristics of other families search (at most 13% ...)`."""
    names = [] if zoo is None else zoo["rate_names"].tolist()
    if rate not in names:
        return "how often the rule is wrong so is not stored with this zoo (mesaprobe zoo table measures it)"
    assert zoo is not None
    row = names.index(rate)
    wrong, models = int(zoo["rate_wrong"][row]), int(zoo["rate_models"][row])
    bounds = (float(zoo[f"rate_{unit}_bound"][row]) for unit in ("models", "families"))
    by_model, by_family = (percent(bound) for bound in bounds)
    counted = f"{wrong} of {models} {_SUBJECTS[word]} of other families"
    return f"the rule {verb.format(counted)} (at most {by_model} of models, {by_family} of families, 95% bounds)"


def _no_verdict(report: dict[str, Any], zoo: Arrays | None) -> Html:
    """What was measured, why there is no verdict, and the command that would change it."""
    reason = report["verdict"]["reason"]
    parts = [paragraph(element("strong", "Measured. "), measured_words(report, zoo))]
    if reason:
        why = (element("strong", "Why no verdict. "), element("code", reason), ". ", REASONS[reason].meaning)
        parts.append(paragraph(*why))
        command = element("code", command_for(report), class_="command")
        parts.append(paragraph(element("strong", "What would change it. "), REASONS[reason].missing, " ", command))
    more = element("a", "Gates, thresholds and lines without a result", href="#change")
    return join([*parts, paragraph(more, class_="more")])


def measured_words(report: dict[str, Any], zoo: Arrays | None) -> str:
    """How good the tours are, how much of the evidence vector is there, and what of it stands out."""
    behaviour = report["behaviour"]
    words = (
        f"Tours {percent(behaviour['gap_mean'])} above the optimum on average, "
        f"{percent(behaviour['optimal_fraction'])} of them optimal ({number(behaviour['instances'])} instances)."
    )
    if zoo is None:
        given = [line["id"] for line in report["lines"] if line["status"] == "ok"]
        return f"{words} Lines of evidence with a result: {', '.join(given) or 'none'}."
    given = [name for name, value in zip(zoo["components"].tolist(), zoo["value"], strict=True) if known(float(value))]
    above = [name for name, out in zip(zoo["components"].tolist(), zoo["stands_out"], strict=True) if out]
    return (
        f"{words} {len(given)} of {len(zoo['components'])} components of the evidence have a value; above their nulls "
        f"at q = 0.05: {', '.join(above) or 'none'}."
    )


def _axes(verdict: dict[str, Any]) -> Html:
    """Search and objective are two questions; the kind is told where the evidence tells it."""
    objective = verdict["objective"]
    why = f" ({objective['why']})" if objective["why"] else ""
    search = {"SEARCH": "search-like", "HEURISTIC": "heuristic-like"}.get(verdict["label"], "not decided")
    if verdict["leaning"] and verdict["label"] == "INCONCLUSIVE":
        search += f", leaning to {verdict['leaning']}"
    pairs = [("search", search)]
    if verdict["kind"]:
        pairs.append(("kind, that of the most similar searcher", verdict["kind"]))
    pairs.append(("tour cost represented", f"{text(objective['status'])}{why}"))
    return facts(pairs)


def _numbers(verdict: dict[str, Any]) -> Html:
    zoo = verdict["zoo"]
    cap = verdict["log10_lr_cap"]
    capped = f" (capped at ±{number(cap)})" if known(cap) else ""
    members = f"{text(zoo['members'])} members of {text(zoo['families'])} families, hash {text(zoo['hash'])}"
    rates = {name.replace("_", " "): percent(value) for name, value in verdict["error_rates"].items()}
    pairs = [
        ("log10 likelihood ratio, search : heuristic", f"{number(verdict['log10_lr'])}{capped}"),
        ("conformal p under “heuristic”", number(verdict["conformal_p_under_heuristic"])),
        ("conformal p under “search”", number(verdict["conformal_p_under_search"])),
        *((f"error rate: {sentence(name).rstrip('.').lower()}", rate) for name, rate in rates.items()),
        ("zoo", members),
    ]
    return details("The numbers behind the label", facts(pairs))
