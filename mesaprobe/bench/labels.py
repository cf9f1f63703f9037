"""All labels of decision states, and counterfactual pairs. No peer makes them: they stand beside the rate asked for."""

import statistics
import time

import numpy as np

from mesaprobe.bench.table import BENCHES, BenchRow, bench_row
from mesaprobe.problems import ProblemConfig, make_problem

STATES_ASKED = 2000.0
"""Decision states per second of processor time on one core, all labels, n = 10."""
PAIRS_ASKED = 500.0
"""Kept counterfactual pairs per second of processor time on one core, matrix, n = 8, no imitator."""


@BENCHES.register("labels_n10_matrix")
def labels_n10_matrix() -> BenchRow:
    """All families of labels of the decisions along optimal tours."""
    return _labels_row("matrix")


@BENCHES.register("labels_n10_asymmetric")
def labels_n10_asymmetric() -> BenchRow:
    """The same; branch and bound, whose trees are larger here, takes most of it."""
    return _labels_row("asymmetric")


@BENCHES.register("labels_n10_euclidean")
def labels_n10_euclidean() -> BenchRow:
    """The same."""
    return _labels_row("euclidean")


@BENCHES.register("pair_miner_matrix_n8")
def pair_miner_matrix_n8() -> BenchRow:
    """Pairs that the filters keep; the unit says how many of the states tried that is."""
    from mesaprobe.labels.pairs import mine_pairs

    problem = make_problem(ProblemConfig(n=8))
    mine_pairs(problem, 1, np.random.default_rng(0))  # compiles
    kept = tried = 0
    started = time.process_time()
    for seed in range(3):
        found = mine_pairs(problem, 1000, np.random.default_rng(seed)).found
        kept, tried = kept + found.kept, tried + found.tried
    rate = kept / (time.process_time() - started)
    unit = f"pairs/s (kept {kept / tried:.2%} of {tried:,} states)"
    return _asked_row("pair_miner_matrix_n8", rate, unit, PAIRS_ASKED)


def _labels_row(family: str) -> BenchRow:
    from mesaprobe.labels.throughput import states_per_second

    config = ProblemConfig(family, n=10)
    rate = statistics.median(states_per_second(config, seed=seed) for seed in range(5))
    return _asked_row(f"labels_n10_{family}", rate, "states/s", STATES_ASKED)


def _asked_row(name: str, rate: float, unit: str, asked: float) -> BenchRow:
    return bench_row(name, rate, unit, "the rate asked for, per second of processor time", asked, goal=1.0)
