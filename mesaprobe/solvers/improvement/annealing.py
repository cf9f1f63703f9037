"""Simulated annealing with 2-opt moves and a geometric schedule (Kirkpatrick, Gelatt and Vecchi 1983)."""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Int32, Int64, UInt64

from mesaprobe.solvers.improvement.trajectory import Trajectory, checked_tours, padded
from mesaprobe.solvers.random_streams import next_uniform
from mesaprobe.solvers.weights import checked_weights


@dataclass(frozen=True)
class Schedule:
    """How long, and from which temperature to which; it falls by the same factor after every proposed move."""

    moves_per_city: int = 1000
    """Proposed moves, times n."""
    start: float = 0.3
    """First temperature, in units of the mean weight between different cities."""
    end: float = 0.005
    """Last temperature, in the same units."""

    def __post_init__(self) -> None:
        if self.moves_per_city < 1 or not 0 < self.end <= self.start:
            raise ValueError(f"a schedule needs at least 1 move per city and 0 < end <= start, got {self}")


def anneal(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    seeds: UInt64[np.ndarray, " batch"],
    schedule: Schedule | None = None,
) -> Int64[np.ndarray, "batch n"]:
    """The cheapest tour that each run meets, from city 0.

    A move turns round a path of at least two cities that leaves city 0 in its place, all equally likely; it is
    made if it costs nothing, else with probability exp(-change / temperature). The change is exact on asymmetric
    weights too. Runs begin with `tours` and draw from their own seed, so a run does not depend on the rest of the
    batch. The default is `Schedule()`.
    """
    final, _ = _run(weights, tours, seeds, schedule or Schedule(), 0)
    return final


def anneal_trajectory(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    seeds: UInt64[np.ndarray, " batch"],
    schedule: Schedule | None = None,
) -> Trajectory:
    """The same runs with every incumbent: each tour that was cheaper than all before it."""
    _, found = _run(weights, tours, seeds, schedule or Schedule(), 0)
    trace, _ = _run(weights, tours, seeds, schedule or Schedule(), int(found.max(initial=0)) + 1)
    return padded(trace, found + 1)


def _run(
    weights: np.ndarray, tours: np.ndarray, seeds: np.ndarray, schedule: Schedule, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The incumbents at the end (steps = 0) or the first `steps` incumbents, and how often one was replaced."""
    weights = checked_weights(weights)
    best = checked_tours(weights, tours)
    batch, n = best.shape
    trace = np.zeros((batch, steps, n), dtype=np.int64)
    found = np.zeros(batch, dtype=np.int64)
    seeds = np.asarray(seeds, dtype=np.uint64)
    _anneal(weights, best, seeds, schedule.moves_per_city * n, schedule.start, schedule.end, trace, found)
    return (trace if steps else best), found


@numba.njit(cache=True, nogil=True)
def _anneal(weights, best, seeds, moves, start, end, trace, found):  # type: ignore[no-untyped-def]
    batch, n = best.shape
    tour = np.empty(n, dtype=np.int64)
    factor = (end / start) ** (1.0 / max(moves - 1, 1))
    for b in range(batch):
        symmetric = np.array_equal(weights[b], weights[b].T)
        tour[:] = best[b]
        state, excess = seeds[b], np.int64(0)  # cost of the tour minus that of the incumbent
        temperature = start * _mean_weight(weights[b])
        if trace.shape[1] > 0:
            trace[b, 0] = tour
        for _ in range(moves if n > 2 else 0):
            state, one = next_uniform(state)
            state, two = next_uniform(state)
            i, j = 1 + int(one * (n - 1)), 1 + int(two * (n - 2))
            if j >= i:
                j += 1
            i, j = min(i, j), max(i, j)
            change = _reversal_change(weights[b], tour, symmetric, i, j)
            if change > 0:
                state, chance = next_uniform(state)
            if change <= 0 or chance < np.exp(-change / temperature):
                _reverse(tour, i, j)
                excess += change
                if excess < 0:
                    excess = 0
                    best[b] = tour
                    found[b] += 1
                    if found[b] < trace.shape[1]:
                        trace[b, found[b]] = tour
            temperature *= factor


@numba.njit(cache=True, nogil=True)
def _mean_weight(weights):  # type: ignore[no-untyped-def]
    n, total = len(weights), 0.0
    for u in range(n):
        for v in range(n):
            if u != v:
                total += weights[u, v]
    return total / max(n * (n - 1), 1)


@numba.njit(cache=True, nogil=True)
def _reversal_change(weights, tour, symmetric, i, j):  # type: ignore[no-untyped-def]
    """By how much the tour grows when positions i..j >= 1 are turned round."""
    before, first, last, after = tour[i - 1], tour[i], tour[j], tour[(j + 1) % len(tour)]
    change = np.int64(weights[before, last]) + weights[first, after] - weights[before, first] - weights[last, after]
    if not symmetric:
        for t in range(i, j):
            change += np.int64(weights[tour[t + 1], tour[t]]) - weights[tour[t], tour[t + 1]]
    return change


@numba.njit(cache=True, nogil=True)
def _reverse(tour, i, j):  # type: ignore[no-untyped-def]
    while i < j:
        tour[i], tour[j] = tour[j], tour[i]
        i += 1
        j -= 1
