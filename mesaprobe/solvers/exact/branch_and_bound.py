"""Depth-first branch and bound over prefixes of tours (Little, Murty, Sweeney and Karel 1963), with a trace.

Children of a node are visited nearest first, the lowest index among equals; a child's bound is computed when its
turn comes, against the incumbent of that moment. So without a start tour the first leaf is the nearest-neighbour
tour. Bounds depend on the state alone (never on the road to it), which makes each node's bound a label that
`path_bounds` can give for any network's state. The weak `mst` bound leaves backtracks to look at and is the
default; `ascent` empties most trees. For speed alone, see `reduced_cost_search.py`.
"""

from typing import Literal, NamedTuple

import numba
import numpy as np
from jaxtyping import Bool, Int8, Int16, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.problems import tour_costs
from mesaprobe.solvers.bounds.ascent import price_scales
from mesaprobe.solvers.bounds.lower_bounds import BoundKind, bound_space, kind_code, remaining_bound
from mesaprobe.solvers.constructive import nearest_neighbour
from mesaprobe.solvers.exact.held_karp import OptimalTours
from mesaprobe.solvers.exact.search_trace import NO_INCUMBENT, SearchEvent, SearchTotals, SearchTrace
from mesaprobe.solvers.weights import checked_weights

Start = Literal["none", "nearest_neighbour"]

_EXPANDED, _PRUNED, _INCUMBENT, _NO_BETTER = (event.value for event in SearchEvent)
_NO_LIMIT = np.iinfo(np.int64).max


class _Counts(NamedTuple):
    """Totals of the searches so far, one entry per instance; the fields of `SearchTotals`."""

    nodes: Int64[np.ndarray, " batch"]
    expanded: Int64[np.ndarray, " batch"]
    pruned: Int64[np.ndarray, " batch"]
    incumbents: Int64[np.ndarray, " batch"]
    backtracks: Int64[np.ndarray, " batch"]
    deepest_backtrack: Int64[np.ndarray, " batch"]
    finding_nodes: Int64[np.ndarray, " batch"]


class _Record(NamedTuple):
    """Where the nodes are written; of length 0 when only totals are wanted."""

    prefixes: Int16[np.ndarray, "node n-1"]
    depths: Int16[np.ndarray, " node"]
    parents: Int32[np.ndarray, " node"]
    bounds: Int64[np.ndarray, " node"]
    incumbents: Int64[np.ndarray, " node"]
    events: Int8[np.ndarray, " node"]


class _Stack(NamedTuple):
    """The path from the root to the node at hand; entry d belongs to its prefix of d cities."""

    prefix: Int64[np.ndarray, " n"]
    free: Bool[np.ndarray, " n"]
    costs: Int64[np.ndarray, " n"]
    bounds: Int64[np.ndarray, " n"]
    nodes: Int64[np.ndarray, " n"]
    tried: Int64[np.ndarray, " n"]
    """How many of the current city's neighbours, nearest first, have been tried."""


class _Searches(NamedTuple):
    """The instances and the state of their searches."""

    weights: Int32[np.ndarray, "batch n n"]
    nearest: Int64[np.ndarray, "batch n n"]
    """Neighbours of each city, nearest first."""
    scales: Int64[np.ndarray, " batch"]
    tours: Int64[np.ndarray, "batch n"]
    incumbents: Int64[np.ndarray, " batch"]
    proven: Bool[np.ndarray, " batch"]


def branch_and_bound(weights: Int32[np.ndarray, "batch n n"]) -> OptimalTours:
    """An optimal tour and its cost for each instance, by the bound that leaves the smaller tree: `ascent` on symmetric
    weights, `assignment` on others, both from the nearest-neighbour tour.

    On drawn instances with n = 20 that takes about 0.05 s (matrix); time can grow tenfold with every four cities.

    >>> branch_and_bound(np.array([[[0, 1, 9, 9], [9, 0, 1, 9], [9, 9, 0, 1], [1, 9, 9, 0]]], dtype=np.int32))
    OptimalTours(tours=array([[0, 1, 2, 3]]), costs=array([4]))
    """
    weights = checked_weights(weights)
    symmetric = (weights == weights.transpose(0, 2, 1)).all(axis=(1, 2))
    tours = np.zeros(weights.shape[:2], dtype=np.int64)
    bounds: dict[BoundKind, np.ndarray] = {"ascent": symmetric, "assignment": ~symmetric}
    for bound, rows in bounds.items():
        tours[rows] = branch_and_bound_totals(weights[rows], bound, "nearest_neighbour").tours
    return OptimalTours(tours, tour_costs(weights, tours))


