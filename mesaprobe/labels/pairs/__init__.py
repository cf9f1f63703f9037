"""Counterfactual pairs: edits far from a state that move the optimum and no heuristic (method.md section 5, E3).

>>> import numpy as np
>>> from mesaprobe.problems import ProblemConfig, make_problem
>>> mined = mine_pairs(make_problem(ProblemConfig(n=8)), 20, np.random.default_rng(0))
>>> check_pairs(mined.pairs)
>>> bool((mined.pairs.margins > 0.05).all()), mined.found.kept_fraction < 0.05
(True, True)
"""

from mesaprobe.labels.pairs.checks import check_pairs
from mesaprobe.labels.pairs.closed_form import edited_action_values
from mesaprobe.labels.pairs.criteria import PairCriteria
from mesaprobe.labels.pairs.features import EDIT_FEATURE_NAMES, EditedOrNatural, edit_features, edited_or_natural
from mesaprobe.labels.pairs.invisible import Imitator
from mesaprobe.labels.pairs.mining import mine_pairs
from mesaprobe.labels.pairs.pairs import CounterfactualPairs, MinedPairs, PairYield

__all__ = [
    "EDIT_FEATURE_NAMES",
    "CounterfactualPairs",
    "EditedOrNatural",
    "Imitator",
    "MinedPairs",
    "PairCriteria",
    "PairYield",
    "check_pairs",
    "edit_features",
    "edited_action_values",
    "edited_or_natural",
    "mine_pairs",
]
