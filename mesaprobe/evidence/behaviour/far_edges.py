"""How the gap between two options of a network moves with weights far from both (method.md section 5, E4).

Far pairs touch neither the current city nor the two options: no rule that looks at one step, nor at the neighbourhood
of a candidate, can see them. A matrix entry stands in two city tokens, so on symmetric problems both are changed.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from scipy.sparse.csgraph import minimum_spanning_tree

from mesaprobe.evidence.states.decision_states import DecisionStates, next_logits
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import Instances

NEGLIGIBLE = 1e-4
"""Effects below this (in logits, for the whole change) count as 0 before ranking (method.md, amendment 8)."""


@dataclass(frozen=True, eq=False)
class FarPairs:
    """States with two options, and their far pairs in padded rows."""

    states: DecisionStates
    first: Int64[np.ndarray, " state"]
    """The option whose logit counts up."""
    second: Int64[np.ndarray, " state"]
    pairs: Int64[np.ndarray, "state pair 2"]
    """Cities u and v; what pads a row is city 0 twice."""
    known: Bool[np.ndarray, "state pair"]
    ranks: Float64[np.ndarray, "state pair"]
    """Place of the pair's weight among the state's far pairs, 0 (least) to 1."""
    spanning: Bool[np.ndarray, "state pair"]
    """Whether the pair is an edge of a minimum spanning tree of what is left of the instance."""

    def __getitem__(self, rows: np.ndarray) -> "FarPairs":
        parts = ("states", "first", "second", "pairs", "known", "ranks", "spanning")
        return replace(self, **{name: getattr(self, name)[rows] for name in parts})

    def of(self, matrices: np.ndarray) -> np.ndarray:
        """Entries of [state, n, n] at the pairs."""
        rows = np.arange(len(self.first))[:, None]
        return np.asarray(matrices[rows, self.pairs[..., 0], self.pairs[..., 1]])


def far_pairs(
    states: DecisionStates, first: Int64[np.ndarray, " state"], second: Int64[np.ndarray, " state"]
) -> FarPairs:
    """All far pairs: of two unvisited cities, neither an option, or of one and city 0 where the tour ends. Unordered on
    symmetric problems; else every arc that a completion may use."""
    symmetric, n = states.instances.problem.symmetric, states.tours.shape[1]
    rows = np.arange(len(states))
    open_ = states.free.copy()
    open_[rows, first] = open_[rows, second] = False
    target = open_.copy()
    target[:, 0] = True
    possible = open_[:, :, None] & target[:, None, :] & ~np.eye(n, dtype=bool)
    if symmetric:
        possible = np.triu(possible | possible.transpose(0, 2, 1), 1)
    width = max(int(possible.sum(axis=(1, 2)).max(initial=0)), 1)
    pairs, known = np.zeros((len(states), width, 2), dtype=np.int64), np.zeros((len(states), width), dtype=bool)
    for row in rows:
        found = np.argwhere(possible[row])
        pairs[row, : len(found)], known[row, : len(found)] = found, True
    empty = np.zeros(known.shape)
    made = FarPairs(states, first, second, pairs, known, empty, empty > 0)
    weights = np.where(known, made.of(states.weights), np.inf)
    below = (weights[:, None, :] < weights[:, :, None]).sum(axis=2)
    ranks = below / np.maximum(known.sum(axis=1, keepdims=True) - 1, 1)
    return replace(made, ranks=np.where(known, ranks, 0.0), spanning=made.of(_spanning_trees(states)) & known)


def finite_differences(subject: Subject, far: FarPairs, levels: int = 1) -> Float64[np.ndarray, "state pair"]:
    """Central difference of logit(first) - logit(second) for each far pair, over `levels` up and down (one-sided at the
    ends of the range of weights), per level; 0 where the whole effect is negligible."""
    rows, places = np.nonzero(far.known)
    u, v = far.pairs[rows, places].T
    problem, states = far.states.instances.problem, far.states
    up, low = problem.config.levels, 1
    gaps, moved = [], []
    for sign in (1, -1):
        weights = states.weights[rows]
        here = np.arange(len(rows))
        before = weights[here, u, v]
        after = np.clip(before + sign * levels, low, up)
        weights[here, u, v] = after
        if problem.symmetric:
            weights[here, v, u] = after
        features = Instances(problem, weights).features
        logits = next_logits(subject, features, states.tours[rows], states.steps[rows]).astype(np.float64)
        gaps.append(logits[here, far.first[rows]] - logits[here, far.second[rows]])
        moved.append(after - before)
    change, span = gaps[0] - gaps[1], np.maximum(moved[0] - moved[1], 1)
    found = np.zeros(far.known.shape)
    found[rows, places] = np.where(np.abs(change) < NEGLIGIBLE, 0.0, change / span)
    return found


def gradients(subject: Subject, far: FarPairs) -> Float64[np.ndarray, "state pair"] | None:
    """The derivative of the same gap, per level, in one backward pass a state; None where the network can't be
    differentiated (no module), or answers each state in a pass of its own. Blind where a unit is saturated."""
    if not isinstance(subject, ModuleSubject) or not subject.sequential:
        return None
    states, problem = far.states, far.states.instances.problem
    found = np.zeros(far.known.shape)
    for step in np.unique(states.steps):
        rows = np.flatnonzero(states.steps == step)
        features = torch.from_numpy(states.instances.features[rows]).to(subject.device).requires_grad_(True)
        prefixes = torch.from_numpy(states.tours[rows, : step + 1]).to(subject.device)
        with torch.enable_grad():
            logits = subject.module(features, prefixes)
            logits = logits[:, -1] if logits.shape[1] == step + 1 else logits[:, subject.decode_position(step + 1)]
            here = torch.arange(len(rows))
            gap = logits[here, torch.from_numpy(far.first[rows])] - logits[here, torch.from_numpy(far.second[rows])]
            (slope,) = torch.autograd.grad(gap.sum(), features)
        n = states.tours.shape[1]
        slopes = slope[..., :n].double().cpu().numpy()
        slopes = slopes + (slopes if problem.symmetric else slope[..., n : 2 * n].double().cpu().numpy()).swapaxes(1, 2)
        found[rows] = np.where(far[rows].known, far[rows].of(slopes), 0.0) / problem.config.levels
    return np.where(np.abs(found) < NEGLIGIBLE, 0.0, found)


def _spanning_trees(states: DecisionStates) -> Bool[np.ndarray, "state n n"]:
    """Edges of one minimum spanning tree of current city, unvisited cities and city 0 (lighter direction of an arc)."""
    found = np.zeros(states.weights.shape, dtype=bool)
    for row, (weights, free, current) in enumerate(zip(states.weights, states.free, states.current, strict=True)):
        cities = np.flatnonzero(free | (np.arange(len(free)) == current) | (np.arange(len(free)) == 0))
        part = np.minimum(weights, weights.T)[np.ix_(cities, cities)]
        tree = minimum_spanning_tree(part).toarray() > 0
        found[row][np.ix_(cities, cities)] = tree | tree.T
    return found
