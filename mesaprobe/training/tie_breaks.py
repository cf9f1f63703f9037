"""Ties broken at random: which of several equal weights a rule takes first should carry no meaning."""

import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.problems import Problem

LARGEST_SCALE = 4096


def with_ties_broken(
    weights: Int32[np.ndarray, "batch n n"], problem: Problem, rng: np.random.Generator
) -> Int64[np.ndarray, "batch n n"]:
    """S times the weights plus random whole numbers below S / (4 n): equal weights are ranked at random, and sums
    of up to 2 n weights keep their order where they differ. Symmetric problems stay symmetric.

    S is the largest power of two up to 4096 with which the weights still fit int32; weights so large that nothing
    fits between them (S < 8 n) come back scaled, with ties as they were.

    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> problem = make_problem(ProblemConfig(n=5))
    >>> weights = problem.draw(2, np.random.default_rng(0)).weights
    >>> broken = with_ties_broken(weights, problem, np.random.default_rng(1))
    >>> bool((broken // 4096 == weights).all()), bool((broken == broken.swapaxes(1, 2)).all())
    (True, True)
    """
    largest = int(weights.max(initial=0)) + 1
    scale = min(LARGEST_SCALE, 2 ** int(np.log2((2**31 - 1) / largest)))
    fractions = rng.integers(0, max(scale // (4 * problem.n), 1), size=weights.shape)
    if problem.symmetric:
        fractions = np.triu(fractions, 1)
        fractions = fractions + fractions.swapaxes(1, 2)
    off_diagonal = ~np.eye(weights.shape[1], dtype=bool)
    return scale * weights.astype(np.int64) + fractions * off_diagonal
