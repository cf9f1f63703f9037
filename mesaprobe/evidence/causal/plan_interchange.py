"""E7b: does editing the plan move the value? (method.md section 5)

For every edge between later cities the directions are learned in which a site moves when that edge changes its length
(a few principal directions of source minus base, on the probe pairs). On test pairs, which differ in one such edge,
only these directions are exchanged. The search predicts which options then change their value: those whose completion
uses the edge (or comes to use it). Options that end at the edge themselves are left out, so that no rule that looks
one step beyond an option can help; for a search that looks no farther itself the two ends are compared instead.
Scored is the logit of each option, signed by the change of the edge:

    E7b = 2 AUC(options that the search predicts to move, against those that it predicts to stay) - 1 .
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mesaprobe.evidence.causal.flips import decisions, single_edits
from mesaprobe.evidence.protocol import SETS
from mesaprobe.evidence.states.causal_models import CausalModel, LookAhead, OwnCompletions, own_completions
from mesaprobe.evidence.states.pairs import PairSet
from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.interchange import Interchange
from mesaprobe.instruments.patching import Run
from mesaprobe.instruments.patching.runs import write_site
from mesaprobe.labels.pairs.states import free_cities
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.statistics import resampled_counts

SMALLEST = 1e-4
"""Smaller effects on a logit count as none (method.md, amendment 8)."""


@dataclass(frozen=True, eq=False)
class EdgePairs:
    """Base and source instances that differ in one edge between later cities (home included), drawn at random."""

    base: Instances
    source: Instances
    prefixes: Int64[np.ndarray, "pairs n"]
    lengths: Int64[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: slice) -> "EdgePairs":
        return EdgePairs(self.base[index], self.source[index], self.prefixes[index], self.lengths[index])

    @property
    def runs(self) -> tuple[Run, Run]:
        """The run of the bases and that of the sources."""
        prefixes, lengths = torch.from_numpy(self.prefixes), torch.from_numpy(self.lengths)
        base, source = (Run(torch.from_numpy(x.features), prefixes, lengths) for x in (self.base, self.source))
        return base, source

    @property
    def edges(self) -> Int64[np.ndarray, "pairs 2"]:
        """(u, v) of the entry that differs."""
        n = self.base.problem.n
        place = (self.base.weights != self.source.weights).reshape(len(self), -1).argmax(axis=1)
        return np.stack([place // n, place % n], axis=1)

    @property
    def changes(self) -> Int64[np.ndarray, " pairs"]:
        """By how much the source's edge is longer."""
        u, v = self.edges.T
        rows = np.arange(len(self))
        return (self.source.weights[rows, u, v] - self.base.weights[rows, u, v]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class PlanInterchange:
    """Signed effects on the options' logits under an exchange of single edges, and what the search predicts of them."""

    effects: Float64[np.ndarray, "pair n"]
    """Change of each option's logit, signed so that a shorter edge in its completion should raise it."""
    moved: Bool[np.ndarray, "pair n"]
    stays: Bool[np.ndarray, "pair n"]
    details: dict[str, Any]

    @property
    def eligible(self) -> int:
        """Pairs with an option of either kind."""
        return int((self.moved.any(axis=1) & self.stays.any(axis=1)).sum())

    @property
    def value(self) -> float:
        """E7b; 0 where there is nothing to compare."""
        wins, pairs = comparisons(self.effects, self.moved, self.stays)
        return float(2 * wins.sum() / max(pairs.sum(), 1) - 1) if pairs.sum() else 0.0

    def draws(self, rng: np.random.Generator, resamples: int) -> Float64[np.ndarray, " draw"]:
        """E7b on resampled instances."""
        wins, pairs = comparisons(self.effects, self.moved, self.stays)
        counts = resampled_counts(len(wins), rng, resamples)
        return 2 * (counts @ wins) / np.maximum(counts @ pairs, 1) - 1

    def p(self, rng: np.random.Generator, permutations: int) -> float:
        """p-value of E7b > 0 when the predictions are dealt anew among the options of each state."""
        wins, _ = comparisons(self.effects, self.moved, self.stays)
        options = self.moved | self.stays
        observed, exceeded = wins.sum(), 0
        count = self.moved.sum(axis=1, keepdims=True)
        for _ in range(permutations):
            order = np.argsort(np.where(options, rng.random(options.shape), 2.0), axis=1)
            rank = np.argsort(order, axis=1)
            moved = options & (rank < count)
            drawn, _ = comparisons(self.effects, moved, options & ~moved)
            exceeded += int(drawn.sum() >= observed - 1e-9)
        return (1 + exceeded) / (1 + permutations)


def comparisons(
    effects: Float64[np.ndarray, "pair n"], moved: Bool[np.ndarray, "pair n"], stays: Bool[np.ndarray, "pair n"]
) -> tuple[Float64[np.ndarray, " pair"], Float64[np.ndarray, " pair"]]:
    """In how many comparisons of a moved with a staying option of its state the moved one has the larger effect (a tie
    counts half), and how many comparisons there are.

    >>> comparisons(np.array([[0.3, 0.0, 0.0]]), np.array([[True, True, False]]), np.array([[False, False, True]]))
    (array([1.5]), array([2.]))
    """
    both = moved[:, :, None] & stays[:, None, :]
    gap = effects[:, :, None] - effects[:, None, :]
    wins = np.where(np.abs(gap) < SMALLEST, 0.5, (gap > 0).astype(np.float64))
    return np.where(both, wins, 0.0).sum(axis=(1, 2)), both.sum(axis=(1, 2)).astype(np.float64)


def edge_pairs(subject: Subject, name: PairSet, count: int, seed: int) -> EdgePairs:
    """`count` random pairs at decisions on optimal tours (fewer by those whose entry was drawn as it was)."""
    rng = np.random.default_rng([seed, 1000 + SETS.index(name), 3])
    base, prefixes, lengths = decisions(subject.problem, count, rng)
    source, differs = single_edits(base, prefixes, lengths, rng, near=False, home=True)
    return EdgePairs(base[differs], source[differs], prefixes[differs], lengths[differs])


def plan_interchange(
    subject: Subject,
    search: CausalModel,
    probe: EdgePairs,
    test: EdgePairs,
    sites: Sequence[Site],
    dimensions: Sequence[int],
) -> PlanInterchange:
    """Learn every edge's directions on the probe pairs; exchange them on the test pairs.

    Site and number of directions are those that do best on a quarter of the probe pairs when learned on the others.
    """
    kept = 3 * len(probe) // 4
    train, held = probe[slice(0, kept)], probe[slice(kept, None)]
    told = predictions(search, held)
    trials = [
        (exchange_edges(subject, held, site, bases[..., :k], told).value, site, k)
        for site in sites
        for bases in (edge_directions(subject, train, site, max(dimensions)),)
        for k in dimensions
    ]
    _, site, dimension = max(trials, key=lambda trial: trial[0])
    bases = edge_directions(subject, probe, site, dimension)
    return exchange_edges(subject, test, site, bases, predictions(search, test))


def exchange_edges(
    subject: Subject,
    test: EdgePairs,
    site: Site,
    bases: Float64[Tensor, "edge d k"],
    told: tuple[Bool[np.ndarray, "pair n"], Bool[np.ndarray, "pair n"]],
) -> PlanInterchange:
    """The same at one site with given directions of every edge and given `predictions`."""
    moved, stays = told
    pairs = Interchange.at(subject, *test.runs, site)
    before, after = pairs.base_logits(), _exchanged(pairs, bases[torch.from_numpy(edge_keys(subject, test.edges))])
    signs = -np.sign(test.changes)[:, None]
    effects = (after - before).double().numpy() * signs
    wins, count = comparisons((pairs.logits() - before).double().numpy() * signs, moved, stays)
    return PlanInterchange(
        effects,
        moved,
        stays,
        {
            "site": str(site),
            "directions_per_edge": bases.shape[2],
            "pairs": len(test),
            "whole_site_value": float(2 * wins.sum() / count.sum() - 1) if count.sum() else None,
            "share_moved": float((np.abs(effects) >= SMALLEST)[moved].mean()) if moved.any() else None,
            "share_stay": float((np.abs(effects) >= SMALLEST)[stays].mean()) if stays.any() else None,
        },
    )


def edge_keys(subject: Subject, edges: Int64[np.ndarray, "pair 2"]) -> Int64[np.ndarray, " pair"]:
    """u n + v of every edge, u < v where both directions are one."""
    ends = np.sort(edges, axis=1) if subject.problem.symmetric else edges
    return ends[:, 0] * subject.problem.n + ends[:, 1]


def predictions(search: CausalModel, pairs: EdgePairs) -> tuple[Bool[np.ndarray, "pair n"], Bool[np.ndarray, "pair n"]]:
    """Options whose value the search changes, and those whose value it does not.

    None that ends at the edge; but for a search that sees one step beyond the option only those, since no others move.
    """
    free = free_cities(pairs.prefixes, pairs.lengths)
    ends = (pairs.edges[:, :, None] == np.arange(free.shape[1])).any(axis=1)
    options = free & (ends if isinstance(search, LookAhead) and search.arcs == 2 else ~ends)
    if isinstance(search, OwnCompletions):  # after the edit it might complete otherwise, which would need more passes
        uses = _uses_edge(search.subject, pairs)
    else:
        before, after = (search.values(side, pairs.prefixes, pairs.lengths) for side in (pairs.base, pairs.source))
        uses = np.where(options, before, 0.0) != np.where(options, after, 0.0)
    return options & uses, options & ~uses


def _uses_edge(subject: Subject, pairs: EdgePairs) -> Bool[np.ndarray, "pair n"]:
    tours = own_completions(subject, pairs.base, pairs.prefixes, pairs.lengths)
    following = np.roll(tours, -1, axis=2)
    later = (np.arange(tours.shape[2]) >= pairs.lengths[:, None] - 1)[:, None]
    u, v = (end[:, None, None] for end in pairs.edges.T)
    used = (tours == u) & (following == v)
    if subject.problem.symmetric:
        used |= (tours == v) & (following == u)
    return (used & later).any(axis=2)


def edge_directions(
    subject: Subject, probe: EdgePairs, site: Site, dimension: int
) -> Float64[Tensor, "edge d {dimension}"]:
    """For every edge (by `edge_keys`) an orthonormal basis of the main directions in which it moves the site; zeros
    where the edge was too rare to show so many. The first k columns are the basis of dimension k."""
    n = subject.problem.n
    pairs = Interchange.at(subject, *probe.runs, site)
    changes = (pairs.source - pairs.own)[:, 0].double()
    own = edge_keys(subject, probe.edges)
    bases = torch.zeros(n * n, changes.shape[1], dimension)
    for edge in np.unique(own):
        rows = torch.from_numpy(np.flatnonzero(own == edge))
        _, sizes, directions = torch.linalg.svd(changes[rows], full_matrices=False)
        held = min(dimension, int((sizes > 1e-9 * sizes[0].clamp(min=1e-12)).sum()))
        bases[edge, :, :held] = directions[:held].T.float()
    return bases


def _exchanged(pairs: Interchange, bases: Tensor) -> Tensor:
    """Logits of the base states, each with its own subspace taken from the source."""
    difference = pairs.source - pairs.own
    moved = torch.einsum("btd,bdk,bek->bte", difference, bases, bases)

    def edit(activation: Tensor, rows: Tensor) -> Tensor:
        vectors = (pairs.own[rows] + moved[rows]).to(activation)
        return write_site(activation, pairs.site, pairs.positions[rows], vectors)

    return pairs.base.logits({pairs.site.hook: edit})
