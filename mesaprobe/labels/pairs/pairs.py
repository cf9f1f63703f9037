"""Counterfactual pairs: what they are made of."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mesaprobe.labels.pairs.criteria import PairCriteria
from mesaprobe.problems import Instances


@dataclass(frozen=True, eq=False)
class CounterfactualPairs:
    """Base instances, each with a relevant and an irrelevant twin, at a decision state that the three share.

    The optimal next city of the relevant twin differs from that of the base; the irrelevant twin, edited as much
    elsewhere, keeps it. No rule in `rules` notices either edit. Indexing selects pairs. `check_pairs` proves it.
    """

    criteria: PairCriteria
    base: Instances
    relevant: Instances
    irrelevant: Instances
    prefixes: Int64[np.ndarray, "pairs n"]
    """The path so far: the first `lengths[b]` cities count, zeros follow. It lies on an optimal tour of the base."""
    lengths: Int64[np.ndarray, " pairs"]
    entries: Int64[np.ndarray, "pairs 2 2"]
    """(u, v) of the entries in which the relevant twin differs from the base, u < v if symmetric; -1 where only one
    does. A moved city (`euclidean`) stands twice, (u, u)."""
    irrelevant_entries: Int64[np.ndarray, "pairs 2 2"]
    """The same of the irrelevant twin."""
    edit_sizes: Float64[np.ndarray, "pairs 2"]
    """New minus old value of each changed entry, in weight units and equal for both twins, or how far the city of
    the relevant twin moved, in grid units, to one unit the same as that of the irrelevant twin; 0 where only
    one entry changed."""
    old_optimal: Bool[np.ndarray, "pairs n"]
    """Optimal next cities of the base and of the irrelevant twin."""
    new_optimal: Bool[np.ndarray, "pairs n"]
    """Optimal next cities of the relevant twin: none of the old ones."""
    margins: Float64[np.ndarray, "pairs 3"]
    """How much the best city outside the optimal set costs more, as a fraction of the best tour with this prefix, on
    the base, the relevant and the irrelevant twin."""
    heuristic_choices: Int64[np.ndarray, "pairs rule"]
    """The next city of each of `rules`, the same on all three members."""

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: slice | np.ndarray) -> "CounterfactualPairs":
        columns: dict[str, Any] = {name: getattr(self, name)[index] for name in _COLUMNS}
        return CounterfactualPairs(criteria=self.criteria, **columns)

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the heuristics, in the order of `heuristic_choices`."""
        return self.criteria.rules(self.base.problem)

    @property
    def members(self) -> tuple[Instances, Instances, Instances]:
        """The base, the relevant and the irrelevant twin."""
        return self.base, self.relevant, self.irrelevant

    @staticmethod
    def concatenate(parts: "Sequence[CounterfactualPairs]") -> "CounterfactualPairs":
        """Pairs mined under the same criteria, in order."""
        columns: dict[str, Any] = {}
        for name in _COLUMNS:
            values = [getattr(part, name) for part in parts]
            join = Instances.concatenate if isinstance(values[0], Instances) else np.concatenate
            columns[name] = join(values)
        return CounterfactualPairs(criteria=parts[0].criteria, **columns)


_COLUMNS = tuple(field.name for field in dataclasses.fields(CounterfactualPairs) if field.name != "criteria")


@dataclass(frozen=True)
class PairYield:
    """What became of the states that were tried.

    A state has several edits; it is counted once, at the criterion that stopped the one that came farthest.
    """

    tried: int = 0
    base_undecided: int = 0
    """The best city outside the optimal set is within the margin already."""
    too_few_far: int = 0
    """Cities at equal distance leave fewer far ones than an edit and its twin need."""
    no_flip: int = 0
    """No proposed edit moves the optimum by the margin."""
    heuristic_moves: int = 0
    """Those that do move the choice of some heuristic."""
    no_irrelevant_twin: int = 0
    """Those that do not cannot be matched by one that leaves the optimum."""
    heuristic_moves_on_irrelevant: int = 0
    """The matches move the choice of some heuristic."""
    imitator_moves: int = 0
    """The imitator notices one of the two edits."""
    kept: int = 0

    def __add__(self, other: "PairYield") -> "PairYield":
        return PairYield(*(ours + theirs for ours, theirs in zip(self.counts(), other.counts(), strict=True)))

    def counts(self) -> tuple[int, ...]:
        """All counts, in the order of the fields."""
        return dataclasses.astuple(self)

    @property
    def kept_fraction(self) -> float:
        """Kept pairs per state tried."""
        return self.kept / self.tried

    def __str__(self) -> str:
        """One line per criterion: how many states it rejected, and which share of those tried.

        >>> print(PairYield(tried=4, no_flip=3, kept=1))
        tried: 4
        base undecided: 0 (0.0 %)
        too few far: 0 (0.0 %)
        no flip: 3 (75.0 %)
        heuristic moves: 0 (0.0 %)
        no irrelevant twin: 0 (0.0 %)
        heuristic moves on irrelevant: 0 (0.0 %)
        imitator moves: 0 (0.0 %)
        kept: 1 (25.0 %)
        """
        lines = [f"tried: {self.tried}"]
        for field, count in list(zip(dataclasses.fields(self), self.counts(), strict=True))[1:]:
            lines.append(
                f"{field.name.replace('_', ' ')}: {count} ({count / max(self.tried, 1):.1%})".replace("%", " %")
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class MinedPairs:
    """Pairs, and what it took to find them."""

    pairs: CounterfactualPairs
    found: PairYield
    """Of all states tried; as many pairs as it counts kept, or more than were asked for and are returned."""
