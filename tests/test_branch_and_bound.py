"""Branch and bound is exact, its trace is what a direct search does, and its totals are those of its trace."""

import dataclasses

import numpy as np
import pytest
from hostile_weights import KINDS, draw_batch, instances
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaprobe.errors import UserError
from mesaprobe.problems import tour_costs
from mesaprobe.solvers.bounds.lower_bounds import BoundKind, path_bounds, prefix_costs, state_bounds
from mesaprobe.solvers.constructive import nearest_neighbour
from mesaprobe.solvers.exact.branch_and_bound import Start, branch_and_bound_totals, branch_and_bound_trace
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.exact.search_trace import NO_INCUMBENT, SearchEvent, SearchTotals, SearchTrace

BOUNDS: tuple[BoundKind, ...] = ("none", "mst", "one_tree", "ascent", "assignment")
STARTS: tuple[Start, ...] = ("none", "nearest_neighbour")
bounds = st.sampled_from(BOUNDS)
starts = st.sampled_from(STARTS)


def direct_search(weights: np.ndarray, bound: BoundKind, incumbent: int) -> list[tuple]:
    """Depth-first branch and bound by plain recursion: (prefix, bound, incumbent before, event) of every node."""
    n = len(weights)
    nodes: list[tuple] = []

    def visit(prefix: list[int], spent: int, inherited: int) -> None:
        nonlocal incumbent
        before = incumbent
        free = [city for city in range(n) if city not in prefix]
        if len(free) == 1:
            cost = spent + int(weights[prefix[-1], free[0]]) + int(weights[free[0], 0])
            incumbent = min(incumbent, cost)
            nodes.append((prefix, cost, before, SearchEvent.INCUMBENT if cost < before else SearchEvent.NO_BETTER))
            return
        rest = state_bounds(weights[None], np.array([prefix + free]), np.array([len(prefix)]), bound)
        total = max(inherited, spent + int(rest[0]))
        nodes.append((prefix, total, before, SearchEvent.EXPANDED if total < before else SearchEvent.PRUNED))
        if total < before:
            for city in sorted(free, key=lambda city: (weights[prefix[-1], city], city)):
                visit([*prefix, city], spent + int(weights[prefix[-1], city]), total)

    visit([0], 0, 0)
    return nodes


def recorded(trace: SearchTrace) -> list[tuple]:
    rows = zip(trace.prefixes, trace.depths, trace.bounds, trace.incumbents, trace.events, strict=True)
    return [(prefix[:depth].tolist(), *map(int, rest)) for prefix, depth, *rest in rows]


def same_totals(one: SearchTotals, other: SearchTotals) -> bool:
    names = [field.name for field in dataclasses.fields(SearchTotals)]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@given(instances(largest=7), bounds, starts)
@settings(max_examples=120, deadline=None)
def test_the_trace_is_what_a_direct_search_does(weights: np.ndarray, bound: BoundKind, start: Start) -> None:
    first = NO_INCUMBENT if start == "none" else int(tour_costs(weights, nearest_neighbour(weights))[0])
    trace = branch_and_bound_trace(weights[0], bound, start)
    assert trace.start_cost == first
    assert recorded(trace) == direct_search(weights[0], bound, first)


@given(instances(largest=9), bounds, starts, st.sampled_from([None, 1, 2, 5, 30, 200]))
@settings(max_examples=120, deadline=None)
def test_the_trace_replays_and_gives_the_totals(
    weights: np.ndarray, bound: BoundKind, start: Start, budget: int | None
) -> None:
    trace = branch_and_bound_trace(weights[0], bound, start, budget)
    trace.check()
    assert same_totals(trace.totals(), branch_and_bound_totals(weights, bound, start, budget))


@given(instances(largest=9), bounds)
@settings(max_examples=80, deadline=None)
def test_bounds_rise_along_a_path_and_incumbents_fall_in_time(weights: np.ndarray, bound: BoundKind) -> None:
    trace = branch_and_bound_trace(weights[0], bound)
    assert trace.parents[0] == -1
    assert (trace.bounds[1:] >= trace.bounds[trace.parents[1:]]).all()
    assert (trace.parents[1:] < np.arange(1, len(trace))).all()
    found = trace.events == SearchEvent.INCUMBENT
    assert (trace.bounds[found] < trace.incumbents[found]).all()
    after = np.append(trace.incumbents[1:], trace.cost)
    assert ((after < trace.incumbents) == found).all()
    inner = trace.depths < len(weights[0]) - 1
    pruned = trace.events == SearchEvent.PRUNED
    assert (pruned[inner] == (trace.bounds >= trace.incumbents)[inner]).all()
    assert (trace.events[trace.finding][-1:] == SearchEvent.INCUMBENT).all()
    assert (trace.events[trace.proving] != SearchEvent.INCUMBENT).all()
    assert trace.events[trace.proving].size == trace.totals().proving_nodes[0]


