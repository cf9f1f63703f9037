"""Pairs of instances between which one high-level model changes its choice and its rivals do not.

For a search the source instance differs from the base in one entry that does not touch the current city, and no
heuristic notices; for a heuristic it differs in any one entry, and the search does not notice. So each model has pairs
on which it predicts a change that the other one denies.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from mesaprobe.evidence.protocol import SETS
from mesaprobe.evidence.states.causal_models import CausalModel, Rule, cheapest
from mesaprobe.evidence.states.pairs import PairSet, SubjectPairs, label_cache
from mesaprobe.instruments.patching import Run
from mesaprobe.labels.cache import cached_arrays
from mesaprobe.labels.pairs.edits import change_entries
from mesaprobe.labels.pairs.states import free_cities, optimum_of, prefix_costs
from mesaprobe.labels.values import decision_steps
from mesaprobe.problems import Instances, Problem
from mesaprobe.solvers.exact.held_karp import optimal_rollouts

STATES_PER_ROUND, EDITS_PER_STATE, ROUNDS = 1024, 8, 40


@dataclass(frozen=True, eq=False)
class Flips:
    """Base and source instances at states that they share, with a model's choice on each."""

    base: Instances
    source: Instances
    prefixes: Int64[np.ndarray, "pairs n"]
    lengths: Int64[np.ndarray, " pairs"]
    old: Int64[np.ndarray, " pairs"]
    """The model's choice on the base, the only one of least cost."""
    new: Int64[np.ndarray, " pairs"]
    """y*: its choice on the source."""

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: slice | np.ndarray) -> "Flips":
        return Flips(*(getattr(self, name)[index] for name in ("base", "source", *_COLUMNS)))

    @property
    def runs(self) -> tuple[Run, Run]:
        """The run of the bases and that of the sources."""
        prefixes, lengths = torch.from_numpy(self.prefixes), torch.from_numpy(self.lengths)
        base, source = (Run(torch.from_numpy(x.features), prefixes, lengths) for x in (self.base, self.source))
        return base, source


_COLUMNS = ("prefixes", "lengths", "old", "new")


def flips_of_pairs(found: SubjectPairs) -> Flips:
    """Counterfactual pairs with one old and one new optimum as flips of the search that they were mined for."""
    pairs = found.pairs
    single = (pairs.old_optimal.sum(axis=1) == 1) & (pairs.new_optimal.sum(axis=1) == 1)
    old, new = pairs.old_optimal.argmax(axis=1), pairs.new_optimal.argmax(axis=1)
    return Flips(pairs.base, pairs.relevant, pairs.prefixes, pairs.lengths, old, new)[np.flatnonzero(single)]


def mined_flips(
    problem: Problem,
    model: CausalModel,
    rivals: Sequence[CausalModel],
    name: PairSet,
    count: int,
    seed: int,
    margin: float = 0.05,
) -> Flips:
    """Up to `count` flips of a model that no subject enters, at most one per instance; fewer where they are rare.

    A search is decided by `margin` (as a fraction of the tour so far and the best way on) on both members. Rivals keep
    their choices; a rival that searches keeps its optimum by the margin. Raises UserError for families in the plane,
    whose entries do not change one by one.
    """
    request = {
        "flips": model.name,
        "rivals": [rival.name for rival in rivals],
        "problem": asdict(problem.config),
        "set": name,
        "count": count,
        "seed": seed,
        "margin": margin,
    }
    arrays = cached_arrays(label_cache(), request, lambda: _mine(problem, model, rivals, name, count, seed, margin))
    base, source = (Instances(problem, arrays[side]) for side in ("base", "source"))
    return Flips(base, source, *(arrays[column] for column in _COLUMNS))


def _mine(
    problem: Problem,
    model: CausalModel,
    rivals: Sequence[CausalModel],
    name: PairSet,
    count: int,
    seed: int,
    margin: float,
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, 1000 + SETS.index(name), 2])
    parts: list[dict[str, np.ndarray]] = []
    for _ in range(ROUNDS):
        parts.append(_round(problem, model, rivals, rng, margin))
        if sum(len(part["old"]) for part in parts) >= count:
            break
    return {column: np.concatenate([part[column] for part in parts])[:count] for column in parts[0]}


