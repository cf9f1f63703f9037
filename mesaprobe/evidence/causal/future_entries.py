"""Which cities' tokens a network's next choice should depend on if it follows its own plan, and which not (E9)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mesaprobe.evidence.states.decision_states import next_logits
from mesaprobe.instruments.patching import Location, Run, component_cells
from mesaprobe.labels.pairs import CounterfactualPairs
from mesaprobe.labels.pairs.states import distances_from_current, free_cities
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances


@dataclass(frozen=True, eq=False)
class FutureTokens:
    """Masks of cities per pair; T is what the plan uses, M its match. An entry d(u, v) is the tokens of u and of v.

    The option a is the network's choice on the base, b its favourite among the cities that are optimal on the
    relevant twin (or on the base, where a is the only one of those). Plans are its own greedy completions: of a on
    the base, of b on the relevant twin.
    """

    chosen: Int64[np.ndarray, " pair"]
    """a."""
    rival: Int64[np.ndarray, " pair"]
    """b."""
    entry: Bool[np.ndarray, "pair n"]
    """Both ends of the changed entries of the relevant twin."""
    matched_entry: Bool[np.ndarray, "pair n"]
    """Both ends of the changed entries of the irrelevant twin: edited as much, of the same rank class."""
    entry_planned: Bool[np.ndarray, " pair"]
    """Whether a plan uses one of the relevant twin's changed entries after its first arc."""
    matched_planned: Bool[np.ndarray, " pair"]
    """The same of the irrelevant twin's."""
    planned: Bool[np.ndarray, "pair n"]
    """The next cities that the plan of a visits after a (neither a nor b)."""
    matched: Bool[np.ndarray, "pair n"]
    """As many other free cities, as far from the current city by rank; soon needed by neither plan if such are left."""

    @property
    def eligible(self) -> Bool[np.ndarray, " pair"]:
        """Pairs whose relevant edit changes a planned entry, and whose irrelevant edit does not, both between cities
        that are needed at step 2 or later: an entry of a or b itself is what a scorer of single options reads."""
        rows = np.arange(len(self.chosen))
        options = [ends[rows, city] for ends in (self.entry, self.matched_entry) for city in (self.chosen, self.rival)]
        return self.entry_planned & ~self.matched_planned & ~np.any(options, axis=0)

    def __getitem__(self, rows: Int64[np.ndarray, " row"]) -> "FutureTokens":
        return FutureTokens(**{name: column[rows] for name, column in vars(self).items()})


def future_tokens(subject: Subject, pairs: CounterfactualPairs, ahead: int) -> FutureTokens:
    """Roll out both options of every pair and mark the tokens; `ahead` cities of the plan count as its next ones."""
    logits = _logits(subject, pairs.base, pairs)
    free = free_cities(pairs.prefixes, pairs.lengths)
    chosen, rival = _options(logits, free, pairs)
    plans = completed(subject, pairs.base, pairs, chosen), completed(subject, pairs.relevant, pairs, rival)
    symmetric = pairs.base.problem.symmetric
    used = _later_arcs(plans[0], pairs.lengths, symmetric) | _later_arcs(plans[1], pairs.lengths, symmetric)
    rows = np.arange(len(pairs))
    pool = free.copy()
    pool[rows, chosen] = pool[rows, rival] = False
    planned = _first_of(plans[0], pairs.lengths, pool, ahead)
    soon = _first_of(plans[1], pairs.lengths, pool, ahead)
    distance = distances_from_current(pairs.base.weights, pairs.prefixes, pairs.lengths)
    return FutureTokens(
        chosen=chosen,
        rival=rival,
        entry=_ends(pairs.entries, free.shape[1]),
        matched_entry=_ends(pairs.irrelevant_entries, free.shape[1]),
        entry_planned=_any_used(pairs.entries, used),
        matched_planned=_any_used(pairs.irrelevant_entries, used),
        planned=planned,
        matched=_matches(planned, pool & ~planned, soon, distance),
    )


def completed(
    subject: Subject, instances: Instances, pairs: CounterfactualPairs, forced: Int64[np.ndarray, " pair"]
) -> Int64[np.ndarray, "pair n"]:
    """Whole tours: the pair's prefix, the forced city, then always the network's most likely unvisited city."""
    rows, n = np.arange(len(pairs)), pairs.prefixes.shape[1]
    tours, last = pairs.prefixes.copy(), pairs.lengths.copy()
    tours[rows, last] = forced
    free = free_cities(pairs.prefixes, pairs.lengths)
    free[rows, forced] = False
    while (going := np.flatnonzero(last < n - 1)).size:
        logits = next_logits(subject, instances.features[going], tours[going], last[going])
        city = np.where(free[going], logits, -np.inf).argmax(axis=1)
        last[going] += 1
        tours[going, last[going]] = city
        free[going, city] = False
    return tours