def branch_and_bound_totals(
    weights: Int32[np.ndarray, "batch n n"],
    bound: BoundKind = "mst",
    start: Start = "none",
    node_budget: int | None = None,
) -> SearchTotals:
    """Optimal tours with the totals of the search for each; n >= 2, symmetric or not.

    `start`: the first incumbent, none or the nearest-neighbour tour. `node_budget` ends a search after that many
    nodes with the best tour so far and `proven` False; before the first leaf that is the nearest-neighbour tour.

    >>> weights = np.array([[[0, 1, 9, 9], [9, 0, 1, 9], [9, 9, 0, 1], [1, 9, 9, 0]]], dtype=np.int32)
    >>> totals = branch_and_bound_totals(weights)
    >>> totals.costs, totals.nodes, totals.finding_nodes, totals.proving_nodes
    (array([4]), array([6]), array([3]), array([3]))
    """
    return _search_batch(checked_weights(weights), bound, start, node_budget, record_nodes=0)[0]


def branch_and_bound_trace(
    weights: Int32[np.ndarray, "n n"],
    bound: BoundKind = "mst",
    start: Start = "none",
    node_budget: int | None = None,
) -> SearchTrace:
    """Every node of `branch_and_bound_totals` on one instance, in the order of visits.

    A node takes 2n + 21 bytes; set `node_budget` where the tree could outgrow the memory.
    """
    batch = checked_weights(weights[None])
    count = int(_search_batch(batch, bound, start, node_budget, record_nodes=0)[0].nodes[0])
    totals, record = _search_batch(batch, bound, start, node_budget, record_nodes=count)
    return SearchTrace(
        weights=batch[0],
        bound=bound,
        start_cost=int(_start(batch, start)[1][0]),
        **record._asdict(),
        tour=totals.tours[0],
        cost=int(totals.costs[0]),
        proven=True if totals.proven[0] else None,
    )


def _search_batch(
    weights: np.ndarray, bound: BoundKind, start: Start, node_budget: int | None, record_nodes: int
) -> tuple[SearchTotals, _Record]:
    if node_budget is not None and node_budget < 1:
        raise UserError(f"the node budget must be at least 1, got {node_budget}")
    batch, n = weights.shape[:2]
    counts = _Counts(*(np.zeros(batch, dtype=np.int64) for _ in _Counts._fields))
    dtypes = {"depths": np.int16, "parents": np.int32, "events": np.int8}
    vectors = [np.zeros(record_nodes, dtype=dtypes.get(name, np.int64)) for name in _Record._fields[1:]]
    record = _Record(np.full((record_nodes, n - 1), -1, dtype=np.int16), *vectors)
    tours, incumbents = _start(weights, start)
    proven = np.zeros(batch, dtype=np.bool_)
    searches = _Searches(
        weights, np.argsort(weights, axis=2, kind="stable"), price_scales(weights), tours, incumbents, proven
    )
    budget = _NO_LIMIT if node_budget is None else node_budget
    _search_all(searches, kind_code(bound), budget, counts, record, _make_stack(n), bound_space(n))
    return SearchTotals(tours=tours, costs=tour_costs(weights, tours), proven=proven, **counts._asdict()), record


def _start(weights: np.ndarray, start: Start) -> tuple[np.ndarray, np.ndarray]:
    """The tour to return if none is found, and the cost of the first incumbent."""
    tours = nearest_neighbour(weights)
    if start == "none":
        return tours, np.full(len(weights), NO_INCUMBENT)
    if start == "nearest_neighbour":
        return tours, tour_costs(weights, tours)
    raise UserError(f"unknown start {start!r}; known: none, nearest_neighbour")


