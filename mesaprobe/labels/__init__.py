"""What may be asked of a state: exact values, look-ahead need, hardness."""

from mesaprobe.labels.hardness import FilteredDraw, GreedyFails, draw_filtered, optimality_gaps
from mesaprobe.labels.horizon import lookahead_needs
from mesaprobe.labels.values import (
    MIN_CITIES_LEFT,
    decision_steps,
    optimal_actions,
    regrets,
    state_values,
)

__all__ = [
    "MIN_CITIES_LEFT",
    "FilteredDraw",
    "GreedyFails",
    "decision_steps",
    "draw_filtered",
    "lookahead_needs",
    "optimal_actions",
    "optimality_gaps",
    "regrets",
    "state_values",
]
