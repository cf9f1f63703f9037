"""Lower bounds on the rest of a tour, at any decision state (and at the first: on the whole tour).

| kind | relaxation of "a path from the current city through all unvisited ones to city 0" | source |
|---|---|---|
| none | zero (weights are not negative) | |
| mst | a spanning tree of the unvisited cities, and the cheapest edge to it at either end | Prim 1957 |
| one_tree | the same with the two ends at different cities; at the first decision Held and Karp's 1-tree | 1970 |
| ascent | one_tree with city prices from subgradient ascent, rounded up to a whole number | 1971 |
| assignment | one way out of and one way into every city, short cycles allowed | Kuhn 1955 |

All are exact integers and hold for asymmetric weights too, where the tree bounds use the cheaper direction
between two unvisited cities. none <= mst <= one_tree <= ascent <= cost of the best completion >= assignment, and
all are exact when one city is left. Except for `ascent`, prefix cost + bound never falls along a tour.
"""

from typing import Literal, NamedTuple, TypeAlias, get_args

import numba
import numpy as np
from jaxtyping import Float64, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.solvers.bounds.ascent import ascend, one_tree, price_scales
from mesaprobe.solvers.bounds.assignment import Assignment, cheapest_assignment, load_assignment, make_assignment
from mesaprobe.solvers.bounds.spanning_trees import (
    Remainder,
    load_remainder,
    make_remainder,
    tree_and_cheapest_ends,
)
from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.lookahead import UNREACHABLE, nearest_completion_cost
from mesaprobe.solvers.weights import checked_weights

BoundKind: TypeAlias = Literal["none", "mst", "one_tree", "ascent", "assignment"]
BOUND_KINDS: tuple[str, ...] = get_args(BoundKind)
_NONE, _MST, _ONE_TREE, _ASCENT, _ASSIGNMENT = range(len(BOUND_KINDS))


class BoundSpace(NamedTuple):
    """Scratch space of the bounds, reused from state to state."""

    path: Remainder
    problem: Assignment
    direction: Float64[np.ndarray, " n"]
    best_prices: Int64[np.ndarray, " n"]


def path_bounds(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    kind: BoundKind,
    steps: slice = slice(None),
) -> Int64[np.ndarray, "batch step"]:
    """A lower bound on the remaining cost at the decisions `steps` (of n - 1) along the given tours.

    Decision t is the state after `tours[b, :t + 1]`; its remaining cost is V* = the least cost of going on from
    `tours[b, t]` through all unvisited cities to city 0. Tours start at city 0.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> path_bounds(square, np.array([[0, 1, 2, 3]]), "one_tree")
    array([[4, 3, 2]])
    """
    lengths = np.arange(1, tours.shape[1])[steps]
    tours = np.ascontiguousarray(tours, dtype=np.int64)
    rows = np.repeat(np.arange(len(tours)), len(lengths))
    bounds = _bounds_of_states(weights, rows, tours[rows], np.tile(lengths, len(tours)), kind)
    return bounds.reshape(len(tours), len(lengths))


def state_bounds(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    kind: BoundKind,
) -> Int64[np.ndarray, " batch"]:
    """A lower bound on the remaining cost after the first `lengths[b]` cities (1 to n - 1) of each prefix."""
    prefixes, lengths = checked_prefixes(weights, prefixes, lengths)
    return _bounds_of_states(weights, np.arange(len(prefixes)), prefixes, lengths, kind)


def instance_bounds(weights: Int32[np.ndarray, "batch n n"], kind: BoundKind) -> Int64[np.ndarray, " batch"]:
    """A lower bound on the cost of every tour of each instance.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> int(instance_bounds(square, "assignment")[0])
    4
    """
    return state_bounds(weights, *city_zero(weights), kind)


def action_bounds(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    kind: BoundKind,
    steps: slice = slice(None),
) -> Int64[np.ndarray, "batch step n"]:
    """A lower bound on Q* of every action at the decisions `steps` along the tours: the weight to the next city
    plus the bound on what remains from there. Visited cities get `UNREACHABLE`.
    """
    weights = checked_weights(weights)
    chosen = np.arange(tours.shape[1] - 1)[steps]
    bounds = np.full((len(tours), len(chosen), tours.shape[1]), UNREACHABLE, dtype=np.int64)
    tours = np.ascontiguousarray(tours, dtype=np.int64)
    code, scales, space = kind_code(kind), price_scales(weights), bound_space(tours.shape[1])
    _bound_actions(weights, tours, chosen, code, scales, space, bounds)
    return bounds


