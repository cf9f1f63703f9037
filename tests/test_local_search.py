"""Local search ends where no move helps, by enumeration; its trajectory makes one move at a time; annealing."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaprobe.errors import UserError
from mesaprobe.problems import ProblemConfig, make_problem, rotate_to_city_zero, tour_costs
from mesaprobe.solvers.constructive import greedy_edge, nearest_neighbour
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.improvement.annealing import Schedule, anneal, anneal_trajectory
from mesaprobe.solvers.improvement.local_search import (
    NEIGHBOURHOODS,
    OR_OPT,
    THREE_OPT,
    TWO_OPT,
    TWO_OPT_OR_OPT,
    Neighbourhood,
    Rule,
    local_search,
    local_search_trajectory,
    starting_tours,
)
from mesaprobe.solvers.improvement.trajectory import Trajectory

RULES: tuple[Rule, ...] = ("best", "first")


def neighbours(tour: list[int], neighbourhood: Neighbourhood, symmetric: bool) -> list[list[int]]:
    """Every tour one move away, written as plainly as possible, from city 0."""
    n = len(tour)
    found = []
    turns = [tour[shift:] + tour[:shift] for shift in range(n)]
    if neighbourhood.two_opt:
        lengths = range(2, n - 1) if symmetric else range(2, n + 1)
        found += [turned[:k][::-1] + turned[k:] for turned in turns for k in lengths]
    for turned, k in itertools.product(turns, range(1, min(neighbourhood.longest_segment, n - 2) + 1)):
        segment, rest = turned[:k], turned[k:]
        for place in range(1, len(rest)):
            found += [rest[:place] + piece + rest[place:] for piece in (segment, segment[::-1])]
    return rotate_to_city_zero(np.array(found, dtype=np.int64).reshape(-1, n)).tolist()


@st.composite
def runs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Weights [1, n, n], some with ties, zeros or no symmetry, and a random tour [1, n]."""
    n = draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = rng.integers(0, draw(st.sampled_from([1, 4, 1000, 2**31 - 1])) + 1, size=(1, n, n))
    if draw(st.booleans()):
        weights = np.triu(weights, 1) + np.triu(weights, 1).transpose(0, 2, 1)
    weights[:, np.arange(n), np.arange(n)] = 0
    return weights.astype(np.int32), rng.permutation(n)[None]


def check_trajectory(weights: np.ndarray, start: np.ndarray, trajectory: Trajectory) -> None:
    """It begins with the start, gets cheaper at every step, and repeats its last tour after its length."""
    assert (trajectory.tours[:, 0] == rotate_to_city_zero(start)).all()
    assert trajectory.tours.shape[1] == trajectory.lengths.max()
    for b, length in enumerate(trajectory.lengths):
        steps = trajectory.tours[b]
        costs = tour_costs(np.repeat(weights[b : b + 1], len(steps), axis=0), steps)
        assert (np.diff(costs[:length]) < 0).all()
        assert (steps[length - 1 :] == trajectory.final[b]).all()


@given(runs(), st.sampled_from(sorted(NEIGHBOURHOODS)), st.sampled_from(RULES))
@settings(max_examples=250, deadline=None)
def test_every_step_is_one_move_and_the_last_tour_has_no_cheaper_neighbour(
    run: tuple[np.ndarray, np.ndarray], name: str, rule: Rule
) -> None:
    weights, start = run
    symmetric = bool((weights == weights.transpose(0, 2, 1)).all())
    trajectory = local_search_trajectory(weights, start, NEIGHBOURHOODS[name], rule)
    check_trajectory(weights, start, trajectory)
    assert (local_search(weights, start, NEIGHBOURHOODS[name], rule) == trajectory.final).all()

    tours = trajectory.tours[0, : trajectory.lengths[0]].tolist()
    for step, tour in enumerate(tours):
        around = neighbours(tour, NEIGHBOURHOODS[name], symmetric)
        costs = tour_costs(np.repeat(weights, 1 + len(around), axis=0), np.array([tour, *around]))
        if step == len(tours) - 1:
            assert costs.min() == costs[0]
            continue
        following = tours[step + 1]
        reversed_following = [0, *following[:0:-1]]
        assert following in around or (symmetric and reversed_following in around)
        if rule == "best":
            assert int(tour_costs(weights, np.array([following]))[0]) == costs.min()


