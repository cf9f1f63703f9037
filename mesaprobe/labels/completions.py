"""Plans: which edges the optimal completions of a state use, after every candidate next city (method.md section 5, E6).

Where several completions are optimal, none of them is picked. An edge is labelled with the share of the optimal
completions that use it: exactly 1 means all of them, exactly 0 none, anything between some.
"""

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.objectives import OBJECTIVES, Objective, mirrored_weights, objective_values
from mesaprobe.labels.remaining import chosen_steps, fill_table, make_table, remaining_cities, unvisited_at
from mesaprobe.labels.values import optimal_actions, runner_up_actions
from mesaprobe.solvers.weights import checked_weights


@dataclass(frozen=True, eq=False)
class CompletionLabels:
    """Edges of the optimal completions: the ways from the current city on that are best for the objective.

    `[..., u, v]` speaks of the arc from u to v, or with undirected edges of {u, v}, and is then symmetric. The
    edges of the prefix are not part of a completion; those to the candidate and home to city 0 are.
    """

    edges: Float32[np.ndarray, "batch step n n n"]
    """Share of the best completions that go to city a (third axis) first; 0 where a is visited."""
    counts: Int64[np.ndarray, "batch step n"]
    """How many such completions there are; 0 where a is visited."""
    chosen: Float32[np.ndarray, "batch step n n"]
    """Share of all optimal completions of the state, over all optimal next cities."""
    runner_up: Float32[np.ndarray, "batch step n n"]
    """Share of all best completions by the best next cities outside the optimal set; 0 where there are none.

    Such a completion costs more than the optimum, so it is another undirected tour at every state, the first
    of a symmetric instance included, where both directions of an optimal tour are optimal."""


def completion_labels(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    steps: slice,
    undirected: bool,
    objective: Objective = "shortest",
) -> CompletionLabels:
    """The optimal completions at the decisions `steps` along the tours, exactly, for n <= 20 cities.

    A bottleneck-optimal completion is any whose largest weight is the least possible; there are many.
    Raises UserError for more cities, and if `undirected` edges are asked of asymmetric weights.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> labels = completion_labels(square, np.array([[0, 1, 2, 3]]), slice(1, 2), undirected=True)
    >>> labels.chosen[0, 0].astype(int)
    array([[0, 0, 0, 1],
           [0, 0, 1, 0],
           [0, 1, 0, 1],
           [1, 0, 1, 0]])
    """
    weights, tours = checked_weights(weights), np.ascontiguousarray(tours, dtype=np.int64)
    if undirected and not np.array_equal(weights, weights.transpose(0, 2, 1)):
        raise UserError("undirected edges are defined on symmetric weights only; ask for arcs")
    if objective not in OBJECTIVES:
        raise UserError(f"unknown objective {objective!r}; known: {', '.join(OBJECTIVES)}")
    if objective == "longest":
        weights, objective = mirrored_weights(weights).weights, "shortest"
    values = objective_values(weights, tours, steps, objective)
    return _label(weights, tours, steps, undirected, objective == "bottleneck", values)


def _label(
    weights: np.ndarray,
    tours: np.ndarray,
    steps: slice,
    undirected: bool,
    bottleneck: bool,
    values: Float64[np.ndarray, "batch step n"],
) -> CompletionLabels:
    batch, n = tours.shape
    chosen = chosen_steps(n, steps)
    start = int(chosen[0]) + 1
    labels = CompletionLabels(
        edges=np.zeros((batch, len(chosen), n, n, n), dtype=np.float32),
        counts=np.zeros((batch, len(chosen), n), dtype=np.int64),
        chosen=np.zeros((batch, len(chosen), n, n), dtype=np.float32),
        runner_up=np.zeros((batch, len(chosen), n, n), dtype=np.float32),
    )
    groups = np.stack([optimal_actions(values), runner_up_actions(values)])
    table = make_table(n, start)
    space = (np.zeros(table.size, dtype=np.int64), np.zeros_like(table), np.zeros_like(table))
    outputs = (labels.edges, labels.counts, labels.chosen, labels.runner_up)
    _label_batch(weights, tours, chosen, groups, table, bottleneck, undirected, space, outputs)
    return labels


