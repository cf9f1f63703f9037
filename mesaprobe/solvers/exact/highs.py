"""Exact tours by integer programming: HiGHS with subtour cuts (Dantzig, Fulkerson and Johnson 1954).

Three steps. (1) The linear relaxation is tightened with cuts from minimum cuts (Stoer and Wagner 1997) until
the border of no set of cities is crossed less than twice. (2) Its reduced costs remove every edge that
no tour shorter than the best known one can use. (3) The integer program on the edges that are left is solved,
and solved again with a cut for every subtour of its solution, until that is one tour or its bound meets the
best tour.
"""

import math
import time
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32

from mesaprobe.errors import UserError
from mesaprobe.solvers.bounds.potentials import reduce_weights
from mesaprobe.solvers.constructive import greedy_edge
from mesaprobe.solvers.improvement.local_search import local_search, starting_tours
from mesaprobe.solvers.solution import Solution, make_solution, tiny_solution, tour_cost

MAX_TOTAL = 10**8
"""Largest n * (largest weight) after `reduce_weights`: above, double precision could hide a shorter tour."""

_TOLERANCE = 1e-3
"""By how much a bound must exceed the next lower whole number; far above the rounding of double precision."""


class _NoResult(Exception):
    """HiGHS ended without an optimum, as a rule because time ran out."""