def _make_stack(n: int) -> _Stack:
    prefix, costs, bounds, nodes, tried = (np.zeros(n, dtype=np.int64) for _ in range(5))
    nodes[0] = -1  # the root's parent
    return _Stack(prefix, np.zeros(n, dtype=np.bool_), costs, bounds, nodes, tried)


@numba.njit(cache=True, nogil=True)
def _search_all(searches, kind, budget, counts, record, stack, space):  # type: ignore[no-untyped-def]
    for b in range(len(searches.weights)):
        _search(searches, b, kind, budget, counts, record, stack, space)


@numba.njit(cache=True, nogil=True)
def _search(searches, b, kind, budget, counts, record, stack, space):  # type: ignore[no-untyped-def]
    """Search instance b depth first; `depth` is the number of cities in the prefix at hand."""
    weights, nearest = searches.weights[b], searches.nearest[b]
    stack.prefix[0] = 0
    stack.free[:] = True
    stack.free[0] = False
    depth, last_entered = 1, 0
    while depth > 0:
        if counts.nodes[b] == budget:
            return
        event = _visit(searches, b, depth, kind, counts, record, stack, space)
        if event in (_EXPANDED, _INCUMBENT):
            taken_back = last_entered - (depth - 1)
            counts.backtracks[b] += taken_back > 0
            counts.deepest_backtrack[b] = max(counts.deepest_backtrack[b], taken_back)
            last_entered = depth
        if event == _EXPANDED:
            stack.tried[depth] = 0
        else:
            depth = _leave(depth, stack)
        child = _next_child(nearest, depth, stack)
        while child < 0 and depth > 0:
            depth = _leave(depth, stack)
            child = _next_child(nearest, depth, stack)
        if depth > 0:
            current = stack.prefix[depth - 1]
            stack.prefix[depth] = child
            stack.free[child] = False
            stack.costs[depth + 1] = stack.costs[depth] + weights[current, child]
            depth += 1
    searches.proven[b] = True


@numba.njit(cache=True, nogil=True)
def _leave(depth, stack):  # type: ignore[no-untyped-def]
    """Take the last city off the prefix; returns the new depth."""
    stack.free[stack.prefix[depth - 1]] = True
    return depth - 1


@numba.njit(cache=True, nogil=True)
def _next_child(nearest, depth, stack):  # type: ignore[no-untyped-def]
    """The nearest free city not yet tried from the end of the prefix, or -1."""
    if depth == 0:
        return -1
    current = stack.prefix[depth - 1]
    while stack.tried[depth] < len(nearest):
        city = nearest[current, stack.tried[depth]]
        stack.tried[depth] += 1
        if stack.free[city]:
            return city
    return -1


@numba.njit(cache=True, nogil=True)
def _visit(searches, b, depth, kind, counts, record, stack, space):  # type: ignore[no-untyped-def]
    """Bound the node at `depth`, decide what becomes of it, count and record it; returns the event."""
    weights, incumbent = searches.weights[b], searches.incumbents[b]
    n, current = len(weights), stack.prefix[depth - 1]
    node = counts.nodes[b]
    counts.nodes[b] += 1
    if depth == n - 1:
        last = np.argmax(stack.free)
        bound = stack.costs[depth] + weights[current, last] + weights[last, 0]
        event = _INCUMBENT if bound < incumbent else _NO_BETTER
        if event == _INCUMBENT:
            searches.incumbents[b] = bound
            searches.tours[b, :depth] = stack.prefix[:depth]
            searches.tours[b, depth] = last
            counts.incumbents[b] += 1
            counts.finding_nodes[b] = node + 1
    else:
        rest = remaining_bound(weights, stack.free, current, kind, searches.scales[b], space)
        bound = max(stack.costs[depth] + rest, stack.bounds[depth - 1])
        event = _EXPANDED if bound < incumbent else _PRUNED
        if event == _EXPANDED:
            counts.expanded[b] += 1
        else:
            counts.pruned[b] += 1
    stack.bounds[depth], stack.nodes[depth] = bound, node
    if node < len(record.events):
        record.prefixes[node, :depth] = stack.prefix[:depth]
        record.depths[node], record.parents[node] = depth, stack.nodes[depth - 1]
        record.bounds[node], record.incumbents[node], record.events[node] = bound, incumbent, event
    return event