def test_a_node_keeps_the_bound_of_its_parent_where_its_own_is_lower() -> None:
    """Ascent is no monotone bound: on some instances with cities that coincide, a child's own bound is lower."""
    lower = 0
    for seed in range(60):
        (weights,) = draw_batch("duplicates", 8, 1, seed)
        trace = branch_and_bound_trace(weights, "ascent")
        inner = np.flatnonzero(trace.depths < 7)
        tours = np.array([[*trace.prefixes[i, : trace.depths[i]], *[0] * 8][:8] for i in inner])
        batch, lengths = np.repeat(weights[None], len(inner), axis=0), trace.depths[inner].astype(np.int64)
        own = state_bounds(batch, tours, lengths, "ascent")
        own += prefix_costs(batch, tours)[np.arange(len(inner)), lengths - 1]
        lower += (own < trace.bounds[inner]).sum()
        assert (own <= trace.bounds[inner]).all()
        assert (trace.bounds[1:] >= trace.bounds[trace.parents[1:]]).all()
    assert lower > 5


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_bound_gives_the_optimum(kind: str, bound: BoundKind) -> None:
    for n in (2, 3, 4, 7, 9):
        if bound == "none" and n == 9:
            continue
        weights = draw_batch(kind, n, 12, seed=n)
        optimum = held_karp(weights).costs
        for start in STARTS:
            totals = branch_and_bound_totals(weights, bound, start)
            assert (totals.costs == optimum).all()
            assert (totals.costs == tour_costs(weights, totals.tours)).all()
            assert (np.sort(totals.tours, axis=1) == np.arange(n)).all()
            assert totals.proven.all()
            assert (totals.finding_nodes + totals.proving_nodes == totals.nodes).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "ties", "one duplicate", "asymmetric", "asymmetric ties"])
def test_tight_bounds_give_the_optimum_of_larger_instances(kind: str) -> None:
    weights = draw_batch(kind, 13, 30, seed=0)
    bound: BoundKind = "assignment" if kind.startswith("asymmetric") else "ascent"
    assert (branch_and_bound_totals(weights, bound).costs == held_karp(weights).costs).all()


def test_an_instance_is_searched_the_same_way_whatever_the_batch() -> None:
    weights = np.concatenate([draw_batch(kind, 7, 1, seed=1) for kind in KINDS])
    for bound in BOUNDS:
        together = branch_and_bound_totals(weights, bound)
        for b in range(len(weights)):
            alone = branch_and_bound_totals(weights[b : b + 1], bound)
            assert (alone.nodes[0], alone.tours[0].tolist()) == (together.nodes[b], together.tours[b].tolist())


