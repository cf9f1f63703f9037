"""What may be asked of a state: values and decisions, d* against its definition, the filter "greedy fails"."""

import itertools

import numpy as np
import pytest

from mesaprobe.errors import UserError
from mesaprobe.labels import (
    MIN_CITIES_LEFT,
    GreedyFails,
    decision_steps,
    draw_filtered,
    lookahead_needs,
    optimal_actions,
    optimality_gaps,
    regrets,
    state_values,
)
from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.solvers.constructive import (
    greedy_edge,
    nearest_cities,
    nearest_neighbour,
    nearest_neighbour_completions,
    unvisited,
)
from mesaprobe.solvers.exact.held_karp import action_values, held_karp
from mesaprobe.solvers.lookahead import UNREACHABLE, lookahead_values

CASES = [("matrix", 64), ("matrix", 3), ("asymmetric", 64), ("asymmetric", 3), ("euclidean", 64)]
"""Families, with many ties where there are three levels."""


def draw(family: str, n: int, count: int, levels: int = 64, seed: int = 0) -> tuple[Instances, np.ndarray]:
    """Instances and random tours from city 0 on them."""
    rng = np.random.default_rng(seed)
    instances = make_problem(ProblemConfig(family=family, n=n, levels=levels)).draw(count, rng)
    tours = np.zeros((count, n), dtype=np.int64)
    tours[:, 1:] = np.argsort(rng.random((count, n - 1)), axis=1) + 1
    return instances, tours


# ---- values and decisions --------------------------------------------------------------------------------------


def test_values_regrets_and_optimal_actions_of_one_state() -> None:
    values = np.array([[[np.inf, 7.0, 5.0, 5.0]]])
    assert state_values(values).tolist() == [[5.0]]
    assert regrets(values).tolist() == [[[np.inf, 2.0, 0.0, 0.0]]]
    assert optimal_actions(values).tolist() == [[[False, False, True, True]]]


@pytest.mark.parametrize("family", ["matrix", "asymmetric", "euclidean"])
@pytest.mark.parametrize("n", range(4, 13))
def test_decisions_leave_four_cities_and_skip_the_first_step_of_symmetric_families(family: str, n: int) -> None:
    problem = make_problem(ProblemConfig(family=family, n=n))
    free = unvisited(np.arange(n)[None])[0].sum(axis=1)
    expected = [t for t in range(n - 1) if free[t] >= MIN_CITIES_LEFT and (t >= 1 or not problem.symmetric)]
    assert list(range(n - 1))[decision_steps(problem)] == expected


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_optimal_sets_hold_both_directions_at_the_first_step_and_one_city_at_the_last(family: str, levels: int) -> None:
    instances, _ = draw(family, 7, 50, levels)
    tours = held_karp(instances.weights).tours
    optimal = optimal_actions(action_values(instances.weights, tours))
    assert np.take_along_axis(optimal, tours[:, 1:, None], axis=2).all()
    assert (optimal[:, -1].sum(axis=1) == 1).all()
    if instances.problem.symmetric:
        assert optimal[np.arange(50), 0, tours[:, -1]].all()


# ---- look-ahead and d* -----------------------------------------------------------------------------------------


def nearest_walk(weights: np.ndarray, route: list[int]) -> int:
    """Cost from the last city of `route` through all others by nearest neighbour and home to city 0."""
    current, total = route[-1], 0
    free = [city for city in range(len(weights)) if city not in route]
    while free:
        following = min(free, key=lambda city: weights[current, city])  # the lowest index among equals
        total += weights[current, following]
        free.remove(following)
        current = following
    return int(total + weights[current, 0])


def direct_lookahead(weights: np.ndarray, prefix: list[int], depth: int) -> dict[int, int]:
    """Value of each next city: the best over all ways to name `depth` cities, completed by nearest neighbour."""
    free = [city for city in range(len(weights)) if city not in prefix]
    best: dict[int, int] = {}
    for named in itertools.permutations(free, min(depth, len(free))):
        steps = sum(int(weights[u, v]) for u, v in itertools.pairwise([prefix[-1], *named]))
        total = steps + nearest_walk(weights, [*prefix, *named])
        best[named[0]] = min(best.get(named[0], total), total)
    return best


def direct_need(weights: np.ndarray, prefix: list[int]) -> int:
    """d* by its definition; full depth is exhaustive search, which gives the optimal cities."""
    n = len(weights)
    free = [city for city in range(n) if city not in prefix]
    exact = direct_lookahead(weights, prefix, n)
    optimal = {city for city in free if exact[city] == min(exact.values())}
    rules = [{city: int(weights[prefix[-1], city]) for city in free}]
    rules += [direct_lookahead(weights, prefix, depth) for depth in range(1, n)]
    return next(k for k, rule in enumerate(rules) if {c for c in free if rule[c] == min(rule.values())} <= optimal)


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_needs_equal_their_definition(family: str, levels: int) -> None:
    n = 6
    instances, tours = draw(family, n, 60, levels)
    values = action_values(instances.weights, tours)
    needs = lookahead_needs(instances.weights, tours, values, slice(0, n - 1))
    expected = [
        [direct_need(weights, tour[: t + 1].tolist()) for t in range(n - 1)]
        for weights, tour in zip(instances.weights, tours, strict=True)
    ]
    assert needs.tolist() == expected
    assert needs.max() >= 2, "the sample must hold states that need look-ahead"


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_need_is_zero_exactly_where_every_nearest_city_is_optimal(family: str, levels: int) -> None:
    instances, tours = draw(family, 8, 300, levels)
    values = action_values(instances.weights, tours)
    steps = decision_steps(instances.problem)
    needs = lookahead_needs(instances.weights, tours, values, steps)
    right = (~nearest_cities(instances.weights, tours) | optimal_actions(values)).all(axis=2)[:, steps]
    np.testing.assert_array_equal(needs == 0, right)
    assert 0.02 < right.mean() < 0.98


