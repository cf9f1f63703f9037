"""The k best tours against enumeration of all tours."""

import itertools

import numpy as np
import pytest
from hostile_weights import KINDS, draw_batch, instances, random_tours
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaprobe.errors import UserError
from mesaprobe.problems import tour_costs
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.exact.k_best import k_best_completions, k_best_tours


def all_tours(weights: np.ndarray, prefix: list[int]) -> np.ndarray:
    """Every tour [tour, n] that begins with the prefix; undirected ones once if only city 0 is given."""
    n = len(weights)
    free = [city for city in range(n) if city not in prefix]
    tours = np.array([[*prefix, *rest] for rest in itertools.permutations(free)])
    if len(prefix) == 1 and n > 2 and (weights == weights.T).all():
        tours = tours[tours[:, 1] < tours[:, -1]]
    return tours


def check_best(weights: np.ndarray, prefix: list[int], tours: np.ndarray, costs: np.ndarray) -> None:
    """They are distinct tours of the kind asked for, and the cheapest ones."""
    possible = all_tours(weights, prefix)
    expected = np.sort(tour_costs(np.repeat(weights[None], len(possible), axis=0), possible))
    assert costs.tolist() == expected[: len(costs)].tolist()
    assert (costs == tour_costs(np.repeat(weights[None], len(tours), axis=0), tours)).all()
    found = {tuple(tour) for tour in tours.tolist()}
    assert len(found) == len(tours)
    assert found <= {tuple(tour) for tour in possible.tolist()}


@given(instances(largest=7), st.integers(0, 2**32), st.data())
@settings(max_examples=200, deadline=None)
def test_completions_are_the_cheapest_ones(weights: np.ndarray, seed: int, data: st.DataObject) -> None:
    n = weights.shape[1]
    prefix = random_tours(1, n, seed)
    length = data.draw(st.integers(1, n), label="prefix length")
    prefix[0, length:] = -1
    known = prefix[0, :length].tolist()
    k = data.draw(st.integers(1, min(12, len(all_tours(weights[0], known)))), label="k")
    best = k_best_completions(weights, prefix, np.array([length]), k)
    check_best(weights[0], known, best.tours[0], best.costs[0])


@pytest.mark.parametrize("kind", KINDS)
def test_all_tours_of_an_instance_come_in_order(kind: str) -> None:
    (weights,) = draw_batch(kind, 6, 1, seed=0)
    count = len(all_tours(weights, [0]))
    best = k_best_tours(weights[None], count)
    check_best(weights, [0], best.tours[0], best.costs[0])
    with pytest.raises(UserError, match=f"has {count} such tours, fewer than the {count + 1}"):
        k_best_tours(weights[None], count + 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_eight_cities(kind: str) -> None:
    (weights,) = draw_batch(kind, 8, 1, seed=1)
    best = k_best_tours(weights[None], 50)
    check_best(weights, [0], best.tours[0], best.costs[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_is_optimal_and_the_second_is_another_tour(kind: str) -> None:
    weights = draw_batch(kind, 10, 30, seed=2)
    best = k_best_tours(weights, 2)
    assert (best.costs[:, 0] == held_karp(weights).costs).all()
    assert (best.costs[:, 0] <= best.costs[:, 1]).all()
    backward = np.concatenate([best.tours[:, 0, :1], best.tours[:, 0, :0:-1]], axis=1)
    assert (best.tours[:, 0] != best.tours[:, 1]).any(axis=1).all()
    if not kind.startswith("asymmetric"):
        assert (backward != best.tours[:, 1]).any(axis=1).all()


def test_ties_do_not_blow_up() -> None:
    """All 16! / 2 tours tie; only the first few are met."""
    weights = np.full((1, 17, 17), 3, dtype=np.int32)
    assert k_best_tours(weights, 4).costs.tolist() == [[51] * 4]


def test_unusable_requests_end_in_one_sentence() -> None:
    weights = draw_batch("random", 5, 2, seed=0)
    with pytest.raises(UserError, match="k must be at least 1, got 0"):
        k_best_tours(weights, 0)
    with pytest.raises(UserError, match="at most 20 cities, got 21"):
        k_best_tours(draw_batch("random", 21, 1, seed=0), 2)
    with pytest.raises(UserError, match="begin with city 0"):
        k_best_completions(weights, np.array([[1, 0, 2, 3, 4]] * 2), np.array([2, 2]), 1)
