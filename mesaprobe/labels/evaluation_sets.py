"""Evaluation sets by rejection: as many hard decisions as easy ones, with weights back to the natural distribution.

Average accuracy says little, since most optimal steps merely take the nearest city (method.md section 2). So
decisions are drawn as they come, along optimal tours of natural instances, sorted into cells by d*, margin and
tier, and kept until the cells are as even as they can be: the same number for every d*, spread evenly over the
margins within it, and over the tiers within those, where a cell that has too few leaves its share to its sisters.
A kept decision of a cell weighs (natural share of the cell) / (number kept there), so that weighted means are
unbiased for the natural distribution.
"""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.cache import cached_arrays
from mesaprobe.labels.horizon import lookahead_needs
from mesaprobe.labels.tiers import TIERS, instance_tiers
from mesaprobe.labels.values import decision_steps, relative_margins
from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.solvers.exact.held_karp import optimal_rollouts

TOP_NEED = 4
"""The last d* bin holds this and more."""

_CHUNK = 1000
"""Instances that are drawn and labelled at once."""


@dataclass(frozen=True)
class EvaluationSetConfig:
    """Which decisions: everything that is needed to draw them again."""

    problem: ProblemConfig
    instances: int = 50_000
    """Natural instances to draw. How many decisions a rare cell can get depends on it."""
    states_per_need: int = 2_000
    """Decisions kept for each d* in 0, 1, 2, 3, 4+, or as many as there are."""
    margin_edges: tuple[float, ...] = (0.02, 0.05, 0.10)
    """Lower edges of the margin bins, as fractions of the tour length; the last bin is open. Decisions below the
    first edge, and those where every city is optimal, stand outside the set."""
    seed: int = 0

    def __post_init__(self) -> None:
        edges = self.margin_edges
        if not edges or edges[0] < 0.0 or any(low >= high for low, high in itertools.pairwise(edges)):
            raise UserError(f"margin_edges must be fractions that increase from 0 or more, got {edges}")
        if self.instances < 1:
            raise UserError(f"instances must be at least 1, got {self.instances}")
        if self.states_per_need < len(edges) * len(TIERS):
            raise UserError(
                f"states_per_need must be at least {len(edges) * len(TIERS)}, one for every margin and tier, "
                f"got {self.states_per_need}"
            )
        steps = decision_steps(make_problem(self.problem))
        if steps.stop <= steps.start:
            raise UserError(f"{self.problem.family} with n = {self.problem.n} has no decisions; take more cities")


