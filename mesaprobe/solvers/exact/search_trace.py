"""What a depth-first branch and bound did: totals for many instances, and a node-by-node trace for one.

A *node* is a prefix of a tour, visited once. Its bound is a lower bound on every tour that starts with it:
prefix cost plus a bound on the rest (`bounds.py`), and never less than its parent's. The *incumbent* is the
cheapest tour found so far. Visiting a node is one of four events: an inner node is pruned if its bound reaches
the incumbent, else expanded; a node with one city left has only one completion, which becomes the new incumbent
if it is cheaper, else the leaf is no better.

The search *enters* a node that it expands or that becomes the incumbent. A *backtrack* is a step from one entered
node to the next that is not its child; its depth is how many cities had to be taken off the prefix before the
search could go forward again. *Finding* ends with the last new incumbent; the nodes after it only prove that
nothing is better.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Int8, Int16, Int32, Int64

from mesaprobe.solvers.bounds.lower_bounds import BoundKind, prefix_costs, state_bounds
from mesaprobe.solvers.solution import tour_cost

NO_INCUMBENT = np.iinfo(np.int64).max
"""Incumbent cost before any tour is known."""

_CHUNK = 4096
"""Nodes whose bounds `SearchTrace.check` recomputes at once."""


class SearchEvent(IntEnum):
    """What visiting a node came to."""

    EXPANDED = 0
    PRUNED = 1
    INCUMBENT = 2
    NO_BETTER = 3


@dataclass(frozen=True, eq=False)
class SearchTotals:
    """Branch and bound on a batch of instances, one entry each."""

    tours: Int64[np.ndarray, "batch n"]
    """The best tour found."""
    costs: Int64[np.ndarray, " batch"]
    proven: Bool[np.ndarray, " batch"]
    """True: the tour is optimal. False: the node budget ran out first, no claim."""
    nodes: Int64[np.ndarray, " batch"]
    """Nodes visited: expanded + pruned + leaves."""
    expanded: Int64[np.ndarray, " batch"]
    pruned: Int64[np.ndarray, " batch"]
    incumbents: Int64[np.ndarray, " batch"]
    """How often a better tour was found (the start tour not counted)."""
    backtracks: Int64[np.ndarray, " batch"]
    """How often cities were taken off the prefix before going forward again."""
    deepest_backtrack: Int64[np.ndarray, " batch"]
    """Most cities taken back at once; 0 without backtracks."""
    finding_nodes: Int64[np.ndarray, " batch"]
    """Nodes up to and including the last new incumbent; 0 if the start tour was never beaten."""

    @property
    def proving_nodes(self) -> Int64[np.ndarray, " batch"]:
        """Nodes after the last new incumbent."""
        return self.nodes - self.finding_nodes


@dataclass(frozen=True, eq=False)
class SearchTrace:
    """Every node of one branch and bound, in the order of visits."""

    weights: Int32[np.ndarray, "n n"]
    bound: BoundKind
    start_cost: int
    """Cost of the start tour; `NO_INCUMBENT` without one."""
    prefixes: Int16[np.ndarray, "node n-1"]
    """The cities of each node's prefix, then -1."""
    depths: Int16[np.ndarray, " node"]
    """Number of cities in the prefix, 1 (the root, city 0 alone) to n - 1 (a leaf)."""
    parents: Int32[np.ndarray, " node"]
    """Index of the parent node; -1 for the root."""
    bounds: Int64[np.ndarray, " node"]
    """Lower bound on every tour through the node; at a leaf the cost of its tour."""
    incumbents: Int64[np.ndarray, " node"]
    """Cost of the best tour known when the node was reached; `NO_INCUMBENT` if there was none."""
    events: Int8[np.ndarray, " node"]
    """What came of it: values of `SearchEvent`."""
    tour: Int64[np.ndarray, " n"]
    """The best tour found."""
    cost: int
    proven: bool | None
    """True: the tour is optimal. None: the node budget ran out first, no claim."""

    def __len__(self) -> int:
        return len(self.events)

    @property
    def finding_nodes(self) -> int:
        """Nodes up to and including the last new incumbent."""
        found = np.flatnonzero(self.events == SearchEvent.INCUMBENT)
        return int(found[-1]) + 1 if len(found) else 0

    @property
    def finding(self) -> slice:
        """The nodes of the finding phase."""
        return slice(0, self.finding_nodes)

    @property
    def proving(self) -> slice:
        """The nodes of the proving phase."""
        return slice(self.finding_nodes, len(self))

    def proven_bounds(self) -> Int64[np.ndarray, " node"]:
        """After each node, the best lower bound on the optimum that the search has proven: the least bound of what is
        still open, or the incumbent's cost if that is less. A node not yet reached is bounded by its parent.

        Bounds never fall along a path, so the open node with the least bound hangs on the first node of the path at
        hand that has children left.
        """
        proven = np.empty(len(self), dtype=np.int64)
        children_left = np.where(self.events == SearchEvent.EXPANDED, len(self.weights) - self.depths, 0)
        best, path = self.start_cost, list[int]()
        for node in range(len(self)):
            while path and path[-1] != self.parents[node]:
                path.pop()
            if path:
                children_left[path[-1]] -= 1
            path.append(node)
            if self.events[node] == SearchEvent.INCUMBENT:
                best = int(self.bounds[node])
            open_bounds = (int(self.bounds[at]) for at in path if children_left[at])
            proven[node] = min(next(open_bounds, best), best)
        return proven

    def totals(self) -> SearchTotals:
        """The totals of this search, counted from the trace (a batch of one)."""
        entered = self.depths[np.isin(self.events, (SearchEvent.EXPANDED, SearchEvent.INCUMBENT))].astype(np.int64)
        taken_back = entered[:-1] - (entered[1:] - 1)

        def count(event: SearchEvent) -> np.ndarray:
            return np.array([np.count_nonzero(self.events == event)])

        return SearchTotals(
            tours=self.tour[None],
            costs=np.array([self.cost]),
            proven=np.array([self.proven is True]),
            nodes=np.array([len(self)]),
            expanded=count(SearchEvent.EXPANDED),
            pruned=count(SearchEvent.PRUNED),
            incumbents=count(SearchEvent.INCUMBENT),
            backtracks=np.array([np.count_nonzero(taken_back > 0)]),
            deepest_backtrack=np.array([taken_back.max(initial=0)]),
            finding_nodes=np.array([self.finding_nodes]),
        )

    def check(self) -> None:
        """Replay the search from weights and events alone; raise ValueError at the first node that is wrong."""
        visits = _replay(self)
        for node in range(len(self)):
            parent, prefix = next(visits, (None, ()))
            recorded = tuple(self.prefixes[node, : self.depths[node]].tolist())
            if (self.parents[node], recorded) != (parent, prefix):
                raise ValueError(f"node {node}: expected {prefix} below node {parent}, got {recorded}")
        complete = next(visits, None) is None
        if complete != (self.proven is True):
            raise ValueError(f"the trace is {'complete' if complete else 'cut short'}, but proven is {self.proven}")
        self._check_bounds()
        self._check_incumbents()

    def _check_bounds(self) -> None:
        """Bounds follow from each node's prefix and its parent's bound; they decide which nodes are pruned."""
        expected = np.concatenate([self._own_bounds(first) for first in range(0, len(self), _CHUNK)])
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                expected[node] = max(expected[node], expected[parent])
        _compare("bound", self.bounds, expected)
        reached = self.bounds >= self.incumbents
        leaf = self.depths == len(self.weights) - 1
        expected = np.where(leaf, SearchEvent.INCUMBENT, SearchEvent.EXPANDED)
        expected[reached] = np.where(leaf[reached], SearchEvent.NO_BETTER, SearchEvent.PRUNED)
        _compare("event", self.events, expected)

    def _own_bounds(self, first: int) -> np.ndarray:
        """Bounds of a chunk of nodes by themselves, without their parents'; leaves: the cost of the tour."""
        n = len(self.weights)
        prefixes, lengths = self.prefixes[first : first + _CHUNK], self.depths[first : first + _CHUNK].astype(np.int64)
        tours = np.array([_completed(prefix[:length], n) for prefix, length in zip(prefixes, lengths, strict=True)])
        weights = np.repeat(self.weights[None], len(tours), axis=0)
        spent = prefix_costs(weights, tours)[np.arange(len(tours)), lengths - 1]
        rest = state_bounds(weights, tours, lengths, self.bound)
        exact = state_bounds(weights, tours, lengths, "mst")  # where one city is left
        return spent + np.where(lengths == n - 1, exact, rest)

    def _check_incumbents(self) -> None:
        """Incumbents follow from the start cost and the leaves that beat it; the last one is the answer."""
        found = np.where(self.events == SearchEvent.INCUMBENT, self.bounds, NO_INCUMBENT)
        best = np.minimum.accumulate(np.concatenate([[self.start_cost], found]))
        _compare("incumbent", self.incumbents, best[:-1])
        if sorted(self.tour.tolist()) != list(range(len(self.weights))):
            raise ValueError(f"the answer is no tour: {self.tour.tolist()}")
        met = self.cost if best[-1] == NO_INCUMBENT else best[-1]
        if not self.cost == met == tour_cost(self.weights, self.tour):
            raise ValueError(f"the tour costs {tour_cost(self.weights, self.tour)}, recorded {self.cost}, met {met}")


def _replay(trace: SearchTrace) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(parent, prefix) of the nodes in the order in which depth-first search must visit them, given the events."""
    pending: list[tuple[int, tuple[int, ...]]] = [(-1, (0,))]
    node = 0
    while pending:
        parent, prefix = pending.pop()
        yield parent, prefix
        if trace.events[node] == SearchEvent.EXPANDED:
            free = [city for city in range(len(trace.weights)) if city not in prefix]
            free.sort(key=lambda city: int(trace.weights[prefix[-1], city]))
            pending += [(node, (*prefix, city)) for city in reversed(free)]
        node += 1


def _completed(prefix: np.ndarray, n: int) -> np.ndarray:
    """The prefix, then the other cities in ascending order."""
    return np.concatenate([prefix, np.setdiff1d(np.arange(n), prefix)]).astype(np.int64)


def _compare(name: str, recorded: np.ndarray, expected: np.ndarray) -> None:
    wrong = np.flatnonzero(recorded != expected)
    if len(wrong):
        node = int(wrong[0])
        raise ValueError(f"node {node}: {name} is {recorded[node]}, expected {expected[node]}")