def run_of(instances: Instances, pairs: CounterfactualPairs) -> Run:
    """The pairs' states on one of their members."""
    return Run(torch.from_numpy(instances.features), torch.from_numpy(pairs.prefixes), torch.from_numpy(pairs.lengths))


def token_mask(subject: Subject, run: Run, cities: Bool[np.ndarray, "row n"]) -> Bool[Tensor, "row pos"]:
    """True at the tokens of these cities in the sequence that the network sees at the run's states, of one length."""
    (cell, *_) = component_cells(subject, "residual", [Location("", ())])
    one = subject.activations(run.features[:1], run.prefixes[:1, : run.length], [cell.hook])[cell.hook]
    mask = torch.zeros(len(cities), one.shape[1], dtype=torch.bool)
    mask[:, torch.tensor(subject.city_positions)] = torch.from_numpy(cities)
    return mask


def _logits(subject: Subject, instances: Instances, pairs: CounterfactualPairs) -> Float64[np.ndarray, "pair n"]:
    return next_logits(subject, instances.features, pairs.prefixes, pairs.lengths - 1).astype(np.float64)


def _options(
    logits: np.ndarray, free: np.ndarray, pairs: CounterfactualPairs
) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
    rows = np.arange(len(pairs))
    chosen = np.where(free, logits, -np.inf).argmax(axis=1)
    wanted, others = pairs.new_optimal.copy(), pairs.old_optimal.copy()
    wanted[rows, chosen] = others[rows, chosen] = False
    wanted = np.where(wanted.any(axis=1, keepdims=True), wanted, others)
    return chosen, np.where(wanted, logits, -np.inf).argmax(axis=1)


def _later_arcs(tours: np.ndarray, lengths: np.ndarray, symmetric: bool) -> Bool[np.ndarray, "pair n n"]:
    """Arcs of each tour after the forced city, home to city 0 included."""
    count, n = tours.shape
    used = np.zeros((count, n, n), dtype=np.bool_)
    later = np.arange(n) >= lengths[:, None]
    rows = np.broadcast_to(np.arange(count)[:, None], tours.shape)
    used[rows[later], tours[later], np.roll(tours, -1, axis=1)[later]] = True
    return used | used.transpose(0, 2, 1) if symmetric else used


def _any_used(entries: Int64[np.ndarray, "pair 2 2"], used: np.ndarray) -> Bool[np.ndarray, " pair"]:
    """Whether one of the changed entries is used."""
    rows = np.arange(len(entries))[:, None]
    u, v = np.maximum(entries[..., 0], 0), np.maximum(entries[..., 1], 0)
    return np.asarray((used[rows, u, v] & (entries[..., 0] >= 0)).any(axis=1))


def _ends(entries: Int64[np.ndarray, "pair 2 2"], n: int) -> Bool[np.ndarray, "pair n"]:
    return np.asarray((entries.reshape(len(entries), -1, 1) == np.arange(n)).any(axis=1))


def _first_of(tours: np.ndarray, lengths: np.ndarray, pool: np.ndarray, count: int) -> Bool[np.ndarray, "pair n"]:
    """The first `count` cities of the pool that each tour visits after its forced city."""
    found = np.zeros(pool.shape, dtype=np.bool_)
    rows = np.arange(len(tours))
    for place in range(tours.shape[1]):
        city = tours[:, place]
        found[rows, city] |= (place > lengths) & pool[rows, city] & (found.sum(axis=1) < count)
    return found


def _matches(planned: np.ndarray, others: np.ndarray, soon: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """For each planned city the other one nearest to it in rank of distance that is still to be had."""
    n = planned.shape[1]
    ranks = (distance[:, None, :] < distance[:, :, None]).sum(axis=2)
    found = np.zeros(planned.shape, dtype=np.bool_)
    for row in range(len(planned)):
        for city in np.flatnonzero(planned[row]):
            left = np.flatnonzero(others[row] & ~found[row])
            if len(left):
                cost = np.abs(ranks[row, left] - ranks[row, city]) + n * soon[row, left]
                found[row, left[np.argmin(cost)]] = True
    return found