def test_needs_of_some_steps_are_those_of_all_steps() -> None:
    instances, tours = draw("matrix", 7, 100)
    values = action_values(instances.weights, tours)
    every = lookahead_needs(instances.weights, tours, values, slice(0, 6))
    np.testing.assert_array_equal(lookahead_needs(instances.weights, tours, values, slice(1, 3)), every[:, 1:3])
    assert not every[:, -1].any(), "with one city left nothing is to be looked for"


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_lookahead_to_the_end_is_exact_and_each_step_of_depth_helps(family: str, levels: int) -> None:
    n = 7
    instances, tours = draw(family, n, 60, levels)
    exact = action_values(instances.weights, tours)
    free = unvisited(tours)
    depths = [lookahead_values(instances.weights, tours, depth) for depth in range(1, n + 1)]
    for values in depths:
        assert (values[~free] == UNREACHABLE).all()
        assert (values[free] >= exact[free]).all()
    for shallow, deep in itertools.pairwise(depths):
        assert (deep[free] <= shallow[free]).all()
    np.testing.assert_array_equal(depths[n - 2][free], exact[free])
    np.testing.assert_array_equal(depths[n - 1], depths[n - 2])


def test_depth_one_is_the_nearest_neighbour_completion() -> None:
    instances, tours = draw("matrix", 7, 50)
    values = lookahead_values(instances.weights, tours, 1)
    for t in range(6):
        lengths = np.full(50, t + 2)
        completed = nearest_neighbour_completions(instances.weights, tours, lengths)
        rows = np.arange(50)
        spent = instances.weights[rows[:, None], tours[:, :t], tours[:, 1 : t + 1]].sum(axis=1)
        np.testing.assert_array_equal(values[rows, t, tours[:, t + 1]], instances.tour_costs(completed) - spent)


def test_depth_must_be_positive() -> None:
    instances, tours = draw("matrix", 5, 1)
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        lookahead_values(instances.weights, tours, 0)


# ---- hardness --------------------------------------------------------------------------------------------------


def gaps_of(instances: Instances) -> tuple[np.ndarray, np.ndarray]:
    optimum = held_karp(instances.weights).costs
    rules = (nearest_neighbour(instances.weights), greedy_edge(instances.weights))
    nearest, edge = (optimality_gaps(instances, tours, optimum) for tours in rules)
    return nearest, edge


def test_gaps_are_fractions_above_the_optimum() -> None:
    weights = np.array([[[0, 1, 4, 6], [1, 0, 2, 4], [4, 2, 0, 1], [6, 4, 1, 0]]], dtype=np.int32)
    instances = Instances(make_problem(ProblemConfig(n=4)), weights)
    optimum = held_karp(weights).costs
    assert optimum.tolist() == [10]
    assert optimality_gaps(instances, np.array([[0, 1, 2, 3]]), optimum).tolist() == [0.0]
    assert optimality_gaps(instances, np.array([[0, 2, 1, 3]]), optimum).tolist() == [pytest.approx(0.6)]


def test_the_filter_asks_for_more_than_both_thresholds() -> None:
    instances, _ = draw("matrix", 8, 500)
    nearest, edge = gaps_of(instances)
    chosen = GreedyFails(0.10, 0.05)(instances)
    np.testing.assert_array_equal(chosen, (nearest > 0.10) & (edge > 0.05))
    assert 0 < chosen.sum() < 500
    at = int(np.flatnonzero((nearest > 0.1) & (edge > 0.05))[0])
    for factor, passes in ((1.0, False), (0.999, True)):
        assert GreedyFails(float(nearest[at] * factor), 0.05)(instances[at : at + 1]).tolist() == [passes]
        assert GreedyFails(0.10, float(edge[at] * factor))(instances[at : at + 1]).tolist() == [passes]


def test_filtered_draws_pass_repeat_and_report_their_rate() -> None:
    problem = make_problem(ProblemConfig(n=7))
    keep = GreedyFails()
    drawn = draw_filtered(problem, 200, np.random.default_rng(3), keep)
    again = draw_filtered(problem, 200, np.random.default_rng(3), keep)
    assert len(drawn.instances) == 200
    assert keep(drawn.instances).all()
    np.testing.assert_array_equal(drawn.instances.weights, again.instances.weights)
    assert drawn.accepted >= 200
    natural = keep(problem.draw(4000, np.random.default_rng(4))).mean()
    assert drawn.acceptance_rate == pytest.approx(natural, abs=0.08)


def test_a_filter_keeps_what_passes_in_the_order_drawn() -> None:
    problem = make_problem(ProblemConfig(n=5))
    drawn = draw_filtered(problem, 100, np.random.default_rng(5), lambda batch: batch.weights[:, 0, 1] > 48)
    stream = problem.draw(100, rng := np.random.default_rng(5)), *(problem.draw(100, rng) for _ in range(20))
    passing = Instances.concatenate([part[part.weights[:, 0, 1] > 48] for part in stream])
    np.testing.assert_array_equal(drawn.instances.weights, passing.weights[:100])
    assert drawn.drawn % 100 == 0
    seen = Instances.concatenate(stream)[: drawn.drawn]
    assert drawn.accepted == (seen.weights[:, 0, 1] > 48).sum()


def test_thresholds_that_nothing_reaches_end_in_one_sentence() -> None:
    problem = make_problem(ProblemConfig(n=4))
    with pytest.raises(UserError, match=r"accepts almost nothing \(0 of \d+ drawn matrix instances with n = 4\)"):
        draw_filtered(problem, 5, np.random.default_rng(0), GreedyFails(nearest_gap=1000.0))
