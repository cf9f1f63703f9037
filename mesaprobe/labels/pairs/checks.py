"""Proof that pairs are what they claim to be, by other code than the miner's."""

import itertools
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mesaprobe.labels.pairs.invisible import Imitator, imitator_keeps
from mesaprobe.labels.pairs.pairs import CounterfactualPairs
from mesaprobe.problems import Instances, ceil_distances
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.exact.held_karp import action_values, held_karp

_Claims: TypeAlias = Iterator[tuple[str, np.ndarray]]


def check_pairs(pairs: CounterfactualPairs, imitator: Imitator | None = None) -> None:
    """Verify every claim of every pair; raise ValueError with the first one that is false.

    Optima come from a full Held-Karp table of each member, choices from the heuristics' own completions, all other
    facts from the stored arrays. With `imitator`, also that it keeps its choice and its log-odds.
    """
    free = _free(pairs)
    claims = itertools.chain(
        _state_claims(pairs),
        _edit_claims(pairs, free),
        _planar_match_claims(pairs) if pairs.base.problem.planar else _matrix_match_claims(pairs),
        _optimum_claims(pairs, free),
        _heuristic_claims(pairs),
        [] if imitator is None else _imitator_claims(pairs, free, imitator),
    )
    for claim, holds in claims:
        wrong = np.flatnonzero(~holds.reshape(len(pairs), -1).all(axis=1))
        if len(wrong):
            raise ValueError(f"pair {wrong[0]} breaks its claim that {claim}")


def _free(pairs: CounterfactualPairs) -> Bool[np.ndarray, "pairs n"]:
    free = np.ones(pairs.prefixes.shape, dtype=np.bool_)
    for row, prefix, length in zip(free, pairs.prefixes, pairs.lengths, strict=True):
        row[prefix[:length]] = False
    return free


def _state_claims(pairs: CounterfactualPairs) -> _Claims:
    n, lengths, free = pairs.base.problem.n, pairs.lengths, _free(pairs)
    yield "its state is a decision", np.isin(lengths, pairs.criteria.lengths(pairs.base.problem))
    yield "its prefix begins in city 0 and names no city twice", (n - free.sum(axis=1) == lengths) & ~free[:, 0]
    yield "zeros follow its prefix", (pairs.prefixes == 0) | (np.arange(n) < lengths[:, None])
    start = np.stack([_values(pairs, pairs.base, free).min(axis=1), _spent(pairs, pairs.base)]).sum(axis=0)
    yield "its prefix lies on an optimal tour of the base", start == held_karp(pairs.base.weights).costs


def _edit_claims(pairs: CounterfactualPairs, free: Bool[np.ndarray, "pairs n"]) -> _Claims:
    """What is edited, and that it is far from the state and inside the marginal."""
    problem, rows = pairs.base.problem, np.arange(len(pairs))
    current = pairs.prefixes[rows, pairs.lengths - 1]
    yield (
        "the twins are edited in different places",
        ~(_touched(pairs, pairs.entries) & _touched(pairs, pairs.irrelevant_entries)).any(axis=(1, 2)),
    )
    for twin, entries in ((pairs.relevant, pairs.entries), (pairs.irrelevant, pairs.irrelevant_entries)):
        touched = _touched(pairs, entries)
        cities = touched.any(axis=1) | touched.any(axis=2)
        yield "only free cities are edited", free | ~cities
        if problem.planar:
            assert pairs.base.coordinates is not None
            assert twin.coordinates is not None
            differs = (pairs.base.coordinates != twin.coordinates).any(axis=2)
            yield "exactly the named city has moved", differs == cities
            yield "distances are those of the points", ceil_distances(twin.coordinates) == twin.weights
            inside = (twin.coordinates >= 0) & (twin.coordinates <= problem.config.grid)
            yield "points lie on the grid", inside
        else:
            yield "exactly the named entries differ", (pairs.base.weights != twin.weights) == touched
            off_diagonal = ~np.eye(problem.n, dtype=np.bool_)
            inside = (twin.weights >= 1) & (twin.weights <= problem.config.levels)
            yield "entries lie in 1..levels", inside == off_diagonal
        for member in (pairs.base, twin):
            distances = member.weights[rows, current]
            nearer = free[:, None, :] & (distances[:, None, :] < distances[:, :, None])
            yield "edited cities are far", (nearer.sum(axis=2) >= pairs.criteria.protected) | ~cities


def _touched(pairs: CounterfactualPairs, entries: Int64[np.ndarray, "pairs 2 2"]) -> Bool[np.ndarray, "pairs n n"]:
    """Entries as a mask: in both directions if symmetric, (u, u) for a moved city."""
    n = pairs.base.problem.n
    touched = np.zeros((len(pairs), n, n), dtype=np.bool_)
    for mask, changed in zip(touched, entries.tolist(), strict=True):
        for u, v in changed:
            if u >= 0:
                mask[u, v] = True
                mask[v, u] |= pairs.base.problem.symmetric
    return touched


