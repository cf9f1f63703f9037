"""Rules that look a fixed number of steps ahead and judge what they see without completing the tour.

The tour that is still to come from a state has left + 1 arcs, where `left` is the number of unvisited cities: one to
each of them, then home to city 0. A horizon of h arcs looks at the first min(h, left + 1) of these, so near the end of
the tour every rule sees the whole rest of it.

Look-ahead      the cheapest start of h arcs through different unvisited cities
Beam            the same starts, but only `width` of them survive each step
Value iteration walks instead of paths, by dynamic programming: f_0(i) = w(i, 0) and f_k(i) = min over unvisited j != i
                of w(i, j) + f_(k-1)(j). A walk may come back to a city, so the states are the cities and not the sets
                of cities: the state-space relaxation of Christofides, Mingozzi and Toth (Networks 11, 1981). Their
                two-cycle elimination, which forbids i, j, i, is optional.
"""

import numba
import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.solvers.constructive.states import checked_prefixes, city_zero
from mesaprobe.solvers.lookahead import UNREACHABLE
from mesaprobe.solvers.weights import checked_weights

_PATHS, _BEAM, _WALKS, _TWO_CYCLE_FREE_WALKS = range(4)


def horizon_values(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"], arcs: int
) -> Int64[np.ndarray, "batch decision n"]:
    """For every decision along the tours and every free city a: cost of the cheapest `arcs` >= 1 next arcs of a tour
    that goes to a first (all that are left, if there are fewer). Visited cities get `UNREACHABLE`.

    With 1 arc this is the distance; with n arcs it is Q*.
    """
    return _along(weights, tours, _PATHS, _at_least(arcs, 1, "the horizon"), 1)


