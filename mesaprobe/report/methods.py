"""How each component is measured and what it is held against (method.md section 5 with its amendments)."""

from dataclasses import dataclass
from typing import Any

from mesaprobe.report.components import QUESTIONS
from mesaprobe.report.markup import Html, element, join, table
from mesaprobe.report.wording import line_rank, number, text


@dataclass(frozen=True)
class Method:
    """One component in words."""

    measured: str
    controls: str
    blind: str
    """What it can't see, or what else would look the same."""


METHODS = {
    "E1": Method(
        "Likelihood of the choices under every algorithm of the library as a noisy policy, searchers against "
        "heuristics, on states that tell them apart.",
        "A noisy oracle on exact values; boosted trees that imitate this network.",
        "A nearly perfect network is fitted best by exact values whatever its mechanism.",
    ),
    "E2": Method(
        "Accuracy where look-ahead is needed (d* of 2 and more), beyond that of an imitator of this network; or, if "
        "larger, agreement with the network's own completions (E2b).",
        "The imitator's curve; margins matched across d*.",
        "A learned map from states to values scores high too.",
    ),
    "E3": Method(
        "Switches to the new optimum after a change that no heuristic reacts to, minus switches after a matched "
        "change that leaves the optimum alone.",
        "Irrelevant twins of equal size; sign flips by instance.",
        "Behaviour alone; it does not show the mechanism.",
    ),
    "E4": Method(
        "Whether choices react to far edges of the completions that were rejected.",
        "Edges of neither completion; completions of other instances.",
        "One-step rules give exactly 0; weak networks are judged by their own completions.",
    ),
    "E5": Method(
        "Probes for regrets, exact values and bounds, after inputs, outputs and entropy are taken out.",
        "Control task, swapped objective, random twins, labels shuffled over instances.",
        "That values can be read does not show that they are used.",
    ),
    "E6": Method(
        "Probes for edges of completions, at steps two and later; the rejected completion counts.",
        "As E5; tour-building rules hold the chosen plan honestly, so it does not count.",
        "That a plan can be read does not show that it is used.",
    ),
    "E7": Method(
        "A learned subspace is swapped between instances: does the choice follow the other instance's values? "
        "Or: do single units stand for whole tours (E7c)?",
        "Heuristic models aligned in the same way, control labels, random twin, random subspaces.",
        "Enumerators hold no value before the output; only E7c sees those.",
    ),
    "E8": Method(
        "Values and plans are erased: do hard states suffer more than easy ones?",
        "Erasures of equal rank and variance: control labels, swapped objective, random.",
        "Redundant codes repair themselves.",
    ),
    "E9": Method(
        "Tokens of cities two steps ahead are patched from another instance, against matched cities.",
        "Target and matched city swapped within instances; with and without tokens at the change.",
        "Shows where information flows, not what is computed.",
    ),
    "E10": Method(
        "Revisions from layer to layer, their causes, and what more compute brings.",
        "Random rewiring, split halves, easy states.",
        "Any residual network sharpens its answer with depth.",
    ),
}


def methods_table(report: dict[str, Any]) -> Html:
    """Measure, controls and blind spots of the ten components, then the nulls that this analysis used."""
    rows = [(name, QUESTIONS[name], method.measured, method.controls, method.blind) for name, method in METHODS.items()]
    head = ("component", "question", "what is measured", "held against", "what it can't tell")
    used = [
        (
            line["id"],
            ", ".join(name.replace("_", " ") for name in line["null"]) or "none",
            number(len(line["null"])),
            text(line["details"].get("instances")),
        )
        for line in sorted(report["lines"], key=lambda line: line_rank(line["id"]))
    ]
    parts = [table("The ten components", head, rows, words=(0, 1, 2, 3, 4), min_width=1000)]
    if used:
        heads = ("line", "nulls", "number of nulls", "instances")
        parts.append(element("h3", "Nulls of this analysis"))
        parts.append(table("Nulls measured beside each line", heads, used, words=(0, 1), min_width=500))
    return join(parts)
