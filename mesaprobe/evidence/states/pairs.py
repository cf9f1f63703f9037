"""The counterfactual pairs of lines E3 and E7 to E9: mined once per problem and seed, then seen by one subject.

The mined sets ("pairs_probe" to choose and fit, "pairs_test" to estimate) do not depend on the subject and are kept on
disk. A subject is measured on the pairs whose base it answers optimally (method.md section 5, E3).
"""

import functools
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64

from mesaprobe.evidence.protocol import SETS
from mesaprobe.evidence.states.causal_models import CausalModel, OwnCompletions, next_cities
from mesaprobe.instruments.patching import Run, paired_runs
from mesaprobe.labels.cache import cached_arrays
from mesaprobe.labels.pairs import CounterfactualPairs, PairCriteria, mine_pairs
from mesaprobe.labels.pairs.states import StateOptimum, optimum_of, prefix_costs
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, Problem, ProblemConfig, make_problem

PairSet = Literal["pairs_probe", "pairs_test"]
PLANAR_MARGIN, PLANAR_PAIRS = 0.01, 60
_MEMBERS = ("base", "relevant", "irrelevant")


@dataclass(frozen=True, eq=False)
class SubjectPairs:
    """Pairs whose base state a subject answers optimally, with its answers: one pair per instance.

    Where `own`, "optimal" is by the subject's own completions (see `own_pairs`), else by dynamic programming.
    """

    pairs: CounterfactualPairs
    choices: Int64[np.ndarray, "pairs 3"]
    """The subject's most likely unvisited city on the base, the relevant and the irrelevant twin."""
    mined: int
    """Pairs before the filter."""
    own: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: slice | np.ndarray) -> "SubjectPairs":
        return SubjectPairs(self.pairs[index], self.choices[index], self.mined, self.own)

    @property
    def base_action(self) -> Int64[np.ndarray, " pairs"]:
        """What the subject does on the base: an optimal next city."""
        return self.choices[:, 0]

    @property
    def target(self) -> Int64[np.ndarray, " pairs"]:
        """y*: the optimal next city of the relevant twin (the lowest, where several are)."""
        return self.pairs.new_optimal.argmax(axis=1)

    @property
    def right_fraction(self) -> float:
        """Share of the mined pairs whose base the subject answered optimally."""
        return len(self) / max(self.mined, 1)

    @property
    def runs(self) -> tuple[Run, Run, Run]:
        """The runs of the base, of its relevant and of its irrelevant twin."""
        return paired_runs(self.pairs)

    def switched(self) -> tuple[Bool[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]]:
        """Whether the subject goes to a new optimum on the relevant twin; whether it moves at all on the other."""
        rows = np.arange(len(self))
        return self.pairs.new_optimal[rows, self.choices[:, 1]], self.choices[:, 2] != self.choices[:, 0]


def optimal_pairs(
    subject: Subject, name: PairSet, count: int, seed: int, criteria: PairCriteria | None = None
) -> SubjectPairs:
    """Of `count` mined pairs, those whose base the subject answers optimally (ties count), in the mined order.

    The pairs of one set and seed are the same for every subject of a problem. Raises UserError where the problem has
    no pairs (see `PairCriteria.lengths`).
    """
    pairs = mined_pairs(subject.problem, name, count, seed, criteria)
    found = answered(subject, pairs)
    right = pairs.old_optimal[np.arange(len(pairs)), found[:, 0]]
    return SubjectPairs(pairs[right], found[right], len(pairs))


def own_pairs(
    subject: Subject, name: PairSet, count: int, seed: int, criteria: PairCriteria | None = None
) -> SubjectPairs:
    """The pairs by the subject's own completions C_m, for weak subjects (method.md section 5, E4).

    Of `count` mined pairs those are kept whose base the subject answers with the option that is cheapest if the
    subject itself completes each, and of whose twins one moves that optimum by the margin and the other leaves it by
    the margin. That twin is now the relevant one, whichever it was; no heuristic notices either. `old_optimal`,
    `new_optimal` and `margins` are by these costs. Takes about 10 n passes a pair.
    """
    pairs = mined_pairs(subject.problem, name, count, seed, criteria)
    model, rows = OwnCompletions(subject), np.arange(len(pairs))
    chosen = next_cities(subject, paired_runs(pairs)[0])
    base = _optimum(model, pairs.base, pairs)
    kept = base.optimal[rows, chosen] & (base.optimal.sum(axis=1) == 1) & (base.margins > pairs.criteria.margin)
    pairs, base = pairs[kept], StateOptimum(base.optimal[kept], base.margins[kept])
    twins = [_optimum(model, twin, pairs) for twin in (pairs.relevant, pairs.irrelevant)]
    decided = np.stack([twin.margins > pairs.criteria.margin for twin in twins]).all(axis=0)
    moved = np.stack([~(twin.optimal & base.optimal).any(axis=1) for twin in twins])
    left = np.stack([(twin.optimal == base.optimal).all(axis=1) for twin in twins])
    straight, swapped = decided & moved[0] & left[1], decided & moved[1] & left[0]
    parts = [
        _relabelled(pairs, rows, base, first, second, other)
        for rows, first, second, other in (
            (straight, twins[0], twins[1], False),
            (swapped, twins[1], twins[0], True),
        )
    ]
    found = CounterfactualPairs.concatenate(parts)
    return SubjectPairs(found, answered(subject, found), count, own=True)


