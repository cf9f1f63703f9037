"""The pairs that the tests look at, mined once."""

import functools

import numpy as np

from mesaprobe.labels.pairs import MinedPairs, PairCriteria, mine_pairs
from mesaprobe.problems import ProblemConfig, make_problem

CASES = {
    "matrix 7": (ProblemConfig("matrix", 7), PairCriteria(protected=2), 60),
    "matrix 8": (ProblemConfig("matrix", 8), PairCriteria(), 200),
    "matrix 9": (ProblemConfig("matrix", 9), PairCriteria(), 60),
    "matrix 8, five levels": (ProblemConfig("matrix", 8, levels=5), PairCriteria(), 20),
    "asymmetric 7": (ProblemConfig("asymmetric", 7), PairCriteria(), 60),
    "euclidean 8": (ProblemConfig("euclidean", 8), PairCriteria(margin=0.01), 20),
}
"""Problem, criteria and number of pairs. On `euclidean`, pairs by a margin of 5 % are too rare for a quick test."""


@functools.cache
def mined(case: str) -> MinedPairs:
    config, criteria, count = CASES[case]
    return mine_pairs(make_problem(config), count, np.random.default_rng(0), criteria)