@dataclass(frozen=True)
class CellCount:
    """One cell of an evaluation set."""

    need: str
    """d*: 0, 1, 2, 3 or 4+."""
    margin: str
    """Fractions of the tour length, e.g. 0.02-0.05."""
    tier: str
    natural: int
    """Decisions in the cell among all that were drawn."""
    kept: int


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Decisions balanced over d*, margin and tier. State i is decision `steps[i]` along tour `rows[i]`."""

    config: EvaluationSetConfig
    instances: Instances
    """Those with at least one kept decision, in the order of drawing."""
    tours: Int64[np.ndarray, "instance n"]
    """One optimal tour of each, every optimal city equally likely at every step."""
    rows: Int64[np.ndarray, " state"]
    """Index into `instances` and `tours`. States of one instance are not independent: resample by it."""
    steps: Int64[np.ndarray, " state"]
    needs: Int64[np.ndarray, " state"]
    """d*, not cut off."""
    margins: Float64[np.ndarray, " state"]
    """As fractions of the tour length."""
    tiers: Int64[np.ndarray, " state"]
    cells: Int64[np.ndarray, "state 3"]
    """Bins of d*, margin and tier."""
    natural: Int64[np.ndarray, "need margin tier"]
    """Decisions of each cell among all that were drawn."""
    outside: int
    """Drawn decisions that belong to no cell."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kept(self) -> Int64[np.ndarray, "need margin tier"]:
        """Decisions of each cell in the set."""
        kept = np.zeros_like(self.natural)
        np.add.at(kept, tuple(self.cells.T), 1)
        return kept

    @property
    def weights(self) -> Float64[np.ndarray, " state"]:
        """Importance weights, summing to 1: with them a mean over the set estimates the mean over natural decisions
        that belong to some cell."""
        shares = self.natural / self.natural.sum()
        return (shares / np.maximum(self.kept, 1))[tuple(self.cells.T)]

    def pick(self, labels: np.ndarray) -> np.ndarray:
        """Entries of the states from labels `[instance, step, ...]` that `label_decisions` gave for
        `instances` and `tours` at its default steps.

        >>> config = EvaluationSetConfig(ProblemConfig(n=7), instances=200, states_per_need=15)
        >>> states = evaluation_set(config)
        >>> tours, steps = states.tours, decision_steps(states.instances.problem)
        >>> bool((states.pick(tours[:, steps]) == tours[states.rows, states.steps]).all())
        True
        """
        return labels[self.rows, self.steps - decision_steps(self.instances.problem).start]

    def table(self) -> list[CellCount]:
        """All cells that occur, in order."""
        kept, edges = self.kept, [f"{edge:g}" for edge in self.config.margin_edges]
        margins = [f"{low}-{high}" for low, high in itertools.pairwise(edges)] + [f"{edges[-1]}+"]
        needs = [*(str(need) for need in range(TOP_NEED)), f"{TOP_NEED}+"]
        return [
            CellCount(needs[d], margins[m], TIERS[t], int(self.natural[d, m, t]), int(kept[d, m, t]))
            for d, m, t in np.argwhere(self.natural)
        ]


