"""Optimal tours only, fast, for about 12 to 50 cities with symmetric weights: search on reduced costs.

Four steps for each instance. (1) A start tour: nearest neighbour, then 2-opt and Or-opt. (2) Held-Karp ascent
(`ascent.py`); many instances end here, because the bound, rounded up, meets the tour. (3) Weights plus prices are
reduced costs. Walks to the nearest city by reduced cost, improved by local search on the weights, often find the
optimum, and edges that no cheaper tour can use are barred (Volgenant and Jonker 1983). (4) What is left is a small
depth-first branch and bound over prefixes, on the reduced costs of the remaining edges; every node goes on with the
ascent from the prices of its parent.

All numbers are integers, so the tours are proven optimal.
"""

from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.problems import tour_costs
from mesaprobe.solvers.bounds.ascent import ascend, price_scales
from mesaprobe.solvers.bounds.spanning_trees import Remainder, load_remainder, make_remainder
from mesaprobe.solvers.constructive import nearest_neighbour
from mesaprobe.solvers.exact.held_karp import OptimalTours
from mesaprobe.solvers.improvement.local_search import local_search
from mesaprobe.solvers.improvement.moves import descend
from mesaprobe.solvers.weights import checked_weights

MAX_CITIES = 60
"""Mean time on random points / matrices: 0.2 / 0.2 ms at n = 20, 1.2 / 0.6 at 30, 6 / 1.3 at 40, 18 / 4 at 50 and
73 / 6 at 60. The slowest of 25 to 200 instances took up to thirty times the mean."""

_BRIEF = 3
"""Patience of the first ascent: settles most random instances in some forty steps. The second has patience n, which
cities that coincide or cluster need: there the first stops up to 30 % below what prices can reach."""
_NODE_PATIENCE = 2
"""Patience of the ascent at a node: 4 takes longer in all. Without any, some instances with few levels take minutes."""

_LONGEST_SEGMENT = 3
_CITIES_PER_WALK = 6
"""One walk on reduced costs for every 6 cities: fewer are slower on random matrices, more are on points."""

_BARRED = 2**56
"""Reduced cost of an edge that no better tour uses: above any sum of others, and 60 of them fit in int64."""


class _Space(NamedTuple):
    """Scratch space for one instance at a time."""

    path: Remainder
    direction: Float64[np.ndarray, " n"]
    free: Bool[np.ndarray, " n"]
    reduced: Int64[np.ndarray, "n n"]
    """Reduced costs in price units; `_BARRED` for barred edges and on the diagonal."""
    near: Int64[np.ndarray, "n n"]
    """Neighbours of each city by reduced cost."""
    widest: Int64[np.ndarray, "n n"]
    """Costliest edge between two cities along the spanning tree."""
    prices: Int64[np.ndarray, "n n"]
    """Prices of the unvisited cities behind a prefix of d cities, on top of the reduced costs."""
    degrees: Int64[np.ndarray, " n"]
    """Edges at each city that are not barred."""
    twin: Int64[np.ndarray, " n"]
    """The nearest lower city with the same weights to all others, -1 if there is none."""
    prefix: Int64[np.ndarray, " n"]
    spent: Int64[np.ndarray, " n"]
    """Reduced cost of the first d cities of the prefix."""
    tried: Int64[np.ndarray, " n"]
    """Neighbours of the d-th city that have been tried."""
    keys: Int64[np.ndarray, " n"]
    ends: Int64[np.ndarray, " n"]
    best_prices: Int64[np.ndarray, " n"]


def reduced_cost_search(weights: Int32[np.ndarray, "batch n n"]) -> OptimalTours:
    """An optimal tour from city 0 and its cost, for each instance; symmetric weights, 2 <= n <= 60.

    Where several tours are optimal, which one is returned follows from the search. Raises UserError for
    asymmetric weights.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> reduced_cost_search(square).costs
    array([4])
    """
    weights = checked_weights(weights)
    n = weights.shape[1]
    if n > MAX_CITIES:
        raise UserError(f"reduced_cost_search takes at most {MAX_CITIES} cities, got {n}; highs takes more")
    if (weights != weights.transpose(0, 2, 1)).any():
        raise UserError("reduced_cost_search takes symmetric weights only; held_karp takes asymmetric ones")
    tours = local_search(weights, nearest_neighbour(weights), rule="first")
    costs = tour_costs(weights, tours)
    _solve_all(weights, tours, costs, price_scales(weights), _make_space(n))
    return OptimalTours(tours, costs)


