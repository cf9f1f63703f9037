"""What a verdict's reason code means (method.md section 7, amendments 1 and 12), and what would settle the case."""

import shlex
from dataclasses import dataclass
from typing import Any

_MORE = {"quick": "standard", "standard": "full"}
_AGAIN = "mesaprobe analyze {subject} --budget {budget}"
_LARGER = "mesaprobe zoo calibrate --budget {more} && mesaprobe analyze {subject} --budget {more}"
_LIST = "mesaprobe zoo list"


@dataclass(frozen=True)
class Reason:
    """One reason code in plain sentences."""

    meaning: str
    missing: str
    """What is missing for a verdict."""
    command: str
    """What to run next; see `command_for`."""


REASONS = {
    "NO_ZOO": Reason(
        "There is no calibrated zoo yet: no set of networks of known mechanism has gone through the same measurements, "
        "so no error rate exists and neither word can be earned, whatever the lines below show.",
        "A zoo of certified searchers, heuristics and decoys, calibrated under this protocol.",
        "mesaprobe zoo build && mesaprobe zoo calibrate --budget {budget} && " + _AGAIN,
    ),
    "LOW_POWER": Reason(
        "The measurement is too weak here: it would also miss too many of the zoo's searchers of this architecture "
        "at this level of performance, so a low score does not show that search is absent.",
        "More instances (a larger budget), or lines that detect at least 80% of comparable searchers (gate G7).",
        _LARGER,
    ),
    "OUT_OF_ZOO": Reason(
        "The zoo holds too few networks like this one (in architecture, size, performance or pattern of evidence), "
        "so its error rates do not carry over.",
        "Certified members of both classes that resemble this network (gates G2 and G3).",
        _LIST,
    ),
    "LINES_CONFLICT": Reason(
        "The lines of evidence contradict each other: some point to search and others against it.",
        "An explanation of the conflict, by a larger budget or by lines that separate the two readings.",
        _LARGER,
    ),
    "FUNCTION_ONLY": Reason(
        "What the network computes looks like search (lines E1 to E4), but no mechanism of search was found inside "
        "it (lines E7 to E9 are at their nulls); a good amortised approximation would look the same.",
        "A causal line (E7, E8 or E9) above all of its nulls, or the zoo's proof that such lines would have shown it.",
        _LARGER,
    ),
    "DECODABLE_NOT_USED": Reason(
        "Plans or values can be read from the activations (lines E5 and E6), but nothing shows that the network uses "
        "them (lines E7 to E9 are at their nulls).",
        "An intervention on the decoded plan or value that moves the choice as predicted (line E7).",
        _LARGER,
    ),
    "INCOMPETENT": Reason(
        "The network does not solve the task well enough for the question to have a meaning: fewer than 99% of its "
        "rollouts are legal, or its tours are no better than random legal ones (gate G1).",
        "A network that is trained further or on an easier problem.",
        "mesaprobe train --config {subject}/config.json --steps MORE --out {subject}-longer",
    ),
    "NEITHER": Reason(
        "The network resembles neither the searchers nor the heuristics of the zoo: both conformal p-values are at "
        "most 0.10.",
        "Zoo families that cover the mechanism that this network may have.",
        _LIST,
    ),
    "OTHER_PROTOCOL": Reason(
        "The zoo was calibrated under another protocol (other lines, thresholds or budget), so its error rates do "
        "not apply to these numbers.",
        "This analysis repeated under the zoo's protocol, or the zoo calibrated under this one.",
        "mesaprobe zoo calibrate --budget {budget} && " + _AGAIN,
    ),
    "INCOMPLETE": Reason(
        "Lines of evidence that the rule needs were not measured.",
        "The missing lines; see the table of evidence for the reason of each.",
        _AGAIN,
    ),
    "SMALL_ZOO": Reason(
        "The numbers would allow a word, but the zoo holds fewer than 10 certified families in one of the classes, and "
        "with so few no rate below 10% can be measured: only a leaning may be stated.",
        "More certified families of networks of known mechanism.",
        _LIST,
    ),
}


def command_for(report: dict[str, Any]) -> str | None:
    """The command that could change an inconclusive verdict, or that shows what is lacking; None with a verdict.

    >>> protocol, subject = {"budget": "quick"}, {"path": "trained_models/mine"}
    >>> command_for({"verdict": {"reason": "INCOMPLETE"}, "protocol": protocol, "subject": subject})
    'mesaprobe analyze trained_models/mine --budget quick'
    """
    reason, budget, path = report["verdict"]["reason"], report["protocol"]["budget"], report["subject"]["path"]
    if reason is None:
        return None
    more = _MORE.get(budget)
    template = REASONS[reason].command if more or REASONS[reason].command != _LARGER else _LIST
    return template.format(subject=shlex.quote(path) if path else "SUBJECT", budget=budget, more=more)
