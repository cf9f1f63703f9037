"""Edits of one or two far entries of a matrix: those that move the optimum, and their irrelevant twins."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from mesaprobe.labels.pairs.closed_form import search_flips
from mesaprobe.labels.pairs.criteria import PairCriteria
from mesaprobe.labels.pairs.states import States, prefix_costs, rank_classes
from mesaprobe.problems import Instances

MATCHES = 8
"""Irrelevant twins tried per edit."""


class Edits(NamedTuple):
    """Edited instances, several of which may belong to one state, in the order in which they were drawn."""

    of: Int64[np.ndarray, " edit"]
    """Index of the state (of the relevant edit, for irrelevant twins), ascending."""
    instances: Instances
    entries: Int64[np.ndarray, "edit 2 2"]
    """(u, v) of the changed entries, -1 where there is none; a moved city stands twice, (u, u)."""
    sizes: Float64[np.ndarray, "edit 2"]
    """New minus old value of each changed entry, or how far the city moved; 0 where there is none."""

    def pick(self, index: np.ndarray) -> "Edits":
        """The selected edits."""
        return Edits(self.of[index], self.instances[index], self.entries[index], self.sizes[index])


def relevant_edits(states: States, rng: np.random.Generator, criteria: PairCriteria) -> Edits:
    """Edits that make the optimal set another one by the margin, a few per state (see `search_flips`)."""
    weights, problem = states.instances.weights, states.instances.problem
    entries, changes = search_flips(
        weights,
        states.prefixes,
        states.lengths,
        prefix_costs(weights, states.prefixes, states.lengths),
        states.far,
        rng.integers(0, 2**64, size=len(weights), dtype=np.uint64),
        problem.symmetric,
        problem.config.levels,
        criteria.margin,
        criteria.max_entries,
    )
    of, flip = np.nonzero(entries[:, :, 0, 0] >= 0)
    edited = change_entries(weights[of], entries[of, flip], changes[of, flip], problem.symmetric)
    return Edits(of, Instances(problem, edited), entries[of, flip], changes[of, flip].astype(np.float64))


def irrelevant_edits(states: States, relevant: Edits, rng: np.random.Generator, criteria: PairCriteria) -> Edits:
    """Twins of the relevant edits, one state each: the same changes, made to other far entries chosen at random.

    Each entry is of the rank class of the one that it stands for, before and after the change, and stays within
    1..levels; the optimal set and the margin stay.
    """
    of = np.repeat(np.arange(len(relevant.of)), MATCHES)
    states, relevant = states.pick(of), relevant.pick(of)
    weights, problem = states.instances.weights, states.instances.problem
    entries, available = _other_entries(states.far, relevant.entries, problem.symmetric, rng)
    changes = relevant.sizes.astype(np.int64)
    old, theirs = _values(weights, entries), _values(weights, relevant.entries)
    new = old + changes
    ours_and_theirs = rank_classes(weights, np.concatenate([old, new, theirs, theirs + changes], axis=1))
    same = (ours_and_theirs[:, :4] == ours_and_theirs[:, 4:]).reshape(-1, 2, 2).all(axis=1)
    same &= (new >= 1) & (new <= problem.config.levels)
    matching = np.flatnonzero(available & (same | (entries[:, :, 0] < 0)).all(axis=1))
    of, states, entries, changes = of[matching], states.pick(matching), entries[matching], changes[matching]
    edited = change_entries(states.instances.weights, entries, changes, problem.symmetric)
    optimal, margins = states.optimum_on(edited)
    keeps = (optimal == states.optimum.optimal).all(axis=1) & (margins > criteria.margin)
    return Edits(of, Instances(problem, edited), entries, changes.astype(np.float64)).pick(keeps)


def change_entries(
    weights: Int32[np.ndarray, "batch n n"],
    entries: Int64[np.ndarray, "batch k 2"],
    changes: Int64[np.ndarray, "batch k"],
    symmetric: bool,
) -> Int32[np.ndarray, "batch n n"]:
    """The weights with `changes` added to the entries (u, v) >= 0, in both directions if `symmetric`."""
    weights = weights.copy()
    for place in range(entries.shape[1]):
        rows = np.flatnonzero(entries[:, place, 0] >= 0)
        u, v = entries[rows, place].T
        weights[rows, u, v] += changes[rows, place].astype(np.int32)
        if symmetric:
            weights[rows, v, u] = weights[rows, u, v]
    return weights


def _values(weights: np.ndarray, entries: np.ndarray) -> Int64[np.ndarray, "batch 2"]:
    """Values of the entries; anything where there is none."""
    return weights[np.arange(len(weights))[:, None], entries[:, :, 0], entries[:, :, 1]].astype(np.int64)


def _other_entries(
    far: Bool[np.ndarray, "batch n"], taken: Int64[np.ndarray, "batch 2 2"], symmetric: bool, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "batch 2 2"], Bool[np.ndarray, " batch"]]:
    """As many far entries as are taken, other ones, in random order; and whether there are so many."""
    batch, n = far.shape
    open_ = far[:, :, None] & far[:, None, :]
    open_ &= np.triu(np.ones((n, n), dtype=np.bool_), 1) if symmetric else ~np.eye(n, dtype=np.bool_)
    rows = np.arange(batch)
    for place in (0, 1):
        u, v = taken[:, place].T
        open_[rows, u, v] &= u < 0
    keys = np.where(open_, rng.random(open_.shape), -1.0).reshape(batch, n * n)
    entries = np.full((batch, 2, 2), -1, dtype=np.int64)
    available = np.ones(batch, dtype=np.bool_)
    for place in (0, 1):
        needed = np.flatnonzero(taken[:, place, 0] >= 0)
        best = keys[needed].argmax(axis=1)
        available[needed] &= keys[needed, best] >= 0.0
        entries[needed, place] = np.stack([best // n, best % n], axis=1)
        keys[needed, best] = -1.0
    return entries, available
