"""What may be asked of a state: exact values, plans, bounds, look-ahead need; of an instance: how hard it is.

>>> import numpy as np
>>> from mesaprobe.problems import ProblemConfig, make_problem
>>> from mesaprobe.solvers import ALGORITHMS
>>> instances = make_problem(ProblemConfig(n=8)).draw(100, np.random.default_rng(0))
>>> labels = label_decisions(instances, ALGORITHMS["nearest_neighbour"](instances.weights))
>>> bool((labels.values.state_values[:, :, None] >= labels.bounds.bounds).all())
True
"""

from mesaprobe.labels.best_tours import BestTours, best_tours
from mesaprobe.labels.completions import CompletionLabels, completion_labels
from mesaprobe.labels.decision_labels import DecisionLabels, label_decisions
from mesaprobe.labels.difficulty import InstanceDifficulty, instance_difficulty
from mesaprobe.labels.evaluation_sets import EvaluationSet, EvaluationSetConfig, evaluation_set
from mesaprobe.labels.hardness import FilteredDraw, GreedyFails, draw_filtered, optimality_gaps
from mesaprobe.labels.horizon import lookahead_needs
from mesaprobe.labels.near_optimal import near_optimal_counts
from mesaprobe.labels.objectives import OBJECTIVES, Objective, mirrored_weights, objective_values
from mesaprobe.labels.state_bounds import BoundLabels, bound_labels
from mesaprobe.labels.tiers import TIERS, instance_tiers
from mesaprobe.labels.ties import TieShares, tie_table
from mesaprobe.labels.values import (
    MIN_CITIES_LEFT,
    ValueLabels,
    decision_margins,
    decision_steps,
    optimal_actions,
    regrets,
    relative_margins,
    runner_up_actions,
    state_values,
    value_labels,
)

__all__ = [
    "MIN_CITIES_LEFT",
    "OBJECTIVES",
    "TIERS",
    "BestTours",
    "BoundLabels",
    "CompletionLabels",
    "DecisionLabels",
    "EvaluationSet",
    "EvaluationSetConfig",
    "FilteredDraw",
    "GreedyFails",
    "InstanceDifficulty",
    "Objective",
    "TieShares",
    "ValueLabels",
    "best_tours",
    "bound_labels",
    "completion_labels",
    "decision_margins",
    "decision_steps",
    "draw_filtered",
    "evaluation_set",
    "instance_difficulty",
    "instance_tiers",
    "label_decisions",
    "lookahead_needs",
    "mirrored_weights",
    "near_optimal_counts",
    "objective_values",
    "optimal_actions",
    "optimality_gaps",
    "regrets",
    "relative_margins",
    "runner_up_actions",
    "state_values",
    "tie_table",
    "value_labels",
]