def _make_space(n: int) -> _Space:
    matrices = (np.zeros((n, n), dtype=np.int64) for _ in range(4))
    vectors = (np.zeros(n, dtype=np.int64) for _ in range(8))
    return _Space(make_remainder(n), np.zeros(n), np.zeros(n, dtype=np.bool_), *matrices, *vectors)


@numba.njit(cache=True, nogil=True)
def _solve_all(weights, tours, costs, scales, space):  # type: ignore[no-untyped-def]
    """Replace tours that are not optimal, and their costs."""
    n = weights.shape[1]
    for b in range(len(weights)):
        scale = scales[b]
        space.free[:] = True
        space.free[0] = False
        k = load_remainder(weights[b], space.free, 0, scale, space.path)
        constant = np.int64(0)
        for patience in (_BRIEF, n):
            target = scale * costs[b]
            bound = ascend(space.path, k, target, scale, patience, space.direction, space.best_prices)
            if bound > target - scale:
                break
            constant = _reduce(weights[b], scale, space)
            if patience == _BRIEF:
                costs[b] = _walk(weights[b], tours[b], costs[b], bound, scale, space)
        if bound <= scale * (costs[b] - 1):
            limit = scale * (costs[b] - 1) + constant
            _bar_useless_edges(limit, space)
            _find_twins(weights[b], space.twin)
            costs[b] = _search(weights[b], tours[b], costs[b], limit, scale, space)


@numba.njit(cache=True, nogil=True)
def _reduce(weights, scale, space):  # type: ignore[no-untyped-def]
    """Fill `reduced` with the reduced costs at the present prices; returns what they add to every tour."""
    n, prices = len(weights), space.path.prices
    for u in range(n):
        for v in range(n):
            price = (prices[u - 1] if u > 0 else 0) + (prices[v - 1] if v > 0 else 0)
            space.reduced[u, v] = scale * np.int64(weights[u, v]) + price if u != v else np.int64(_BARRED)
    return 2 * prices[: n - 1].sum()


@numba.njit(cache=True, nogil=True)
def _walk(weights, tour, cost, bound, scale, space):  # type: ignore[no-untyped-def]
    """Walk to the nearest city by reduced cost from several cities, improve each tour by its weights, keep the best."""
    n = len(weights)
    candidate, untraced = np.empty((1, n), dtype=np.int64), np.empty((1, 0, n), dtype=np.int64)
    moves = np.zeros(1, dtype=np.int64)
    for start in range(0, n, _CITIES_PER_WALK):
        space.free[:] = True
        space.prefix[0] = current = start
        for t in range(1, n):
            space.free[current] = False
            nearest = -1
            for city in range(n):
                better = nearest < 0 or space.reduced[current, city] < space.reduced[current, nearest]
                if space.free[city] and better:
                    nearest = city
            space.prefix[t] = current = nearest
        candidate[0] = np.roll(space.prefix, -np.argmin(space.prefix))
        descend(weights.reshape((1, n, n)), candidate, True, _LONGEST_SEGMENT, True, untraced, moves)
        total = _tour_cost(weights, candidate[0])
        if total < cost:
            cost = total
            tour[:] = candidate[0]
            if bound > scale * (cost - 1):
                break
    return cost


@numba.njit(cache=True, nogil=True)
def _tour_cost(weights, tour):  # type: ignore[no-untyped-def]
    total = np.int64(weights[tour[-1], tour[0]])
    for t in range(1, len(tour)):
        total += weights[tour[t - 1], tour[t]]
    return total


@numba.njit(cache=True, nogil=True)
def _bar_useless_edges(limit, space):  # type: ignore[no-untyped-def]
    """Bar every edge whose cheapest 1-tree exceeds `limit`, and sort the neighbours that are left.

    The cheapest 1-tree with an edge uv swaps it for the costliest edge between u and v on the minimum spanning
    tree of the cities 1..n-1, or, if it ends in city 0, for the second of the two edges there.
    """
    reduced = space.reduced
    n = len(reduced)
    tree = _tree_with_widest_edges(space)
    ends = np.sort(reduced[0])[:2]
    one_tree = tree + ends.sum()
    for u in range(1, n):
        for v in range(u):
            swapped = space.widest[u, v] if v > 0 else ends[1]
            if reduced[u, v] > swapped and one_tree + reduced[u, v] - swapped > limit:
                reduced[u, v] = reduced[v, u] = _BARRED
    for u in range(n):
        space.near[u] = np.argsort(reduced[u], kind="mergesort")
        space.degrees[u] = (reduced[u] < _BARRED).sum()


