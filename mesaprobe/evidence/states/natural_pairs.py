"""Natural pairs: two instances, each as likely as any other, that differ in one far entry (method.md, amendment 8).

One far entry of a drawn instance is drawn again. Nothing was selected, so both instances are natural, and what a
subject does on such pairs can't be due to an edit that looks odd. Changes of the size of the mined edits are kept.
"""

import functools
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from mesaprobe.evidence.protocol import SETS
from mesaprobe.evidence.states.pairs import label_cache
from mesaprobe.instruments.patching import Run
from mesaprobe.labels.cache import cached_arrays
from mesaprobe.labels.pairs import PairCriteria
from mesaprobe.labels.pairs.states import far_cities, state_optimum
from mesaprobe.problems import Instances, Problem, ProblemConfig, make_problem
from mesaprobe.solvers.exact.held_karp import optimal_rollouts


@dataclass(frozen=True, eq=False)
class NaturalPairs:
    """Pairs of instances at decisions on an optimal tour of the first, both decided by the margin."""

    first: Instances
    second: Instances
    prefixes: Int64[np.ndarray, "pairs n"]
    lengths: Int64[np.ndarray, " pairs"]
    sizes: Float64[np.ndarray, " pairs"]
    """New minus old value of the entry, in weight units."""
    old_optimal: Bool[np.ndarray, "pairs n"]
    new_optimal: Bool[np.ndarray, "pairs n"]

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: np.ndarray) -> "NaturalPairs":
        return NaturalPairs(*(getattr(self, name)[index] for name in ("first", "second", *_COLUMNS)))

    @property
    def moved(self) -> Bool[np.ndarray, " pairs"]:
        """Whether no optimal city of the first is optimal on the second."""
        return ~(self.old_optimal & self.new_optimal).any(axis=1)

    @property
    def runs(self) -> tuple[Run, Run]:
        """The runs of both."""
        prefixes, lengths = torch.from_numpy(self.prefixes), torch.from_numpy(self.lengths)
        first, second = (
            Run(torch.from_numpy(member.features), prefixes, lengths) for member in (self.first, self.second)
        )
        return first, second


_COLUMNS = ("prefixes", "lengths", "sizes", "old_optimal", "new_optimal")


def natural_pairs(problem: Problem, draws: int, seed: int, criteria: PairCriteria | None = None) -> NaturalPairs:
    """What is decided by the margin of `draws` pairs; for families whose entries are independent (not `planar`)."""
    return _natural_pairs(problem.config, draws, seed, criteria or PairCriteria())


@functools.lru_cache(maxsize=8)
def _natural_pairs(config: ProblemConfig, draws: int, seed: int, criteria: PairCriteria) -> NaturalPairs:
    problem = make_problem(config)
    request = {"natural_pairs": draws, "problem": asdict(config), "criteria": asdict(criteria), "seed": seed}
    arrays = cached_arrays(label_cache(), request, lambda: _draw(problem, draws, seed, criteria))
    first, second = (Instances(problem, arrays[name]) for name in ("first", "second"))
    return NaturalPairs(first, second, *(arrays[name] for name in _COLUMNS))


def _draw(problem: Problem, draws: int, seed: int, criteria: PairCriteria) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, 1000 + SETS.index("pairs_test"), 1])
    instances = problem.draw(draws, rng)
    weights, n, rows = instances.weights, problem.n, np.arange(draws)
    lengths = rng.choice(criteria.lengths(problem), size=draws)
    start = np.zeros((draws, n), dtype=np.int64)
    tours = optimal_rollouts(weights, start, np.ones(draws, dtype=np.int64), rng.random((draws, n))).tours
    prefixes = np.where(np.arange(n) < lengths[:, None], tours, 0)
    far = far_cities(weights, prefixes, lengths, criteria.protected)
    order = np.argsort(np.where(far, rng.random((draws, n)), 2.0), axis=1)
    u, v = order[:, 0], order[:, 1]
    values = rng.integers(1, problem.config.levels + 1, size=draws).astype(np.int32)
    second = weights.copy()
    second[rows, u, v] = values
    if problem.symmetric:
        second[rows, v, u] = values
    before, after = (state_optimum(w, prefixes, lengths) for w in (weights, second))
    kept = (far.sum(axis=1) >= 2) & (before.margins > criteria.margin) & (after.margins > criteria.margin)
    found = {
        "first": weights,
        "second": second,
        "prefixes": prefixes,
        "lengths": lengths,
        "sizes": (values - weights[rows, u, v]).astype(np.float64),
        "old_optimal": before.optimal,
        "new_optimal": after.optimal,
    }
    return {name: array[kept] for name, array in found.items()}