def evaluation_set(config: EvaluationSetConfig, cache: Path | None = None) -> EvaluationSet:
    """Draw the set, or read it from the folder `cache` if it was drawn before with the same code.

    Raises UserError if no decision falls into any cell.
    """
    arrays = cached_arrays(cache, {"evaluation_set": asdict(config)}, lambda: _draw(config))
    problem = make_problem(config.problem)
    return EvaluationSet(
        config=config,
        instances=Instances(problem, arrays["weights"], arrays.get("coordinates")),
        outside=int(arrays["outside"]),
        **{name: arrays[name] for name in ("tours", "rows", "steps", "needs", "margins", "tiers", "cells", "natural")},
    )


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Labelled natural instances and the decisions of them that belong to a cell, in random order."""

    instances: Instances
    tours: np.ndarray
    states: dict[str, np.ndarray]
    """rows, steps, needs, margins, tiers [state], cells [state, 3]."""
    outside: int


def _chunks(config: EvaluationSetConfig) -> Iterator[_Chunk]:
    problem = make_problem(config.problem)
    steps = decision_steps(problem)
    for index, first in enumerate(range(0, config.instances, _CHUNK)):
        rng = np.random.default_rng([config.seed, index])
        count = min(_CHUNK, config.instances - first)
        instances = problem.draw(count, rng)
        starts, lengths = np.zeros((count, problem.n), dtype=np.int64), np.ones(count, dtype=np.int64)
        uniforms = rng.random((count, problem.n))
        tours, values = optimal_rollouts(instances.weights, starts, lengths, uniforms)
        margins = relative_margins(instances.weights, tours, values)[:, steps]
        needs = lookahead_needs(instances.weights, tours, values, steps)
        tiers = np.broadcast_to(instance_tiers(instances, instances.tour_costs(tours))[:, None], needs.shape)
        bins = np.searchsorted(config.margin_edges, margins, side="right") - 1
        rows, columns = np.nonzero((bins >= 0) & np.isfinite(margins))
        order = rng.permutation(len(rows))  # so that a cell that fills up within a chunk favours no step
        rows, columns = rows[order], columns[order]
        needs, margins, tiers, bins = (label[rows, columns] for label in (needs, margins, tiers, bins))
        states = {"rows": rows, "steps": columns + steps.start, "needs": needs, "margins": margins, "tiers": tiers}
        states["cells"] = np.stack([np.minimum(needs, TOP_NEED), bins, tiers], axis=1)
        yield _Chunk(instances, tours, states, outside=int(count * (steps.stop - steps.start) - len(rows)))


def _draw(config: EvaluationSetConfig) -> dict[str, np.ndarray]:
    """The arrays of the set. `arrivals` counts the decisions of a cell in the order in which they came."""
    shape = (TOP_NEED + 1, len(config.margin_edges), len(TIERS))
    natural = np.zeros(int(np.prod(shape)), dtype=np.int64)
    outside, parts, instances, drawn = 0, [], [], 0
    for chunk in _chunks(config):
        outside += chunk.outside
        flat = np.ravel_multi_index(tuple(chunk.states["cells"].T), shape)
        arrivals = natural[flat] + _occurrences(flat)
        natural += np.bincount(flat, minlength=natural.size)
        early = arrivals < config.states_per_need
        used, rows = np.unique(chunk.states["rows"][early], return_inverse=True)
        part = {name: label[early] for name, label in chunk.states.items()}
        parts.append(part | {"rows": rows + drawn, "flat": flat[early], "arrivals": arrivals[early]})
        instances.append((chunk.instances[used], chunk.tours[used]))
        drawn += len(used)
    if not natural.any():
        raise UserError(
            f"none of {outside} decisions of {config.problem.family}, n = {config.problem.n}, has a margin of at least "
            f"{config.margin_edges[0]}; lower margin_edges or draw more instances"
        )
    states = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    quotas = cell_quotas(natural.reshape(shape), config.states_per_need).ravel()
    kept = np.flatnonzero(states["arrivals"] < quotas[states["flat"]])
    kept = kept[np.lexsort((states["steps"][kept], states["rows"][kept]))]
    used, rows = np.unique(states["rows"][kept], return_inverse=True)
    batch = Instances.concatenate([part for part, _ in instances])[used]
    arrays = {name: states[name][kept] for name in ("steps", "needs", "margins", "tiers", "cells")}
    arrays |= {"rows": rows, "natural": natural.reshape(shape), "outside": np.array(outside)}
    arrays |= {"weights": batch.weights, "tours": np.concatenate([tours for _, tours in instances])[used]}
    return arrays if batch.coordinates is None else arrays | {"coordinates": batch.coordinates}


def _occurrences(values: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
    """How many equal values stand before each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    found = np.empty(len(values), dtype=np.int64)
    found[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return found


def cell_quotas(
    available: Int64[np.ndarray, "need margin tier"], per_need: int
) -> Int64[np.ndarray, "need margin tier"]:
    """How many decisions to keep of each cell: for each d* `per_need` or as many as there are, as evenly as possible
    over margins, and within each margin over tiers. No cell that has any gets none, if per_need reaches one for
    every margin and tier."""
    quotas = np.zeros_like(available)
    for need, cells in enumerate(available):
        for margin, share in enumerate(even_shares(cells.sum(axis=1), per_need)):
            quotas[need, margin] = even_shares(cells[margin], int(share))
    return quotas


def even_shares(available: Int64[np.ndarray, " k"], total: int) -> Int64[np.ndarray, " k"]:
    """Split `total` as evenly as possible, nobody getting more than is available (the first get what is left over).

    >>> even_shares(np.array([1, 10, 10]), 12)
    array([1, 6, 5])
    """
    levels = np.arange(total + 1)
    filled = np.minimum(available[:, None], levels).sum(axis=0)
    level = int(levels[filled <= total][-1])
    shares = np.minimum(available, level)
    shares[np.flatnonzero(available > level)[: total - shares.sum()]] += 1
    return shares