def _matrix_match_claims(pairs: CounterfactualPairs) -> _Claims:
    """Both twins change by the same amounts, in the same rank classes."""
    base = pairs.base.weights
    for place in (0, 1):
        present = pairs.entries[:, place, 0] >= 0
        yield "both twins change as many entries", present == (pairs.irrelevant_entries[:, place, 0] >= 0)
        yield "a missing entry changes by nothing", present | (pairs.edit_sizes[:, place] == 0)
        old_and_new = []
        for twin, entries in ((pairs.relevant, pairs.entries), (pairs.irrelevant, pairs.irrelevant_entries)):
            u, v = entries[:, place].T
            rows = np.arange(len(pairs))
            old, new = base[rows, u, v], twin.weights[rows, u, v]
            yield "entries change by the stated sizes", (new - old == pairs.edit_sizes[:, place]) | ~present
            old_and_new.append([_thirds(base, old), _thirds(base, new)])
        same = (np.array(old_and_new[0]) == np.array(old_and_new[1])).all(axis=0)
        yield "changed entries match in rank class", same | ~present


def _planar_match_claims(pairs: CounterfactualPairs) -> _Claims:
    """Both twins move a city equally far, at distances from the current city of the same rank classes."""
    assert pairs.base.coordinates is not None
    rows, base = np.arange(len(pairs)), pairs.base.weights
    current = pairs.prefixes[rows, pairs.lengths - 1]
    sizes, old_and_new = [], []
    for twin, entries in ((pairs.relevant, pairs.entries), (pairs.irrelevant, pairs.irrelevant_entries)):
        assert twin.coordinates is not None
        yield "one city moves", (entries[:, 0, 0] == entries[:, 0, 1]) & (entries[:, 1] == -1).all(axis=1)
        city = entries[:, 0, 0]
        shift = twin.coordinates[rows, city].astype(np.float64) - pairs.base.coordinates[rows, city]
        sizes.append(np.hypot(shift[:, 0], shift[:, 1]))
        old_and_new.append([_thirds(base, weights[rows, current, city]) for weights in (base, twin.weights)])
    yield "the city moves by the stated size", np.isclose(sizes[0], pairs.edit_sizes[:, 0], rtol=1e-12)
    yield "both cities move equally far", np.abs(sizes[0] - sizes[1]) <= 1.0
    yield "moved cities match in rank class", (np.array(old_and_new[0]) == np.array(old_and_new[1])).all(axis=0)


def _thirds(weights: np.ndarray, values: Int64[np.ndarray, " pairs"]) -> Int64[np.ndarray, " pairs"]:
    """Third of the sorted off-diagonal entries into which each value falls."""
    off_diagonal = ~np.eye(weights.shape[1], dtype=np.bool_)
    ranks = [np.searchsorted(np.sort(w[off_diagonal]), value) for w, value in zip(weights, values, strict=True)]
    return np.minimum(3 * np.array(ranks, dtype=np.int64) // off_diagonal.sum(), 2)


def _optimum_claims(pairs: CounterfactualPairs, free: Bool[np.ndarray, "pairs n"]) -> _Claims:
    yield "the two optimal sets are disjoint", ~(pairs.old_optimal & pairs.new_optimal).any(axis=1)
    optima = (pairs.old_optimal, pairs.new_optimal, pairs.old_optimal)
    for index, (member, optimal) in enumerate(zip(pairs.members, optima, strict=True)):
        values = _values(pairs, member, free)
        best = values.min(axis=1)
        yield "its optimal sets are as stated", (values == best[:, None]) == optimal
        runner_up = np.where(optimal, np.inf, values).min(axis=1)
        margins = (runner_up - best) / (_spent(pairs, member) + best)
        yield "its margins are as stated", np.isclose(margins, pairs.margins[:, index], rtol=1e-12)
        yield "its margins exceed the threshold", margins > pairs.criteria.margin


def _values(pairs: CounterfactualPairs, member: Instances, free: np.ndarray) -> Float64[np.ndarray, "pairs n"]:
    """Q* at the state, from the decisions along a tour that names the free cities in order of index."""
    tours = pairs.prefixes.copy()
    for tour, length, open_ in zip(tours, pairs.lengths, free, strict=True):
        tour[length:] = np.flatnonzero(open_)
    return action_values(member.weights, tours)[np.arange(len(pairs)), pairs.lengths - 1]


def _spent(pairs: CounterfactualPairs, member: Instances) -> Int64[np.ndarray, " pairs"]:
    paths = [prefix[:length] for prefix, length in zip(pairs.prefixes, pairs.lengths, strict=True)]
    return np.array([w[path[:-1], path[1:]].sum() for w, path in zip(member.weights, paths, strict=True)])


def _heuristic_claims(pairs: CounterfactualPairs) -> _Claims:
    for column, rule in enumerate(pairs.rules):
        completions = ALGORITHMS[rule].completions
        assert completions is not None
        for member in pairs.members:
            tours = completions(member.weights, pairs.prefixes, pairs.lengths)
            chosen = tours[np.arange(len(pairs)), pairs.lengths]
            yield f"{rule} chooses as stated on all members", chosen == pairs.heuristic_choices[:, column]


def _imitator_claims(pairs: CounterfactualPairs, free: np.ndarray, imitator: Imitator) -> _Claims:
    twins, shift = (pairs.relevant, pairs.irrelevant), pairs.criteria.max_log_odds_shift
    keeps = imitator_keeps(imitator, pairs.base, twins, pairs.prefixes, pairs.lengths, free, shift)
    yield "the imitator keeps its choice and its log-odds", keeps