def prefix_costs(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Int64[np.ndarray, "batch decision"]:
    """What the tours have cost so far at each of their n - 1 decisions; the first is 0.

    >>> prefix_costs(np.array([[[0, 1, 9], [9, 0, 2], [3, 9, 0]]], dtype=np.int32), np.array([[0, 1, 2]]))
    array([[0, 1]])
    """
    rows = np.arange(len(weights))[:, None]
    moves = weights[rows, tours[:, :-1], tours[:, 1:]].astype(np.int64)
    return np.cumsum(moves, axis=1) - moves


def kind_code(kind: BoundKind) -> int:
    """The number by which compiled code knows a kind of bound; raises UserError for an unknown one."""
    if kind not in BOUND_KINDS:
        raise UserError(f"unknown bound {kind!r}; known: {', '.join(BOUND_KINDS)}")
    return BOUND_KINDS.index(kind)


def bound_space(n: int) -> BoundSpace:
    """Scratch space for `remaining_bound` on instances with n cities."""
    return BoundSpace(make_remainder(n), make_assignment(n), np.zeros(n), np.zeros(n, dtype=np.int64))


def _bounds_of_states(
    weights: np.ndarray, rows: np.ndarray, prefixes: np.ndarray, lengths: np.ndarray, kind: BoundKind
) -> np.ndarray:
    """`rows[i]` is the instance of state i, `prefixes[i, :lengths[i]]` its prefix."""
    weights = checked_weights(weights)
    n = weights.shape[1]
    if lengths.max(initial=1) >= n:
        raise ValueError(
            f"a bound needs at least one unvisited city: prefix lengths up to {n - 1}, got {lengths.max()}"
        )
    bounds = np.zeros(len(lengths), dtype=np.int64)
    code, scales, space = kind_code(kind), price_scales(weights), bound_space(n)
    _bound_states(weights, rows, prefixes, lengths, code, scales, space, bounds)
    return bounds


@numba.njit(cache=True, nogil=True)
def remaining_bound(weights, free, current, kind, scale, space):  # type: ignore[no-untyped-def]
    """Bound on the path from `current` through the cities in `free` (at least one) to city 0 of one instance."""
    path = space.path
    if kind == _NONE:
        return np.int64(0)
    if kind == _ASSIGNMENT:
        return cheapest_assignment(space.problem, load_assignment(weights, free, current, space.problem))
    if kind == _ASCENT:
        k = load_remainder(weights, free, current, scale, path)
        target = scale * nearest_completion_cost(weights, current, free.copy())
        best = ascend(path, k, target, scale, k, space.direction, space.best_prices)
        return -(-best // scale)
    if kind == _MST:
        return tree_and_cheapest_ends(weights, free, current, path)
    return one_tree(path, load_remainder(weights, free, current, 1, path))


@numba.njit(cache=True, nogil=True)
def _bound_states(weights, rows, prefixes, lengths, kind, scales, space, bounds):  # type: ignore[no-untyped-def]
    free = np.empty(weights.shape[1], dtype=np.bool_)
    for i in range(len(lengths)):
        free[:] = True
        for t in range(lengths[i]):
            free[prefixes[i, t]] = False
        b = rows[i]
        bounds[i] = remaining_bound(weights[b], free, prefixes[i, lengths[i] - 1], kind, scales[b], space)


@numba.njit(cache=True, nogil=True)
def _bound_actions(weights, tours, chosen, kind, scales, space, bounds):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    free = np.empty(n, dtype=np.bool_)
    for b in range(batch):
        for i in range(len(chosen)):
            free[:] = True
            for t in range(chosen[i] + 1):
                free[tours[b, t]] = False
            current = tours[b, chosen[i]]
            left = free.sum()
            for city in range(n):
                if free[city]:
                    free[city] = False
                    onward = np.int64(weights[b, city, 0])
                    if left > 1:
                        onward = remaining_bound(weights[b], free, city, kind, scales[b], space)
                    bounds[b, i, city] = weights[b, current, city] + onward
                    free[city] = True