def horizon_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    arcs: int,
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` cities of each prefix, then always take the city of least `horizon_values` (the
    lowest index among equals).

    >>> weights = np.array([[[0, 1, 2, 9], [1, 0, 9, 9], [2, 9, 0, 1], [9, 9, 1, 0]]], dtype=np.int32)
    >>> horizon_tours(weights, 1), horizon_tours(weights, 2)
    (array([[0, 1, 2, 3]]), array([[0, 2, 3, 1]]))
    """
    return _complete(weights, prefixes, lengths, _PATHS, _at_least(arcs, 1, "the horizon"), 1)


def horizon_tours(weights: Int32[np.ndarray, "batch n n"], arcs: int) -> Int64[np.ndarray, "batch n"]:
    """`horizon_completions` from city 0."""
    return horizon_completions(weights, *city_zero(weights), arcs)


def horizon_beam_values(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"], width: int, arcs: int
) -> Int64[np.ndarray, "batch decision n"]:
    """As `horizon_values`, over what a beam sees: after each arc but the last the `width` cheapest partial paths go on.

    Among equals those of the better parent go on, then those with the lower city. A city gets `UNREACHABLE` if it is
    visited or if no path that starts with it was left before the last arc.
    """
    return _along(weights, tours, _BEAM, _at_least(arcs, 1, "the horizon"), _at_least(width, 1, "the beam width"))


def horizon_beam_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    width: int,
    arcs: int,
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` cities of each prefix, then always take the first city of the cheapest path that the
    beam finds (the lowest index among equals), and search anew from there.

    >>> weights = np.array([[[0, 1, 2, 9], [1, 0, 9, 9], [2, 9, 0, 1], [9, 9, 1, 0]]], dtype=np.int32)
    >>> horizon_beam_tours(weights, 1, 2), horizon_beam_tours(weights, 2, 2)
    (array([[0, 1, 2, 3]]), array([[0, 2, 3, 1]]))
    """
    width, arcs = _at_least(width, 1, "the beam width"), _at_least(arcs, 1, "the horizon")
    return _complete(weights, prefixes, lengths, _BEAM, arcs, width)


def horizon_beam_tours(weights: Int32[np.ndarray, "batch n n"], width: int, arcs: int) -> Int64[np.ndarray, "batch n"]:
    """`horizon_beam_completions` from city 0."""
    return horizon_beam_completions(weights, *city_zero(weights), width, arcs)


def walk_values(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    iterations: int,
    *,
    two_cycles: bool = True,
) -> Int64[np.ndarray, "batch decision n"]:
    """For every decision along the tours and every free city a: w(current, a) + f_k(a) with k = min(iterations,
    left - 1), so that no walk is longer than the rest of the tour. Visited cities get `UNREACHABLE`.

    With n - 2 iterations or more it is a lower bound on Q*, since every completion is one of the walks. Without
    `two_cycles` no walk goes i, j, i; the bound is then at least as high.
    """
    return _along(weights, tours, _walks(two_cycles), _at_least(iterations, 0, "the number of iterations"), 1)


def walk_completions(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    iterations: int,
    *,
    two_cycles: bool = True,
) -> Int64[np.ndarray, "batch n"]:
    """Keep the first `lengths[b]` cities of each prefix, then always take the city of least `walk_values` (the lowest
    index among equals).

    >>> weights = np.array([[[0, 1, 2, 9], [1, 0, 9, 9], [2, 9, 0, 1], [9, 9, 1, 0]]], dtype=np.int32)
    >>> walk_tours(weights, 2)
    array([[0, 2, 3, 1]])
    """
    iterations = _at_least(iterations, 0, "the number of iterations")
    return _complete(weights, prefixes, lengths, _walks(two_cycles), iterations, 1)


def walk_tours(
    weights: Int32[np.ndarray, "batch n n"], iterations: int, *, two_cycles: bool = True
) -> Int64[np.ndarray, "batch n"]:
    """`walk_completions` from city 0."""
    return walk_completions(weights, *city_zero(weights), iterations, two_cycles=two_cycles)


def _walks(two_cycles: bool) -> int:
    return _WALKS if two_cycles else _TWO_CYCLE_FREE_WALKS


def _at_least(value: int, least: int, name: str) -> int:
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}")
    return value


def _along(weights: np.ndarray, tours: np.ndarray, rule: int, steps: int, width: int) -> np.ndarray:
    weights = checked_weights(weights)
    batch, n = weights.shape[:2]
    tours, _ = checked_prefixes(weights, tours, np.full(batch, n))
    values = np.full((batch, n - 1, n), UNREACHABLE, dtype=np.int64)
    _values_along(weights, tours, rule, steps, width, values)
    return values


def _complete(
    weights: np.ndarray, prefixes: np.ndarray, lengths: np.ndarray, rule: int, steps: int, width: int
) -> np.ndarray:
    weights = checked_weights(weights)
    tours, lengths = checked_prefixes(weights, prefixes, lengths)
    _build(weights, tours, lengths, rule, steps, width)
    return tours


@numba.njit(cache=True, nogil=True)
def _path_cost(weights, city, free, arcs):  # type: ignore[no-untyped-def]
    """Cheapest `arcs` next arcs of a tour from `city` (itself no longer free)."""
    if arcs == 0:
        return np.int64(0)
    best = UNREACHABLE
    for following in range(weights.shape[0]):
        if free[following]:
            free[following] = False
            best = min(best, weights[city, following] + _path_cost(weights, following, free, arcs - 1))
            free[following] = True
    return np.int64(weights[city, 0]) if best == UNREACHABLE else best


@numba.njit(cache=True, nogil=True)
def _extended(weights, paths, costs, length, free):  # type: ignore[no-untyped-def]
    """All paths of `length` + 1 cities that extend the paths [path, arc] from the current city, and their costs: to
    each free city, home where none is left, nowhere from home."""
    n = weights.shape[0]
    longer = np.empty((len(paths) * n, paths.shape[1]), dtype=np.int64)
    spent = np.empty(len(longer), dtype=np.int64)
    count = 0
    for parent in range(len(paths)):
        last, first_child = paths[parent, length - 1], count
        for city in range(n):
            if free[city] and not (paths[parent, 1:length] == city).any():
                longer[count], spent[count] = paths[parent], costs[parent] + weights[last, city]
                longer[count, length] = city
                count += 1
        if count == first_child:
            at_home = length > 1 and last == 0
            longer[count], spent[count] = paths[parent], costs[parent] + (0 if at_home else weights[last, 0])
            longer[count, length] = 0
            count += 1
    return longer[:count], spent[:count]


@numba.njit(cache=True, nogil=True)
def _beam_values(weights, current, free, width, arcs, values):  # type: ignore[no-untyped-def]
    paths, costs = np.full((1, arcs + 1), current, dtype=np.int64), np.zeros(1, dtype=np.int64)
    for length in range(1, arcs + 1):
        if length > 1:
            kept = np.argsort(costs, kind="mergesort")[:width]  # stable, so that equals keep their order
            paths, costs = paths[kept], costs[kept]
        paths, costs = _extended(weights, paths, costs, length, free)
    for path in range(len(paths)):
        values[paths[path, 1]] = min(values[paths[path, 1]], costs[path])


@numba.njit(cache=True, nogil=True)
def _walk_values(weights, current, free, iterations, two_cycles, values):  # type: ignore[no-untyped-def]
    """`rest[p, i]` is f_k(i) without a return to p; row `current` forbids nothing, since it is not free."""
    n = weights.shape[0]
    rest = np.empty((n, n), dtype=np.int64)
    for i in range(n):
        rest[:, i] = weights[i, 0]
    for _ in range(min(iterations, free.sum() - 1)):
        before = rest.copy()
        for p in range(n):
            for i in range(n):
                rest[p, i] = UNREACHABLE
                for j in range(n):
                    tail = before[current if two_cycles else i, j]
                    if free[j] and j != i and (two_cycles or j != p) and tail != UNREACHABLE:
                        rest[p, i] = min(rest[p, i], weights[i, j] + tail)
    for city in range(n):
        if free[city]:
            values[city] = weights[current, city] + rest[current, city]


@numba.njit(cache=True, nogil=True)
def _values_at(weights, current, free, rule, steps, width, values):  # type: ignore[no-untyped-def]
    """Write the value of each free city at the state at `current`; return the city with the least."""
    values[:] = UNREACHABLE
    if rule == _BEAM:
        _beam_values(weights, current, free, width, steps, values)
    elif rule == _PATHS:
        for city in range(len(free)):
            if free[city]:
                free[city] = False
                values[city] = weights[current, city] + _path_cost(weights, city, free, steps - 1)
                free[city] = True
    else:
        _walk_values(weights, current, free, steps, rule == _WALKS, values)
    return np.argmin(values)


@numba.njit(cache=True, nogil=True)
def _values_along(weights, tours, rule, steps, width, values):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    for b in range(batch):
        free = np.ones(n, dtype=np.bool_)
        for t in range(n - 1):
            free[tours[b, t]] = False
            _values_at(weights[b], tours[b, t], free, rule, steps, width, values[b, t])


@numba.njit(cache=True, nogil=True)
def _build(weights, tours, lengths, rule, steps, width):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    values = np.empty(n, dtype=np.int64)
    for b in range(batch):
        free = np.ones(n, dtype=np.bool_)
        for t in range(n):
            if t >= lengths[b]:
                tours[b, t] = _values_at(weights[b], tours[b, t - 1], free, rule, steps, width, values)
            free[tours[b, t]] = False
