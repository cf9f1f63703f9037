"""Do decoded edges fit together into one path more often than independent edges would? (method.md section 5, E6)

A probe of edges tells each pair of cities alone: that it reads many of them does not show that the network holds a
plan, since every pair could be a guess of its own. So a whole completion is decoded, as many pairs as it has edges,
those of the highest score, score = g(Z) + what the probe reads beyond Z, and asked is how often they are one path from
the city that was forced to city 0, through all cities left. It need not be the right one.

The null keeps every edge's marginals and takes the joint away: what the probe reads of a pair is exchanged with what
it reads of the same pair in another instance, among pairs alike in answer (edge or not) and in g(Z) (`BINS` of equal
mass). So hits, false alarms and their scores stay as frequent, pair by pair, and g(Z) stays where it is, but what is
read of the pairs of one instance no longer belongs together. If the readings of an instance's pairs are independent
given answer and g(Z), observed and exchanged sets are equally often paths, whatever the probe's accuracy. More paths
than that: the readings fit together, as those of a plan would that is held whole.

Context, and no evidence of search: a rule that builds tours makes whole paths, too, and linear readouts of one state
share its noise, so random twins stand beside it. Needs pairs that are wrongly read; where none is, nothing can be told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mesaprobe.evidence.probing.plan_targets import PlanStates, city_pairs
from mesaprobe.evidence.probing.readings import Reading, Readout
from mesaprobe.statistics import Estimate, bootstrap_mean

BINS = 4
"""Classes of g(Z) within a pair and an answer."""
EXCHANGES, TWIN_EXCHANGES = 499, 99
"""Draws of the null, of the network and of a twin, of which only the excess is asked."""


@dataclass(frozen=True, eq=False)
class PairScores:
    """What is decoded of the pairs of cities (`plan_targets.city_pairs`) of each instance."""

    pairs: Int64[np.ndarray, "pair two"]
    symmetric: bool
    open: Bool[np.ndarray, "batch pair"]
    """Pairs that the completion may join."""
    edges: Bool[np.ndarray, "batch pair"]
    """Pairs that it joins."""
    known: Float64[np.ndarray, "batch pair"]
    """g(Z)."""
    read: Float64[np.ndarray, "batch pair"]
    """What the probe adds."""
    starts: Int64[np.ndarray, " batch"]
    """The city that was forced; the completion leads from there to city 0."""


@dataclass(frozen=True, eq=False)
class JointConsistency:
    """How often decoded edges are one path, and how often independent ones of the same marginals."""

    paths: float
    null_mean: float
    null_interval: tuple[float, float]
    """Of the share of paths under the null, 95 %."""
    excess: Estimate
    """Paths above the null's mean, with its interval over instances."""
    p: float
    """One-sided: as many paths by independent edges."""
    right: float
    """Share of decoded sets that are exactly the completion."""

    def summary(self) -> dict[str, Any]:
        """JSON values for a line's details."""
        return {
            "paths": self.paths,
            "independent_edges": self.null_mean,
            "independent_edges_interval": self.null_interval,
            "excess": self.excess.value,
            "excess_ci": self.excess.ci,
            "p": self.p,
            "exactly_the_completion": self.right,
        }


def joint_summary(
    own: Reading, twins: Sequence[Reading], states: PlanStates, tours: Int64[np.ndarray, "batch n"], seed: int
) -> dict[str, Any]:
    """JSON values for a line's details: of the completion that goes along `tours`, read at each network's own site.

    The network's readings are freed of Z; those of its twins are taken as they are.
    """
    found = joint_consistency(pair_scores(own.residualised(seed), states, tours), seed)
    others = [
        joint_consistency(pair_scores(twin.plain(), states, tours), seed, exchanges=TWIN_EXCHANGES) for twin in twins
    ]
    return {
        "site": f"{own.sites[own.site]} @ {own.view}",
        **found.summary(),
        "excess_of_random_twins": [other.excess.value for other in others],
    }


