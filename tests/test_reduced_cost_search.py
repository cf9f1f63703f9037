"""The fast exact search against dynamic programming and CP-SAT, on weights that are easy, tied, clustered or huge."""

import numpy as np
import pytest
from hostile_weights import SYMMETRIC, draw_batch, instances
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaprobe.errors import UserError
from mesaprobe.problems import ProblemConfig, make_problem, tour_costs
from mesaprobe.solvers.bounds.lower_bounds import instance_bounds
from mesaprobe.solvers.exact.cp_sat import solve_cp_sat
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.exact.reduced_cost_search import MAX_CITIES, reduced_cost_search
from mesaprobe.solvers.improvement.local_search import starting_tours


def check_optimal(weights: np.ndarray, optimum: np.ndarray) -> None:
    found = reduced_cost_search(weights)
    assert found.costs.tolist() == optimum.tolist()
    assert (found.costs == tour_costs(weights, found.tours)).all()
    assert (np.sort(found.tours, axis=1) == np.arange(weights.shape[1])).all()
    assert (found.tours[:, 0] == 0).all()


@pytest.mark.parametrize("kind", SYMMETRIC)
@pytest.mark.parametrize(("n", "count"), [(2, 5), (3, 20), (4, 50), (5, 100), (7, 200), (10, 200), (13, 60)])
def test_it_agrees_with_dynamic_programming(kind: str, n: int, count: int) -> None:
    weights = draw_batch(kind, n, count, seed=n)
    check_optimal(weights, held_karp(weights).costs)


@pytest.mark.parametrize("family", ["matrix", "euclidean"])
def test_it_agrees_on_drawn_instances(family: str) -> None:
    """Enough of them that many reach the last step: those on which ascent leaves a gap."""
    weights = make_problem(ProblemConfig(family=family, n=13)).draw(2000, np.random.default_rng(0)).weights
    optimum = held_karp(weights).costs
    assert (instance_bounds(weights, "ascent") < optimum).sum() > 40
    check_optimal(weights, optimum)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SYMMETRIC)
@pytest.mark.parametrize("n", [20, 30])
def test_it_agrees_with_cp_sat(kind: str, n: int) -> None:
    weights = draw_batch(kind, n, 3, seed=n)
    check_optimal(weights, np.array([solve_cp_sat(w, workers=2).cost for w in weights]))


@pytest.mark.parametrize("n", [20, 30, 40])
def test_a_planted_tour_is_found(n: int) -> None:
    """Zeros along a hidden tour, and a second, useless, zero path that leads a greedy walk astray."""
    rng = np.random.default_rng(n)
    weights = draw_batch("random", n, 20, seed=n)
    for instance in weights:
        tour, decoy = rng.permutation(n), rng.permutation(n)[: n // 2]
        for cities, closed in ((tour, True), (decoy, False)):
            ends = np.roll(cities, -1) if closed else cities[1:]
            starts = cities if closed else cities[:-1]
            instance[starts, ends] = instance[ends, starts] = 0
    check_optimal(weights, np.zeros(20, dtype=np.int64))


@given(instances(largest=12, kinds=SYMMETRIC), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_other_names_for_the_cities_change_no_cost(weights: np.ndarray, seed: int) -> None:
    names = np.random.default_rng(seed).permutation(weights.shape[1])
    check_optimal(weights[:, names[:, None], names], reduced_cost_search(weights).costs)


@pytest.mark.parametrize("n", [14, 25])
def test_every_instance_is_solved_the_same_way_whatever_the_batch(n: int) -> None:
    weights = np.concatenate([draw_batch(kind, n, 2, seed=1) for kind in SYMMETRIC])
    together = reduced_cost_search(weights)
    for b in range(len(weights)):
        assert (reduced_cost_search(weights[b : b + 1]).tours[0] == together.tours[b]).all()


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_few_levels_of_weights_do_not_blow_up(levels: int) -> None:
    """Weights 0..levels. With a bound that no ascent sharpens, whole branches tie with it, and some take minutes."""
    rng = np.random.default_rng(levels)
    for n, count in ((16, 60), (25, 100)):
        drawn = make_problem(ProblemConfig(n=n, levels=levels + 1)).draw(count, rng).weights
        weights = np.where(np.eye(n, dtype=bool), 0, drawn - 1).astype(np.int32)
        if n == 16:
            check_optimal(weights, held_karp(weights).costs)
        costs = reduced_cost_search(weights).costs
        assert (costs >= instance_bounds(weights, "ascent")).all()
        assert (costs <= tour_costs(weights, starting_tours(weights))).all()


def test_unusable_requests_end_in_one_sentence() -> None:
    assert reduced_cost_search(draw_batch("random", 5, 1, seed=0)[:0]).costs.shape == (0,)
    with pytest.raises(UserError, match="symmetric weights only; held_karp takes asymmetric ones"):
        reduced_cost_search(draw_batch("asymmetric", 5, 1, seed=0))
    with pytest.raises(UserError, match=f"at most {MAX_CITIES} cities, got {MAX_CITIES + 1}"):
        reduced_cost_search(draw_batch("random", MAX_CITIES + 1, 1, seed=0))
    with pytest.raises(UserError, match="got -"):
        reduced_cost_search(-draw_batch("random", 5, 1, seed=0))
