"""Beam search and look-ahead as tour builders, against plain Python and between their known extremes."""

import itertools

import numpy as np
import pytest
from hostile_weights import KINDS, draw_batch, instances, random_tours
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaprobe.errors import UserError
from mesaprobe.problems import ProblemConfig, make_problem, tour_costs
from mesaprobe.solvers.beam import beam_completions, beam_tours
from mesaprobe.solvers.bounds.lower_bounds import BoundKind, state_bounds
from mesaprobe.solvers.constructive import nearest_neighbour
from mesaprobe.solvers.exact.held_karp import held_karp, optimal_rollouts
from mesaprobe.solvers.lookahead import lookahead_completions, lookahead_tours, lookahead_values

BOUNDS: tuple[BoundKind, ...] = ("none", "mst", "one_tree", "ascent", "assignment")


def path_cost(weights: np.ndarray, cities: list[int]) -> int:
    return sum(int(weights[u, v]) for u, v in itertools.pairwise(cities))


def direct_beam(weights: np.ndarray, prefix: list[int], width: int, bound: BoundKind) -> list[int]:
    """Beam search on lists of prefixes; Python's sort is stable, like the order that is documented."""
    n = len(weights)
    beam = [prefix]
    while len(beam[0]) < n:
        extended = [[*cities, city] for cities in beam for city in range(n) if city not in cities]

        def score(cities: list[int]) -> int:
            if len(cities) == n:
                return path_cost(weights, [*cities, 0])
            padded = np.array([cities + [-1] * (n - len(cities))])
            rest = state_bounds(weights[None], padded, np.array([len(cities)]), bound)[0]
            return path_cost(weights, cities) + int(rest)

        beam = sorted(extended, key=score)[:width]
    return beam[0]


@given(instances(largest=7), st.sampled_from(BOUNDS), st.integers(1, 9), st.integers(0, 2**32), st.data())
@settings(max_examples=100, deadline=None)
def test_beam_search_is_what_plain_python_does(
    weights: np.ndarray, bound: BoundKind, width: int, seed: int, data: st.DataObject
) -> None:
    n = weights.shape[1]
    prefix, length = random_tours(1, n, seed), data.draw(st.integers(1, n))
    expected = direct_beam(weights[0], prefix[0, :length].tolist(), width, bound)
    prefix[0, length:] = -1
    assert beam_completions(weights, prefix, np.array([length]), width, bound)[0].tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_extremes_of_the_beam(kind: str) -> None:
    """Width 1 takes the nearest city; width (n - 1)! leaves nothing out, under any bound."""
    weights = draw_batch(kind, 6, 20, seed=0)
    assert (beam_tours(weights, 1) == nearest_neighbour(weights)).all()
    for bound in BOUNDS:
        assert (tour_costs(weights, beam_tours(weights, 120, bound)) == held_karp(weights).costs).all()


@pytest.mark.parametrize(("family", "optimal", "gap"), [("matrix", 0.71, 0.024), ("euclidean", 0.67, 0.019)])
def test_beam_16_is_as_good_as_published_in_the_method_note(family: str, optimal: float, gap: float) -> None:
    """1000 real-valued instances gave these figures at n = 8; integers and sampling move them a little."""
    weights = make_problem(ProblemConfig(family=family, n=8)).draw(1000, np.random.default_rng(0)).weights
    ratio = tour_costs(weights, beam_tours(weights, 16)) / held_karp(weights).costs
    assert abs((ratio == 1).mean() - optimal) < 0.06
    assert abs(ratio.mean() - 1 - gap) < 0.007


@given(instances(largest=8), st.integers(1, 4), st.integers(0, 2**32), st.data())
@settings(max_examples=100, deadline=None)
def test_look_ahead_takes_the_city_of_least_value_at_every_step(
    weights: np.ndarray, depth: int, seed: int, data: st.DataObject
) -> None:
    n = weights.shape[1]
    prefix, length = random_tours(1, n, seed), data.draw(st.integers(1, n))
    kept = prefix[0, :length].copy()
    prefix[0, length:] = -1
    tours = lookahead_completions(weights, prefix, np.array([length]), depth)
    assert (tours[0, :length] == kept).all()
    best = lookahead_values(weights, tours, depth)[0].argmin(axis=1)
    assert tours[0, length:].tolist() == best[length - 1 :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_look_ahead_keeps_its_promises(kind: str) -> None:
    """It never costs more than it first saw, that never more than nearest neighbour; full depth is optimal."""
    weights = draw_batch(kind, 7, 30, seed=1)
    nearest = tour_costs(weights, nearest_neighbour(weights))
    for depth in (1, 2, 3):
        tours = lookahead_tours(weights, depth)
        seen = lookahead_values(weights, tours, depth)[:, 0].min(axis=1)
        assert (tour_costs(weights, tours) <= seen).all()
        assert (seen <= nearest).all()
    assert (tour_costs(weights, lookahead_tours(weights, 6)) == held_karp(weights).costs).all()


def test_completions_at_full_depth_and_full_width_are_optimal() -> None:
    weights, prefixes = draw_batch("asymmetric", 7, 30, seed=2), random_tours(30, 7, seed=2)
    lengths = np.random.default_rng(2).integers(1, 8, size=30)
    best = tour_costs(weights, optimal_rollouts(weights, prefixes, lengths, np.zeros((30, 7))).tours)
    for tours in (
        lookahead_completions(weights, prefixes, lengths, 6),
        beam_completions(weights, prefixes, lengths, 720),
    ):
        assert (tour_costs(weights, tours) == best).all()
        kept = np.arange(7) < lengths[:, None]
        assert (tours == prefixes)[kept].all()


def test_unusable_requests_end_in_one_sentence() -> None:
    weights = draw_batch("random", 5, 1, seed=0)
    with pytest.raises(UserError, match="width must be at least 1, got 0"):
        beam_tours(weights, 0)
    with pytest.raises(UserError, match="unknown bound 'magic'"):
        beam_tours(weights, 2, "magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        lookahead_tours(weights, 0)
    with pytest.raises(UserError, match="begin with city 0"):
        beam_completions(weights, np.array([[1, 0, 2, 3, 4]]), np.array([2]), 2)