def pair_scores(readout: Readout, states: PlanStates, tours: Int64[np.ndarray, "batch n"]) -> PairScores:
    """Of a task that asks about all open pairs of the test set."""
    task = readout.reading.task
    batch, n = tours.shape

    def laid(rows: np.ndarray) -> np.ndarray:
        return task.test.table(rows).reshape(batch, -1)

    answers = task.test.answers
    symmetric = states.instances.problem.symmetric
    return PairScores(
        city_pairs(n, symmetric),
        symmetric,
        task.test.asked.reshape(batch, -1),
        laid(answers) > 0,
        laid(answers - task.test_residuals),
        laid(readout.guesses),
        tours[:, states.step + 1],
    )


def joint_consistency(scores: PairScores, seed: int, *, exchanges: int = EXCHANGES) -> JointConsistency:
    """Decode the completions of all instances, as they are read and `exchanges` times with readings exchanged."""
    rng = np.random.default_rng([seed, 11])
    rows, columns, cells = _cells(scores)
    held = scores.read[rows, columns]
    decoded = decoded_edges(scores, scores.read)
    observed = one_path(decoded, scores)
    totals, shares = np.zeros(len(observed)), np.empty(exchanges)
    for draw in range(exchanges):
        moved = scores.read.copy()
        moved[rows, columns] = held[np.argsort(cells + rng.random(len(cells)))]
        found = one_path(decoded_edges(scores, moved), scores)
        totals += found
        shares[draw] = found.mean()
    low, high = (float(end) for end in np.quantile(shares, [0.025, 0.975]))
    return JointConsistency(
        float(observed.mean()),
        float(shares.mean()),
        (low, high),
        bootstrap_mean(observed - totals / exchanges, rng),
        float((1 + (shares >= observed.mean() - 1e-12).sum()) / (1 + exchanges)),
        float((decoded == scores.edges).all(axis=1).mean()),
    )


def decoded_edges(scores: PairScores, read: Float64[np.ndarray, "batch pair"]) -> Bool[np.ndarray, "batch pair"]:
    """As many pairs as the completion has edges, those of the highest score; the earlier pair among equals."""
    total = np.where(scores.open, scores.known + read, -np.inf)
    order = np.argsort(-total, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    return rank < scores.edges.sum(axis=1, keepdims=True)


def one_path(edges: Bool[np.ndarray, "batch pair"], scores: PairScores) -> Bool[np.ndarray, " batch"]:
    """Whether these edges are one path from the forced city to city 0 through every city of an open pair.

    They must be as many as that path has: then it is enough to walk, one edge out of each city, and to arrive at city
    0 after all of them.
    """
    batch, n = len(edges), int(scores.pairs.max()) + 1
    joined = np.zeros((batch, n, n), dtype=np.bool_)
    left, right = scores.pairs.T
    joined[:, left, right] = edges
    if scores.symmetric:
        joined |= joined.swapaxes(1, 2)
    rows, steps = np.arange(batch), edges.sum(axis=1)
    here, alive = scores.starts.copy(), np.ones(batch, dtype=np.bool_)
    for step in range(int(steps.max(initial=0))):
        going = alive & (step < steps)
        onward = joined[rows, here]
        alive &= ~going | (onward.sum(axis=1) == 1)
        target = onward.argmax(axis=1)
        walking = alive & going
        joined[rows[walking], :, here[walking]] = False
        joined[rows[walking], here[walking], :] = False
        here = np.where(walking, target, here)
    return alive & (here == 0) & ~joined.any(axis=(1, 2))


def _cells(
    scores: PairScores,
) -> tuple[Int64[np.ndarray, " entry"], Int64[np.ndarray, " entry"], Int64[np.ndarray, " entry"]]:
    """Rows and columns of all open entries, and the number of each one's cell, in which readings may move: the same
    pair, answer and class of g(Z). Entries are sorted by their cells."""
    found: list[tuple[np.ndarray, int]] = []
    for column in range(scores.open.shape[1]):
        for edge in (False, True):
            rows = np.flatnonzero(scores.open[:, column] & (scores.edges[:, column] == edge))
            order = rows[np.argsort(scores.known[rows, column], kind="stable")]
            found += [(part, column) for part in np.array_split(order, BINS)]
    sizes = [len(part) for part, _ in found]
    rows = np.concatenate([part for part, _ in found])
    return rows, np.repeat([column for _, column in found], sizes), np.repeat(np.arange(len(found)), sizes)
