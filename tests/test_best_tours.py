"""The k best tours against enumeration of all tours, on weights that are tied, clustered or huge."""

import itertools

import numpy as np
import pytest
from hostile_weights import KINDS, draw_batch, instances, random_tours
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaprobe.errors import UserError
from mesaprobe.labels.best_tours import BestTours, best_tours
from mesaprobe.problems import tour_costs
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.lookahead import UNREACHABLE


def all_tours(weights: np.ndarray, prefix: list[int]) -> np.ndarray:
    """Every tour [tour, n] that begins with the prefix; undirected ones once if only city 0 is given."""
    n = len(weights)
    free = [city for city in range(n) if city not in prefix]
    tours = np.array([[*prefix, *rest] for rest in itertools.permutations(free)])
    if len(prefix) == 1 and n > 2 and (weights == weights.T).all():
        tours = tours[tours[:, 1] < tours[:, -1]]
    return tours


def check_best(weights: np.ndarray, prefix: list[int], found: BestTours) -> None:
    """The first state of a batch of one: the cheapest tours in the order of cost and then of cities, each once."""
    possible = all_tours(weights, prefix)
    costs = tour_costs(np.repeat(weights[None], len(possible), axis=0), possible)
    ranked = sorted(zip(costs.tolist(), possible.tolist(), strict=True))
    k = found.costs.shape[2]
    kept = ranked[:k]
    assert found.costs[0, 0, : len(kept)].tolist() == [cost for cost, _ in kept]
    assert found.tours[0, 0, : len(kept)].tolist() == [tour for _, tour in kept]
    assert (found.costs[0, 0, len(kept) :] == UNREACHABLE).all()
    assert (found.tours[0, 0, len(kept) :] == -1).all()
    assert found.cut[0, 0] == (len(ranked) > k and ranked[k][0] == ranked[k - 1][0])


def undirected(weights: np.ndarray) -> bool:
    return bool((weights == weights.transpose(0, 2, 1)).all()) and weights.shape[1] > 2


@given(instances(largest=7), st.integers(0, 2**32), st.data())
@settings(max_examples=200, deadline=None)
def test_the_best_tours_after_a_prefix_are_the_cheapest_ones(
    weights: np.ndarray, seed: int, data: st.DataObject
) -> None:
    n = weights.shape[1]
    tours = random_tours(1, n, seed)
    step = data.draw(st.integers(0, n - 2), label="step")
    k = data.draw(st.integers(1, 12), label="k")
    found = best_tours(weights, tours, slice(step, step + 1), undirected(weights), k)
    check_best(weights[0], tours[0, : step + 1].tolist(), found)


@pytest.mark.parametrize("kind", KINDS)
def test_all_tours_of_an_instance_come_in_order(kind: str) -> None:
    weights = draw_batch(kind, 6, 1, seed=0)
    count = len(all_tours(weights[0], [0]))
    check_best(weights[0], [0], best_tours(weights, np.arange(6)[None], slice(0, 1), undirected(weights), count + 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_eight_cities(kind: str) -> None:
    weights = draw_batch(kind, 8, 1, seed=1)
    check_best(weights[0], [0], best_tours(weights, np.arange(8)[None], slice(0, 1), undirected(weights), 50))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_is_optimal_and_the_second_is_another_tour(kind: str) -> None:
    weights, any_tours = draw_batch(kind, 10, 30, seed=2), random_tours(30, 10, seed=3)
    found = best_tours(weights, any_tours, slice(0, 1), undirected(weights), 2)
    tours, costs = found.tours[:, 0], found.costs[:, 0]
    assert (costs[:, 0] == held_karp(weights).costs).all()
    assert (costs[:, 0] <= costs[:, 1]).all()
    backward = np.concatenate([tours[:, 0, :1], tours[:, 0, :0:-1]], axis=1)
    assert (tours[:, 0] != tours[:, 1]).any(axis=1).all()
    if not kind.startswith("asymmetric"):
        assert (backward != tours[:, 1]).any(axis=1).all()


def test_more_cities_than_the_table_holds_are_refused() -> None:
    with pytest.raises(UserError, match="at most 20 cities, got 21"):
        best_tours(draw_batch("random", 21, 1, seed=0), np.arange(21)[None], slice(0, 1), True, 2)
