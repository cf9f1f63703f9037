"""The counterfactual pairs of lines E3 and E7 to E9: mined once per problem and seed, then seen by one subject.

The mined sets ("pairs_probe" to choose and fit, "pairs_test" to estimate) do not depend on the subject and are kept on
disk. A subject is measured on the pairs whose base it answers optimally (method.md section 5, E3).
"""

import functools
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64

from mesaprobe.evidence.protocol import SETS
from mesaprobe.instruments.patching import Run, paired_runs
from mesaprobe.labels.cache import cached_arrays
from mesaprobe.labels.pairs import CounterfactualPairs, PairCriteria, mine_pairs
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, Problem, ProblemConfig, make_problem

PairSet = Literal["pairs_probe", "pairs_test"]
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


def mined_pairs(
    problem: Problem, name: PairSet, count: int, seed: int, criteria: PairCriteria | None = None
) -> CounterfactualPairs:
    """The first `count` mined pairs of a set, from memory or disk where they have been mined before."""
    return _mined(problem.config, name, count, seed, criteria or PairCriteria())


def answered(subject: Subject, pairs: CounterfactualPairs) -> Int64[np.ndarray, "pairs 3"]:
    """The subject's most likely unvisited city on each member of the pairs."""
    return np.stack([choices(subject, run) for run in paired_runs(pairs)], axis=1)


def choices(subject: Subject, run: Run, *, chunk: int = 1024) -> Int64[np.ndarray, " state"]:
    """The subject's most likely unvisited city at every state of a run."""
    found = np.empty(len(run), dtype=np.int64)
    for _, rows, part in run.by_length():
        for some, features, prefixes in zip(
            rows.split(chunk), part.features.split(chunk), part.prefixes.split(chunk), strict=True
        ):
            logits = subject.next_city_logits(features, prefixes).cpu()
            found[some.numpy()] = logits.scatter(1, prefixes, -torch.inf).argmax(dim=1).numpy()
    return found


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
