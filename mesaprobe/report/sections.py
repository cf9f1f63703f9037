"""The sections of a report, in reading order, each with what it shows and what it does not."""

from mesaprobe.report.attention import attention_section
from mesaprobe.report.behaviour import behaviour_numbers, dstar_numbers, dstar_section, gaps_section
from mesaprobe.report.change import change_words, gates_table, thresholds_section
from mesaprobe.report.components import ARRAYS as ZOO_ARRAYS
from mesaprobe.report.components import components_section
from mesaprobe.report.evidence import evidence_table, reproducibility
from mesaprobe.report.explorer import ARRAYS as EXPLORER_ARRAYS
from mesaprobe.report.explorer import explorer_section
from mesaprobe.report.instances import instances_section
from mesaprobe.report.lines import LINE_SECTIONS
from mesaprobe.report.methods import methods_table
from mesaprobe.report.patching import patching_section
from mesaprobe.report.section import Figures, Section
from mesaprobe.report.training import training_section

SECTIONS = (
    Section(
        "components",
        "Ten components beside the zoo",
        "The value of every component of the evidence, with the networks of known mechanism that the rule is fitted "
        "to: searchers above the bar, heuristics below it.",
        "A bar tells something only by where it ends among the networks of the zoo; its length does not.",
        figures=Figures("zoo", ZOO_ARRAYS, components_section),
    ),
    Section(
        "change",
        "What would change the verdict",
        "What kept the rule from a word, or from the other word, and how near its thresholds are.",
        "A verdict that is reached by trying budgets and seeds has no error rate: choose them beforehand.",
        change_words,
        Figures("zoo", ZOO_ARRAYS, thresholds_section),
    ),
    Section(
        "gates",
        "Gates",
        "Conditions that keep the rule from being applied where it has no error rate.",
        "A passed gate is no evidence for search or against it.",
        gates_table,
    ),
    Section(
        "behaviour",
        "Behaviour: quality of the tours",
        "How far the model's tours (greedy decoding, visited cities masked) lie above the optimum, beside simple rules "
        "on the same instances.",
        "Good tours do not show search: a good approximation learned by heart looks the same from outside.",
        behaviour_numbers,
        Figures("gaps", ("methods", "gaps"), gaps_section),
    ),
    Section(
        "dstar",
        "Behaviour: accuracy by look-ahead need",
        "How often a decision is optimal, by d*: 0 where the nearest city is optimal, else the number of cities that "
        "must be enumerated ahead before the right one shows.",
        "A random legal choice is not the null here. Simple rules get most decisions right, so compare the model with "
        "the rules beside it; accuracy at d* = 0 says nothing. High accuracy at large d* is what look-ahead would "
        "give, but a learned map from states to values gives it too.",
        dstar_numbers,
        Figures("dstar", ("bins", "states", "methods", "accuracy", "low", "high"), dstar_section),
    ),
    *LINE_SECTIONS,
    Section(
        "explorer",
        "Instance explorer",
        "Every state of a few instances along the network's own tours: the candidates with their exact values, the "
        "network's probabilities, the cheapest ways on, what each layer would answer, and where its heads look.",
        "A few chosen examples: they help to understand a line of evidence and are none themselves.",
        figures=Figures("explorer", EXPLORER_ARRAYS, explorer_section),
    ),
    Section(
        "instances",
        "Instances with their tours",
        "Instances with the model's tour and the optimal one. Where only the wide pale line runs, the model missed an "
        "edge of the optimum.",
        "A few chosen examples, no sample to draw conclusions from.",
        figures=Figures(
            "instances",
            ("weights", "layout", "layout_kind", "stress", "methods", "tours", "costs"),
            instances_section,
        ),
    ),
    Section(
        "attention",
        "Attention",
        "Where the last decode token of one state looks, for every head.",
        "Attention describes: a head that looks at a city need not use what it reads there, and no line counts it as "
        "evidence.",
        figures=Figures(
            "attention",
            ("patterns", "weights", "layout", "layout_kind", "tour", "city_positions", "decode_positions"),
            attention_section,
        ),
    ),
    Section(
        "patching",
        "Patching: where a change travels",
        "Two instances that differ in one thing and lead to different choices. Each cell says how far the choice moves "
        "when the residual stream at one place is taken from the other instance.",
        "One pair shows where information flows in that pair, not what is computed there. A cell means something only "
        "where it stands out from the placebos.",
        figures=Figures(
            "patching",
            (
                *("effects", "identity", "irrelevant", "random", "layer_names", "locations"),
                *("clean_weights", "corrupt_weights", "changed", "layout", "layout_kind", "prefix"),
                *("clean_choice", "corrupt_choice", "clean_difference", "corrupt_difference"),
            ),
            patching_section,
        ),
    ),
    Section(
        "training",
        "Training",
        "Loss on the training stream and quality on held-out instances, as the training run stored them.",
        "How a skill grew does not tell which mechanism carries it.",
        figures=Figures(
            "training",
            ("instances_seen", "loss", "gap_mean", "optimal_fraction", "legal_fraction", "teacher_agreement"),
            training_section,
        ),
    ),
    Section(
        "evidence",
        "Lines of evidence",
        "Every line with its interval, its p-value and each of its nulls.",
        "A small p says that a signal is not zero in this network. How often such a signal comes with search, only the "
        "zoo can say.",
        evidence_table,
    ),
    Section(
        "methods",
        "Method and controls",
        "How each component is measured, what it is held against, and what it cannot tell.",
        "Controls guard against the errors that somebody thought of; the zoo's error rates are there for the others.",
        methods_table,
    ),
    Section(
        "reproducibility",
        "Reproducibility",
        "What is needed to get these numbers again: the same seed on the same machine gives the same report.",
        "Another budget or other lines make another protocol, and its numbers are not comparable with these.",
        reproducibility,
    ),
)
"""Order of the page; the header and the verdict come before the first of these."""