@given(instances(largest=8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_other_names_for_the_cities_change_no_cost(weights: np.ndarray, seed: int) -> None:
    n = weights.shape[1]
    names = np.random.default_rng(seed).permutation(n)
    renamed = weights[:, names[:, None], names]
    for bound in BOUNDS[1:]:
        assert branch_and_bound_totals(renamed, bound).costs == branch_and_bound_totals(weights, bound).costs


def test_a_node_budget_cuts_the_same_search_short() -> None:
    weights = draw_batch("random", 9, 20, seed=2)
    full = branch_and_bound_totals(weights)
    nearest = tour_costs(weights, nearest_neighbour(weights))
    for budget in (1, 8, 9, 50, 100):
        cut = branch_and_bound_totals(weights, node_budget=budget)
        assert (cut.nodes == np.minimum(full.nodes, budget)).all()
        assert (cut.proven == (full.nodes <= budget)).all()
        assert (full.costs <= cut.costs).all()
        assert (cut.costs <= nearest).all()
        assert (cut.costs == tour_costs(weights, cut.tours)).all()
    assert not branch_and_bound_totals(weights, node_budget=100).proven.all()
    exact = branch_and_bound_totals(weights[:1], node_budget=int(full.nodes[0]))
    assert exact.proven.all()
    whole, part = branch_and_bound_trace(weights[0]), branch_and_bound_trace(weights[0], node_budget=40)
    assert recorded(part) == recorded(whole)[:40]
    assert (whole.proven, part.proven) == (True, None)


def test_the_first_leaf_is_the_nearest_neighbour_tour() -> None:
    weights = draw_batch("asymmetric", 9, 30, seed=3)
    cut = branch_and_bound_totals(weights, node_budget=8)
    assert (cut.incumbents == 1).all()
    assert (cut.tours == nearest_neighbour(weights)).all()


def test_bounds_of_the_trace_are_labels_of_its_states() -> None:
    """Cost so far + `path_bounds` along the optimal tour bounds what the trace records on its way there."""
    (weights,) = draw_batch("random", 8, 1, seed=4)
    trace = branch_and_bound_trace(weights)
    along = (prefix_costs(weights[None], trace.tour[None]) + path_bounds(weights[None], trace.tour[None], "mst"))[0]
    for depth in range(1, 7):
        (node,) = np.flatnonzero(
            (trace.prefixes[:, :depth] == trace.tour[:depth]).all(axis=1) & (trace.depths == depth)
        )
        assert trace.bounds[node] == along[depth - 1]  # the mst bound never falls, so no parent's bound is larger


def tampered(trace: SearchTrace) -> dict[str, SearchTrace]:
    """The trace with one thing wrong, for each thing that can be wrong."""
    found = int(np.flatnonzero(trace.events == SearchEvent.INCUMBENT)[-1])

    def changed(name: str, node: int, value: int) -> SearchTrace:
        array = getattr(trace, name).copy()
        array[node] = value
        return dataclasses.replace(trace, **{name: array})

    pruned = int(np.flatnonzero(trace.events == SearchEvent.PRUNED)[0])
    arrays = ("prefixes", "depths", "parents", "bounds", "incumbents", "events")
    short = dataclasses.replace(trace, **{name: getattr(trace, name)[:-1] for name in arrays})
    return {
        "bound": changed("bounds", pruned, int(trace.bounds[pruned]) + 1),
        "event": changed("events", pruned, SearchEvent.EXPANDED),
        "incumbent": changed("incumbents", found + 1, int(trace.incumbents[found])),
        "parent": changed("parents", pruned, 0 if trace.parents[pruned] else 1),
        "depth": changed("depths", pruned, int(trace.depths[pruned]) - 1),
        "prefix": changed("prefixes", pruned, 0),
        "tour": dataclasses.replace(trace, tour=np.roll(trace.tour, 1)[[0, 2, 1, *range(3, len(trace.tour))]]),
        "cost": dataclasses.replace(trace, cost=trace.cost - 1),
        "no claim": dataclasses.replace(trace, proven=None),
        "claim": short,
    }


TAMPERED = (
    ("bound", "bound is"),
    ("event", "expected"),
    ("incumbent", "incumbent is"),
    ("parent", "expected"),
    ("depth", "expected"),
    ("prefix", "expected"),
    ("tour", "the tour costs"),
    ("cost", "the tour costs"),
    ("no claim", "complete, but proven is None"),
    ("claim", "cut short, but proven is True"),
)


@pytest.mark.parametrize(("name", "complaint"), TAMPERED)
def test_a_wrong_trace_does_not_pass_its_check(name: str, complaint: str) -> None:
    trace = branch_and_bound_trace(draw_batch("random", 7, 1, seed=5)[0])
    trace.check()
    with pytest.raises(ValueError, match=complaint):
        tampered(trace)[name].check()


def test_backtracks_are_counted_from_where_the_search_went_forward() -> None:
    """A tree small enough to follow by hand: after the first tour (0, 1, 2, 3) only (0, 2) is entered again."""
    weights = np.array([[0, 1, 2, 9], [1, 0, 1, 9], [2, 1, 0, 3], [9, 9, 3, 0]], dtype=np.int32)
    trace = branch_and_bound_trace(weights, "none")
    events = [SearchEvent(event).name for event in trace.events]
    prefixes = [prefix[:depth].tolist() for prefix, depth in zip(trace.prefixes, trace.depths, strict=True)]
    steps = list(zip(prefixes, events, strict=True))
    assert steps[:4] == [([0], "EXPANDED"), ([0, 1], "EXPANDED"), ([0, 1, 2], "INCUMBENT"), ([0, 1, 3], "NO_BETTER")]
    assert steps[4:] == [
        ([0, 2], "EXPANDED"),
        ([0, 2, 1], "NO_BETTER"),
        ([0, 2, 3], "NO_BETTER"),
        ([0, 3], "EXPANDED"),
        ([0, 3, 2], "NO_BETTER"),
        ([0, 3, 1], "NO_BETTER"),
    ]
    totals = trace.totals()
    assert (totals.backtracks[0], totals.deepest_backtrack[0]) == (2, 2)
    assert (totals.finding_nodes[0], totals.proving_nodes[0]) == (3, 7)


def test_unusable_requests_end_in_one_sentence() -> None:
    weights = draw_batch("random", 5, 1, seed=0)
    assert branch_and_bound_totals(weights[:0]).nodes.shape == (0,)
    with pytest.raises(UserError, match="unknown bound 'magic'"):
        branch_and_bound_totals(weights, "magic")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown start 'magic'; known: none, nearest_neighbour"):
        branch_and_bound_totals(weights, start="magic")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at least 1, got 0"):
        branch_and_bound_totals(weights, node_budget=0)
    with pytest.raises(UserError, match="n >= 2"):
        branch_and_bound_trace(weights[0, :1, :1])
    with pytest.raises(UserError, match="got -"):
        branch_and_bound_trace(-weights[0])