@numba.njit(cache=True, nogil=True)
def _label_batch(weights, tours, chosen, groups, table, bottleneck, undirected, space, outputs):  # type: ignore[no-untyped-def]
    edges, counts, optimal, runner_up = outputs
    n, m, start = tours.shape[1], table.shape[1], chosen[0] + 1
    uses, pooled = np.zeros((n, n), dtype=np.int64), np.zeros((2, n, n), dtype=np.int64)
    totals = np.zeros(2, dtype=np.int64)
    for b in range(len(tours)):
        left = remaining_cities(weights[b], tours[b], start)
        fill_table(left, bottleneck, table)
        for i in range(len(chosen)):
            free, current = unvisited_at(chosen[i], start, m), tours[b, chosen[i]]
            pooled[:], totals[:] = 0, 0
            for a in range(m):
                if free >> a & 1:
                    city = left.cities[a]
                    uses[:] = 0
                    count = _count_uses(weights[b], left, table, current, a, free, bottleneck, space, uses)
                    if undirected:
                        uses += uses.copy().T
                    counts[b, i, city] = count
                    write_shares(uses, count, edges[b, i, city])
                    for group in range(2):
                        if groups[group, b, i, city]:
                            pooled[group] += uses
                            totals[group] += count
            write_shares(pooled[0], totals[0], optimal[b, i])
            write_shares(pooled[1], totals[1], runner_up[b, i])


@numba.njit(cache=True, nogil=True)
def _count_uses(weights, left, table, current, a, free, bottleneck, space, uses):  # type: ignore[no-untyped-def]
    """Add to `uses[u, v]` how many best completions that go from `current` to a walk from u to v; returns how many
    there are.

    The states that lie on best completions are listed from a on, each before those that follow it: `reach` counts
    the best ways from a to a state, `ways` those from it home. Both fit in int64 up to n = 20, and are left zero.
    """
    listed, reach, ways = space
    cities, inner = left.cities, left.inner
    m, step = len(cities), np.int64(weights[current, cities[a]])
    first = free ^ (1 << a)
    limit = max(step, table[first, a])  # of the bottleneck
    listed[0], size, done = first * m + a, 1, 0
    reach[first, a] = 1
    while done < size:
        rest, j = listed[done] // m, listed[done] % m
        done += 1
        for k in range(m):
            if _continues(inner, table, rest, j, k, limit, bottleneck):
                after = rest ^ (1 << k)
                if reach[after, k] == 0:
                    listed[size] = after * m + k
                    size += 1
                reach[after, k] += reach[rest, j]
    for place in range(size - 1, -1, -1):
        rest, j = listed[place] // m, listed[place] % m
        if rest == 0:
            ways[rest, j] = 1
            uses[cities[j], 0] += reach[rest, j]
        for k in range(m):
            if _continues(inner, table, rest, j, k, limit, bottleneck):
                onward = ways[rest ^ (1 << k), k]
                ways[rest, j] += onward
                uses[cities[j], cities[k]] += reach[rest, j] * onward
    total = ways[first, a]
    uses[current, cities[a]] += total
    for place in range(size):
        rest, j = listed[place] // m, listed[place] % m
        reach[rest, j] = ways[rest, j] = 0
    return total


@numba.njit(cache=True, nogil=True, inline="always")
def _continues(inner, table, rest, j, k, limit, bottleneck):  # type: ignore[no-untyped-def]
    """Whether a best completion that is at city j with the set `rest` left may go to city k."""
    if rest >> k & 1 == 0:
        return False
    onward = table[rest ^ (1 << k), k]
    if bottleneck:
        return max(inner[j, k], onward) <= limit
    return inner[j, k] + onward == table[rest, j]


@numba.njit(cache=True, nogil=True)
def write_shares(uses, total, shares):  # type: ignore[no-untyped-def]
    """Write uses / total, rounded so that 1 and 0 are reached exactly."""
    below_one = np.float32(1 - 2.0**-24)
    for u in range(len(uses)):
        for v in range(len(uses)):
            if uses[u, v] > 0:
                share = np.float32(uses[u, v] / total)
                shares[u, v] = share if uses[u, v] == total else min(share, below_one)