def _round(
    problem: Problem, model: CausalModel, rivals: Sequence[CausalModel], rng: np.random.Generator, margin: float
) -> dict[str, np.ndarray]:
    base, prefixes, lengths = decisions(problem, STATES_PER_ROUND, rng)
    before, decided = _decided(model, base, prefixes, lengths, margin)
    rows = np.repeat(np.flatnonzero(decided & (before.sum(axis=1) == 1)), EDITS_PER_STATE)
    source, differs = single_edits(base[rows], prefixes[rows], lengths[rows], rng, near=isinstance(model, Rule))
    rows, source = rows[differs], source[differs]
    after, decided = _decided(model, source, prefixes[rows], lengths[rows], margin)
    moved = np.flatnonzero(decided & (after.sum(axis=1) == 1) & ~(after & before[rows]).any(axis=1))
    rows, source, after = rows[moved], source[moved], after[moved]
    for rival in rivals:
        old, _ = _decided(rival, base[rows], prefixes[rows], lengths[rows], margin)
        new, decided = _decided(rival, source, prefixes[rows], lengths[rows], margin)
        kept = np.flatnonzero((old == new).all(axis=1) & decided)
        rows, source, after = rows[kept], source[kept], after[kept]
    rows, first = np.unique(rows, return_index=True)
    return {
        "base": base.weights[rows],
        "source": source.weights[first],
        "prefixes": prefixes[rows],
        "lengths": lengths[rows],
        "old": before[rows].argmax(axis=1),
        "new": after[first].argmax(axis=1),
    }


def decisions(
    problem: Problem, count: int, rng: np.random.Generator, *, first: bool = False
) -> tuple[Instances, Int64[np.ndarray, "batch n"], Int64[np.ndarray, " batch"]]:
    """Fresh instances, each at a decision on one of its optimal tours (with `first`, at its first one): instances,
    prefixes and their lengths."""
    instances, n = problem.draw(count, rng), problem.n
    steps = np.arange(n)[decision_steps(problem)]
    lengths = rng.choice(steps[:1] if first else steps, size=count) + 1
    start, one = np.zeros((count, n), dtype=np.int64), np.ones(count, dtype=np.int64)
    tours = optimal_rollouts(instances.weights, start, one, rng.random((count, n))).tours
    return instances, np.where(np.arange(n) < lengths[:, None], tours, 0), lengths


def single_edits(
    instances: Instances,
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    rng: np.random.Generator,
    *,
    near: bool,
    home: bool = False,
) -> tuple[Instances, Bool[np.ndarray, " batch"]]:
    """Each instance with one entry drawn anew, and whether that changed it.

    The entry lies between unvisited cities, with `home` also between one and city 0; with `near` it goes from the
    current city to an unvisited one.
    """
    problem, rows = instances.problem, np.arange(len(instances))
    ends = free_cities(prefixes, lengths)
    ends[:, 0] |= home
    order = np.argsort(np.where(ends, rng.random(ends.shape), 2.0), axis=1)
    u = prefixes[rows, lengths - 1] if near else order[:, 1]
    entries = np.stack([u, order[:, 0]], axis=1)[:, None]
    old = instances.weights[rows, u, order[:, 0]].astype(np.int64)
    changes = rng.integers(1, problem.config.levels + 1, size=len(rows)) - old
    edited = change_entries(instances.weights, entries, changes[:, None], problem.symmetric)
    return Instances(problem, edited), changes != 0


def _decided(
    model: CausalModel, instances: Instances, prefixes: np.ndarray, lengths: np.ndarray, margin: float
) -> tuple[Bool[np.ndarray, "batch n"], Bool[np.ndarray, " batch"]]:
    """The options of least cost, and where they are so by the margin (always, for a heuristic)."""
    values: Float64[np.ndarray, "batch n"] = model.values(instances, prefixes, lengths)
    if isinstance(model, Rule):
        return cheapest(values), np.ones(len(values), dtype=np.bool_)
    optimum = optimum_of(values, prefix_costs(instances.weights, prefixes, lengths))
    return optimum.optimal, optimum.margins > margin