def _optimum(model: CausalModel, instances: Instances, pairs: CounterfactualPairs) -> StateOptimum:
    values = model.values(instances, pairs.prefixes, pairs.lengths)
    return optimum_of(values, prefix_costs(instances.weights, pairs.prefixes, pairs.lengths))


def _relabelled(
    pairs: CounterfactualPairs,
    rows: Bool[np.ndarray, " pairs"],
    base: StateOptimum,
    relevant: StateOptimum,
    irrelevant: StateOptimum,
    swapped: bool,
) -> CounterfactualPairs:
    """The pairs of some rows with other optima, and with their twins swapped if need be."""
    changes: dict[str, Any] = {
        "old_optimal": base.optimal,
        "new_optimal": relevant.optimal,
        "margins": np.stack([base.margins, relevant.margins, irrelevant.margins], axis=1),
    }
    if swapped:
        changes |= {"relevant": pairs.irrelevant, "irrelevant": pairs.relevant}
        changes |= {"entries": pairs.irrelevant_entries, "irrelevant_entries": pairs.entries}
    return replace(pairs, **changes)[np.flatnonzero(rows)]


def mined_pairs(
    problem: Problem, name: PairSet, count: int, seed: int, criteria: PairCriteria | None = None
) -> CounterfactualPairs:
    """The first `count` mined pairs of a set, from memory or disk where they have been mined before.

    In the plane one city moves all its distances at once, and pairs by a margin of 5 % are one in 10,000 states; there
    the default margin is 1 %, and there are `PLANAR_PAIRS` at most.
    """
    if problem.planar:
        criteria, count = criteria or PairCriteria(margin=PLANAR_MARGIN), min(count, PLANAR_PAIRS)
    return _mined(problem.config, name, count, seed, criteria or PairCriteria())


def answered(subject: Subject, pairs: CounterfactualPairs) -> Int64[np.ndarray, "pairs 3"]:
    """The subject's most likely unvisited city on each member of the pairs."""
    return np.stack([next_cities(subject, run) for run in paired_runs(pairs)], axis=1)


@functools.lru_cache(maxsize=16)
def _mined(config: ProblemConfig, name: PairSet, count: int, seed: int, criteria: PairCriteria) -> CounterfactualPairs:
    problem = make_problem(config)
    request = {
        "counterfactual_pairs": name,
        "problem": asdict(config),
        "criteria": asdict(criteria),
        "count": count,
        "seed": seed,
    }

    def compute() -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, 1000 + SETS.index(name)])
        return _arrays(mine_pairs(problem, count, rng, criteria).pairs)

    return _pairs(problem, criteria, cached_arrays(label_cache(), request, compute))


def label_cache() -> Path | None:
    """Where labels that no subject enters are kept, or None where no folder can be made."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesaprobe" / "labels"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


_COLUMNS = (
    *("prefixes", "lengths", "entries", "irrelevant_entries", "edit_sizes"),
    *("old_optimal", "new_optimal", "margins", "heuristic_choices"),
)


def _arrays(pairs: CounterfactualPairs) -> dict[str, np.ndarray]:
    arrays = {name: getattr(pairs, name) for name in _COLUMNS}
    for name, member in zip(_MEMBERS, pairs.members, strict=True):
        arrays[f"{name}_weights"] = member.weights
        if member.coordinates is not None:
            arrays[f"{name}_coordinates"] = member.coordinates
    return arrays


def _pairs(problem: Problem, criteria: PairCriteria, arrays: dict[str, np.ndarray]) -> CounterfactualPairs:
    columns: dict[str, Any] = {name: arrays[name] for name in _COLUMNS}
    for name in _MEMBERS:
        columns[name] = Instances(problem, arrays[f"{name}_weights"], arrays.get(f"{name}_coordinates"))
    return CounterfactualPairs(criteria=criteria, **columns)
