"""The cheapest fillings of masked tours, against enumeration of all tours."""

from itertools import permutations

import numpy as np
import pytest

from mesaprobe.labels.masked_tours import cheapest_fillings
from mesaprobe.labels.values import optimal_actions
from mesaprobe.problems import ProblemConfig, make_problem, random_tours
from mesaprobe.solvers.exact.held_karp import action_values


@pytest.mark.parametrize(("family", "levels"), [("matrix", 4), ("matrix", 64), ("asymmetric", 5)])
def test_shares_are_those_of_all_cheapest_agreeing_tours(family: str, levels: int) -> None:
    n, rng = 6, np.random.default_rng(levels)
    instances = make_problem(ProblemConfig(family, n=n, levels=levels)).draw(60, rng)
    tours = random_tours(len(instances), n, rng)
    masked = rng.random(tours.shape) < rng.random((len(tours), 1))
    masked[:, 0] = False
    every = np.array([(0, *rest) for rest in permutations(range(1, n))])
    shares = cheapest_fillings(instances.weights, tours, masked)
    for b in range(len(instances)):
        agreeing = every[((every == tours[b]) | masked[b]).all(axis=1)]
        costs = instances.weights[b][agreeing, np.roll(agreeing, -1, axis=1)].sum(axis=1)
        cheapest = agreeing[costs == costs.min()]
        expected = (cheapest[:, :, None] == np.arange(n)).mean(axis=0) * masked[b][:, None]
        np.testing.assert_allclose(shares[b], expected, atol=1e-6)


def test_a_masked_end_gives_the_optimal_next_cities() -> None:
    rng = np.random.default_rng(0)
    instances = make_problem(ProblemConfig(n=8)).draw(40, rng)
    tours = random_tours(40, 8, rng)
    optimal = optimal_actions(action_values(instances.weights, tours))
    for step in range(7):
        shares = cheapest_fillings(instances.weights, tours, np.tile(np.arange(8) > step, (40, 1)))
        np.testing.assert_array_equal(shares[:, step + 1] > 0, optimal[:, step])


def test_city_zero_stays() -> None:
    with pytest.raises(ValueError, match="city 0"):
        cheapest_fillings(np.ones((1, 4, 4), np.int32), np.array([[0, 1, 2, 3]]), np.ones((1, 4), bool))