@pytest.mark.parametrize("rule", RULES)
def test_three_opt_leaves_no_cheaper_tour_that_differs_in_three_edges(rule: Rule) -> None:
    """All 360 undirected tours of 7 cities are compared, so nothing depends on how moves are listed."""
    instances = make_problem(ProblemConfig(n=7)).draw(150, np.random.default_rng(0))
    tours = local_search(instances.weights, np.tile(np.arange(7), (150, 1)), THREE_OPT, rule)
    others = np.array([(0, *rest) for rest in itertools.permutations(range(1, 7)) if rest[0] < rest[-1]])

    def edges(of: np.ndarray) -> np.ndarray:
        chosen = np.zeros((len(of), 7, 7), dtype=bool)
        chosen[np.arange(len(of))[:, None], of, np.roll(of, -1, axis=1)] = True
        return (chosen | chosen.transpose(0, 2, 1)).reshape(len(of), -1)

    shared = edges(tours).astype(int) @ edges(others).T // 2
    costs = instances.weights[:, others, np.roll(others, -1, axis=1)].sum(axis=2)
    near = np.where(shared >= 4, costs, np.iinfo(np.int64).max)
    assert (near.min(axis=1) == instances.tour_costs(tours)).all()
    assert (costs.min(axis=1) < instances.tour_costs(tours)).any()


def test_three_opt_moves_and_turns_a_long_path_in_one_move() -> None:
    """Arcs of one tour are cheap; it is the start with the path 2..7 turned round and moved behind 9."""
    target = [0, 1, 8, 9, 7, 6, 5, 4, 3, 2]
    weights = np.full((1, 10, 10), 100, dtype=np.int32)
    weights[0, target, np.roll(target, -1)] = 1
    trajectory = local_search_trajectory(weights, np.arange(10)[None], THREE_OPT)
    assert trajectory.tours[0].tolist() == [list(range(10)), target]


def test_larger_neighbourhoods_contain_the_smaller_ones() -> None:
    """A tour that three_opt leaves is left by the others too."""
    instances = make_problem(ProblemConfig(family="asymmetric", n=9)).draw(100, np.random.default_rng(1))
    tours = local_search(instances.weights, nearest_neighbour(instances.weights), THREE_OPT)
    for neighbourhood in (TWO_OPT, OR_OPT, TWO_OPT_OR_OPT):
        assert (local_search(instances.weights, tours, neighbourhood) == tours).all()


def test_reversing_a_path_is_costed_in_its_new_direction() -> None:
    """Arcs forward are dear and arcs backward cheap: 2-opt must find the reversed tour of weight n."""
    n = 6
    weights = np.full((1, n, n), 100, dtype=np.int32)
    around = np.arange(n)
    weights[0, around, (around - 1) % n] = 1
    tours = local_search(weights, around[None], TWO_OPT)
    assert tours.tolist() == [[0, 5, 4, 3, 2, 1]]
    assert (local_search(weights, tours, TWO_OPT, "first") == tours).all()


@pytest.mark.parametrize("family", ["matrix", "asymmetric", "euclidean"])
def test_runs_do_not_depend_on_the_rest_of_the_batch(family: str) -> None:
    weights = make_problem(ProblemConfig(family=family, n=9)).draw(20, np.random.default_rng(2)).weights
    start, seeds = nearest_neighbour(weights), np.arange(20, dtype=np.uint64)
    whole = local_search_trajectory(weights, start), anneal_trajectory(weights, start, seeds, Schedule(50))
    for b in (0, 7, 19):
        one = slice(b, b + 1)
        parts = (
            local_search_trajectory(weights[one], start[one]),
            anneal_trajectory(weights[one], start[one], seeds[one], Schedule(50)),
        )
        for trajectory, part in zip(whole, parts, strict=True):
            assert trajectory.lengths[b] == part.lengths[0]
            assert (trajectory.tours[b, : part.lengths[0]] == part.tours[0]).all()