@numba.njit(cache=True, nogil=True)
def _tree_with_widest_edges(space):  # type: ignore[no-untyped-def]
    """Cost of the minimum spanning tree of the cities 1..n-1; fills `widest` (Prim 1957)."""
    reduced, widest, joined, keys = space.reduced, space.widest, space.prefix, space.keys
    n = len(reduced)
    total = np.int64(0)
    space.free[:] = True
    joined[0] = 1
    space.free[1] = False
    keys[:] = reduced[1]
    space.ends[:] = 1  # the tree city that each key leads to
    for count in range(1, n - 1):
        added = -1
        for city in range(1, n):
            if space.free[city] and (added < 0 or keys[city] < keys[added]):
                added = city
        total += keys[added]
        neighbour = space.ends[added]
        for i in range(count):
            city = joined[i]
            across = keys[added] if city == neighbour else max(widest[city, neighbour], keys[added])
            widest[city, added] = widest[added, city] = across
        joined[count] = added
        space.free[added] = False
        for city in range(1, n):
            if space.free[city] and reduced[added, city] < keys[city]:
                keys[city] = reduced[added, city]
                space.ends[city] = added
    return total


@numba.njit(cache=True, nogil=True)
def _find_twins(weights, twin):  # type: ignore[no-untyped-def]
    """Twins can trade places in any tour, so it is enough to see the tours that visit the lower one first."""
    n = len(weights)
    twin[:] = -1
    for v in range(2, n):
        for u in range(1, v):
            city = 0
            while city < n and (city in (u, v) or weights[u, city] == weights[v, city]):
                city += 1
            if city == n:
                twin[v] = u


@numba.njit(cache=True, nogil=True)
def _search(weights, tour, cost, limit, scale, space):  # type: ignore[no-untyped-def]
    """Depth-first search for tours of reduced cost <= `limit`; returns the best cost and leaves its tour in `tour`.

    Once all tours through the first edge of city 0 are seen, that edge is barred: the tours that use it in the other
    direction are the same ones.
    """
    reduced, prefix, spent = space.reduced, space.prefix, space.spent
    n = len(reduced)
    space.free[:] = True
    space.free[0] = False
    prefix[0] = spent[1] = space.tried[1] = 0
    space.prices[1] = 0
    depth = 1
    while depth > 0:
        current = prefix[depth - 1]
        child = _next_child(current, depth, space)
        if child < 0:
            space.free[current] = True
            depth -= 1
        else:
            space.free[child] = False
            total = spent[depth] + reduced[current, child]
            prefix[depth] = child
            if depth == n - 1:
                total += reduced[child, 0]
                if total <= limit:
                    tour[:] = prefix
                    cost = _tour_cost(weights, tour)
                    limit = total - scale
            elif _fits(child, depth, limit - total, scale, space):
                spent[depth + 1] = total
                space.tried[depth + 1] = 0
                depth += 1
                continue
            space.free[child] = True
        if depth == 1:
            reduced[0, prefix[1]] = reduced[prefix[1], 0] = _BARRED
    return cost


@numba.njit(cache=True, nogil=True)
def _next_child(current, depth, space):  # type: ignore[no-untyped-def]
    """The next free neighbour of `current` by reduced cost that is not barred and not a free city's twin, or -1."""
    while space.tried[depth] < space.degrees[current]:
        city = space.near[current, space.tried[depth]]
        space.tried[depth] += 1
        twin = space.twin[city]
        waits = twin >= 0 and space.free[twin]
        if space.free[city] and not waits and space.reduced[current, city] < _BARRED:
            return city
    return -1


@numba.njit(cache=True, nogil=True)
def _fits(current, depth, allowance, scale, space):  # type: ignore[no-untyped-def]
    """Whether the rest of the tour from `current` on has a bound <= `allowance`; leaves its prices to the children."""
    path = space.path
    k = load_remainder(space.reduced, space.free, current, 1, path)
    for i in range(k):
        path.prices[i] = space.prices[depth, path.cities[i]]
    bound = ascend(path, k, allowance + scale, scale, _NODE_PATIENCE, space.direction, space.best_prices)
    for i in range(k):
        space.prices[depth + 1, path.cities[i]] = path.prices[i]
    return bound <= allowance