@dataclass
class _Program:
    """Edges (symmetric weights) or arcs with their costs, the cuts so far, and the best tour so far."""

    weights: np.ndarray
    best: np.ndarray
    deadline: float
    symmetric: bool
    tails: np.ndarray
    heads: np.ndarray
    cuts: list[np.ndarray] = field(default_factory=list)
    """Boolean [n]: a tour crosses the border of this set at least twice."""

    @property
    def costs(self) -> np.ndarray:
        return self.weights[self.tails, self.heads].astype(float)

    @property
    def best_cost(self) -> int:
        return tour_cost(self.weights, self.best)

    def proven(self, bound: float) -> bool:
        """Whether no tour can be shorter than the best one, given a lower bound on every tour."""
        return math.ceil(bound - _TOLERANCE) >= self.best_cost

    def offer(self, tour: np.ndarray) -> None:
        if tour_cost(self.weights, tour) < self.best_cost:
            self.best = tour

    def options(self) -> dict[str, float]:
        """Time limit of the next call of HiGHS."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise _NoResult
        return {} if math.isinf(left) else {"time_limit": left}


def solve_highs(weights: Int32[np.ndarray, "n n"], *, time_limit: float | None = None) -> Solution:
    """An optimal tour, symmetric weights or not.

    The cost is summed from the tour. It counts as proven when the lower bound, rounded up, reaches it.
    `time_limit` is in seconds (None: no limit); when it ends the search, the best tour found comes back with
    `optimal=None`. Raises UserError if n times the largest weight, after `reduce_weights`, exceeds 10^8.
    """
    tiny = tiny_solution(weights, "highs")
    if tiny is not None:
        return tiny
    if not fits_highs(weights):
        raise UserError(f"highs proves optima only while n * (spread of the weights) <= {MAX_TOTAL}; use cp_sat")
    started = time.monotonic()
    deadline = math.inf if time_limit is None else started + time_limit
    program = _all_edges(reduce_weights(weights), deadline)
    try:
        proven = _branch_and_cut(program)
    except _NoResult:
        proven = None
    return make_solution(weights, program.best, optimal=proven, method="highs", started=started)


def fits_highs(weights: Int32[np.ndarray, "n n"]) -> bool:
    """Whether double precision is enough for a proof on these weights."""
    return len(weights) * int(reduce_weights(weights).max()) <= MAX_TOTAL


def _all_edges(weights: np.ndarray, deadline: float) -> _Program:
    n = len(weights)
    symmetric = bool((weights == weights.T).all())
    tails, heads = np.triu_indices(n, k=1) if symmetric else np.nonzero(~np.eye(n, dtype=bool))
    return _Program(weights, starting_tours(weights[None])[0], deadline, symmetric, tails, heads)


def _branch_and_cut(program: _Program) -> bool | None:
    """Improve `program.best` until it is proven optimal (True), or HiGHS gives no usable bound (None)."""
    bound, reduced_costs = _tighten(program)
    if program.proven(bound):
        return True
    in_best = np.zeros_like(program.weights, dtype=bool)
    in_best[program.best, np.roll(program.best, -1)] = True
    in_best |= in_best.T
    useful = bound + reduced_costs <= program.best_cost - 1 + _TOLERANCE
    kept = useful | in_best[program.tails, program.heads]
    program.tails, program.heads = program.tails[kept], program.heads[kept]
    while True:
        chosen, objective, bound = _integer_optimum(program)
        if chosen is None:
            return None
        parts = _components(program, chosen)
        if len(parts) == 1:
            tour = _walk(program, chosen)
            program.offer(tour)
            exact = abs(objective - tour_cost(program.weights, tour)) < _TOLERANCE
            return True if exact and program.proven(bound) else None
        program.offer(_complete(program, chosen.astype(float)))
        if program.proven(bound):
            return True
        program.cuts += parts if len(parts) > 2 else parts[:1]


def _tighten(program: _Program) -> tuple[float, np.ndarray]:
    """Add cuts until the relaxation has none left to add; its bound, and the reduced cost of every edge."""
    from scipy.optimize import linprog

    n = len(program.weights)
    degrees, ends = _degree_rows(program)
    while True:
        rows = {"A_ub": -_cut_rows(program), "b_ub": np.full(len(program.cuts), -2.0)} if program.cuts else {}
        options = program.options()
        result = linprog(program.costs, A_eq=degrees, b_eq=ends, bounds=(0, 1), method="highs", options=options, **rows)
        if result.x is None or result.status != 0:
            raise _NoResult
        capacity = np.zeros((n, n))
        np.add.at(capacity, (program.tails, program.heads), result.x)
        found = _light_borders(capacity + capacity.T)
        if not found:
            break
        program.cuts += found
    program.offer(_complete(program, result.x))
    reduced = program.costs - degrees.T @ result.eqlin.marginals
    bound = ends @ result.eqlin.marginals
    if program.cuts:
        duals = np.maximum(-result.ineqlin.marginals, 0)
        reduced -= _cut_rows(program).T @ duals
        bound += 2 * duals.sum()
    return float(bound + np.minimum(reduced, 0).sum()), reduced


def _integer_optimum(program: _Program) -> tuple[np.ndarray | None, float, float]:
    """Chosen edges (boolean), their cost and the lower bound; None if HiGHS ended without an optimum."""
    from scipy.optimize import LinearConstraint, milp

    degrees, ends = _degree_rows(program)
    constraints = [LinearConstraint(degrees, ends, ends)]
    if program.cuts:
        constraints.append(LinearConstraint(_cut_rows(program), 2.0, np.inf))
    edges = len(program.tails)
    options = program.options() | {"mip_rel_gap": 0.0}
    result = milp(
        program.costs,
        integrality=np.ones(edges),
        bounds=(0, 1),
        constraints=constraints,
        options=options,
    )
    if result.status != 0:
        return None, math.nan, -math.inf
    return result.x > 0.5, float(result.fun), float(result.mip_dual_bound)


def _degree_rows(program: _Program):  # type: ignore[no-untyped-def]
    """Sparse rows [n or 2n, edge] and right-hand sides: two edges, or one arc out and one in, per city."""
    from scipy.sparse import csr_array, vstack

    n, edges = len(program.weights), np.arange(len(program.tails))
    ones = np.ones(len(edges))
    out = csr_array((ones, (program.tails, edges)), shape=(n, len(edges)))
    into = csr_array((ones, (program.heads, edges)), shape=(n, len(edges)))
    if program.symmetric:
        return out + into, np.full(n, 2.0)
    return vstack([out, into]), np.ones(2 * n)


def _cut_rows(program: _Program):  # type: ignore[no-untyped-def]
    """Sparse rows [cut, edge]: which edges cross the border of each set."""
    from scipy.sparse import csr_array

    members = np.array(program.cuts)
    return csr_array((members[:, program.tails] != members[:, program.heads]).astype(float))


def _light_borders(capacity: np.ndarray) -> list[np.ndarray]:
    """Sets of cities (boolean [n]) whose border carries less than 2, from the phases of Stoer and Wagner.

    If there is any such set, at least one is found: the lightest of the phases' cuts is a minimum cut.
    """
    capacity = capacity.copy()
    members = np.eye(len(capacity), dtype=bool)
    alive = np.ones(len(capacity), dtype=bool)
    found = []
    for phase in range(len(capacity) - 1):
        last = before = 0
        outside = alive.copy()
        attached = np.zeros(len(capacity))
        for _ in range(len(capacity) - phase):
            before, last = last, int(np.argmax(np.where(outside, attached, -1.0)))
            border = attached[last]
            outside[last] = False
            attached += capacity[last]
        if border < 2 - _TOLERANCE:
            found.append(members[last].copy())
        capacity[before] += capacity[last]
        capacity[:, before] += capacity[:, last]
        capacity[before, before] = 0
        members[before] |= members[last]
        alive[last] = False
    return found


def _components(program: _Program, chosen: np.ndarray) -> list[np.ndarray]:
    """The subtours of an integer solution as sets of cities (boolean [n])."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n, ends = len(program.weights), (program.tails[chosen], program.heads[chosen])
    graph = csr_array((np.ones(len(ends[0])), ends), shape=(n, n))
    count, labels = connected_components(graph, directed=False)
    return [labels == part for part in range(count)]


def _complete(program: _Program, share: np.ndarray) -> np.ndarray:
    """A locally optimal tour that prefers the edges with a large share (0 to 1) in a solution."""
    guided = program.weights.astype(float)
    guided[program.tails, program.heads] *= 1 - np.clip(share, 0, 1)
    if program.symmetric:
        guided[program.heads, program.tails] = guided[program.tails, program.heads]
    return local_search(program.weights[None], greedy_edge(guided.astype(np.int32)[None]))[0]


def _walk(program: _Program, chosen: np.ndarray) -> np.ndarray:
    """The cities of a single tour in order, from city 0."""
    following: dict[int, list[int]] = {city: [] for city in range(len(program.weights))}
    for tail, head in zip(program.tails[chosen].tolist(), program.heads[chosen].tolist(), strict=True):
        following[tail].append(head)
        if program.symmetric:
            following[head].append(tail)
    tour = [0]
    for _ in range(len(program.weights) - 1):
        ahead = [city for city in following[tour[-1]] if city not in tour[-2:]]
        tour.append(ahead[0])
    return np.array(tour)