def test_starting_tours_are_the_better_of_two_local_optima() -> None:
    weights = make_problem(ProblemConfig(n=12)).draw(100, np.random.default_rng(3)).weights
    costs = [tour_costs(weights, local_search(weights, rule(weights))) for rule in (nearest_neighbour, greedy_edge)]
    assert (tour_costs(weights, starting_tours(weights)) == np.minimum(*costs)).all()
    assert all((cost > np.minimum(*costs)).any() for cost in costs)


@given(runs(), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_annealing_keeps_its_cheapest_tour(run: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    weights, start = run
    seeds = np.array([seed], dtype=np.uint64)
    trajectory = anneal_trajectory(weights, start, seeds, Schedule(100))
    check_trajectory(weights, start, trajectory)
    assert (anneal(weights, start, seeds, Schedule(100)) == trajectory.final).all()
    assert (np.sort(trajectory.final) == np.arange(weights.shape[1])).all()
    assert tour_costs(weights, trajectory.final) >= held_karp(weights).costs


@pytest.mark.parametrize("family", ["matrix", "asymmetric"])
def test_annealing_depends_on_the_seed_and_its_schedule(family: str) -> None:
    instances = make_problem(ProblemConfig(family=family, n=12)).draw(100, np.random.default_rng(4))
    start = nearest_neighbour(instances.weights)
    seeds = np.arange(100, dtype=np.uint64)
    fast = anneal(instances.weights, start, seeds, Schedule(50))
    assert (fast == anneal(instances.weights, start, seeds, Schedule(50))).all()
    assert (fast != anneal(instances.weights, start, seeds + np.uint64(100), Schedule(50))).any()
    gaps = [
        (instances.tour_costs(tours) / held_karp(instances.weights).costs - 1).mean()
        for tours in (start, fast, anneal(instances.weights, start, seeds))
    ]
    assert gaps[0] > 1.2 * gaps[1] > 1.5 * gaps[2]
    for other in (Schedule(50, end=0.3), Schedule(50, start=0.005), Schedule(50, end=0.01)):
        assert (fast != anneal(instances.weights, start, seeds, other)).any()


def test_without_heat_annealing_goes_downhill_move_by_move() -> None:
    """At next to no temperature no dearer tour is taken, so each incumbent is one reversal from the one before it."""
    rng = np.random.default_rng(7)
    weights = rng.integers(1, 10**6, size=(20, 8, 8)).astype(np.int32)
    start = np.tile(np.arange(8), (20, 1))
    cold = anneal_trajectory(weights, start, np.arange(20, dtype=np.uint64), Schedule(start=1e-9, end=1e-9))
    assert cold.lengths.mean() > 3
    for tours, length in zip(cold.tours.tolist(), cold.lengths, strict=True):
        for before, after in itertools.pairwise(tours[:length]):
            reversals = [before[:i] + before[i:j][::-1] + before[j:] for i, j in itertools.combinations(range(1, 9), 2)]
            assert after in reversals


def test_wrong_requests_end_in_one_sentence() -> None:
    weights = make_problem(ProblemConfig(n=4)).draw(1, np.random.default_rng(5)).weights
    for tour in ([0, 1, 2, 2], [1, 2, 3, 4], [0, 1, 2]):
        with pytest.raises(UserError, match=r"name every city 0..3 once|need tours of shape \(1, 4\)"):
            local_search(weights, np.array([tour]))
        with pytest.raises(UserError, match=r"name every city 0..3 once|need tours of shape \(1, 4\)"):
            anneal(weights, np.array([tour]), np.zeros(1, dtype=np.uint64))
    with pytest.raises(ValueError, match="best, first"):
        local_search(weights, np.arange(4)[None], TWO_OPT, "worst")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 < end <= start"):
        Schedule(end=0.5)
