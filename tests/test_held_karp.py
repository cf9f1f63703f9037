"""Held-Karp against exhaustive search and CP-SAT: every cost, every action value, every tie."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels import optimal_actions
from mesaprobe.problems import ProblemConfig, make_problem, tour_costs
from mesaprobe.solvers.exact.cp_sat import solve_cp_sat
from mesaprobe.solvers.exact.held_karp import MAX_CITIES, action_values, held_karp, optimal_rollouts

KINDS = ("matrix", "asymmetric", "euclidean", "ties", "asymmetric ties", "zeros", "steep", "large")


def draw(kind: str, n: int, count: int, rng: np.random.Generator) -> Int32[np.ndarray, "batch n n"]:
    """Instances of one kind. `ties` has three distinct weights; `steep` spans six orders of magnitude, far from
    metric; `large` needs the float64 table; `zeros` is mostly 0."""
    if kind in ("matrix", "asymmetric", "euclidean"):
        return make_problem(ProblemConfig(family=kind, n=max(n, 4))).draw(count, rng).weights[:, :n, :n]
    shape = (count, n, n)
    weights = {
        "ties": lambda: rng.integers(1, 4, size=shape),
        "asymmetric ties": lambda: rng.integers(1, 4, size=shape),
        "zeros": lambda: rng.integers(0, 2, size=shape) * rng.integers(0, 50, size=shape),
        "steep": lambda: np.floor(10 ** rng.uniform(0, 6, size=shape)).astype(np.int64),
        "large": lambda: rng.integers(2**24, 2**31, size=shape),
    }[kind]()
    if kind in ("ties", "zeros"):
        weights = np.triu(weights, 1) + np.triu(weights, 1).transpose(0, 2, 1)
    weights[:, np.arange(n), np.arange(n)] = 0
    return weights.astype(np.int32)


def all_tours(n: int) -> Int64[np.ndarray, "tour n"]:
    rest = np.array(list(itertools.permutations(range(1, n))), dtype=np.int64)
    return np.concatenate([np.zeros((len(rest), 1), dtype=np.int64), rest], axis=1)


def exhaustive_costs(weights: np.ndarray, tours: np.ndarray) -> Int64[np.ndarray, "batch tour"]:
    """Cost of every tour on every instance."""
    total = np.zeros((len(weights), len(tours)), dtype=np.int64)
    for here, there in zip(tours.T, np.roll(tours, -1, axis=1).T, strict=True):
        total += weights[:, here, there]
    return total


def exhaustive_values(weights: np.ndarray, tours: np.ndarray) -> Float64[np.ndarray, "batch decision n"]:
    """Q* by its definition: over all tours that begin with the prefix and then a, the least cost of what follows."""
    batch, n = tours.shape
    candidates = all_tours(n)
    costs = exhaustive_costs(weights, candidates)
    values = np.full((batch, n - 1, n), np.inf)
    for b, t in itertools.product(range(batch), range(n - 1)):
        prefix = tours[b, : t + 1]
        spent = weights[b, prefix[:-1], prefix[1:]].sum()
        fits = (candidates[:, : t + 1] == prefix).all(axis=1)
        np.minimum.at(values[b, t], candidates[fits, t + 1], costs[b, fits] - spent)
    return values


def random_tours(count: int, n: int, rng: np.random.Generator) -> Int64[np.ndarray, "batch n"]:
    tours = np.zeros((count, n), dtype=np.int64)
    tours[:, 1:] = np.argsort(rng.random((count, n - 1)), axis=1) + 1
    return tours


@pytest.mark.parametrize("kind", KINDS)
def test_costs_equal_exhaustive_search_on_thousands_of_instances(kind: str) -> None:
    rng = np.random.default_rng(0)
    for n in range(2, 9):
        weights = draw(kind, n, 300, rng)
        tours, costs = held_karp(weights)
        np.testing.assert_array_equal(costs, exhaustive_costs(weights, all_tours(n)).min(axis=1))
        np.testing.assert_array_equal(tour_costs(weights, tours), costs)
        np.testing.assert_array_equal(np.sort(tours, axis=1), np.broadcast_to(np.arange(n), (300, n)))
        assert not tours[:, 0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_action_value_equals_exhaustive_search(kind: str) -> None:
    rng = np.random.default_rng(1)
    for n, count in ((2, 5), (3, 20), (5, 100), (6, 60), (7, 10)):
        weights, tours = draw(kind, n, count, rng), random_tours(count, n, rng)
        np.testing.assert_array_equal(action_values(weights, tours), exhaustive_values(weights, tours))


def check_against_cp_sat(kind: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for n in range(9, 14):
        weights = draw(kind, n, count, rng)
        proofs = [solve_cp_sat(instance) for instance in weights]
        assert all(proof.optimal for proof in proofs)
        assert held_karp(weights).costs.tolist() == [proof.cost for proof in proofs]


@pytest.mark.parametrize("kind", KINDS)
def test_costs_equal_cp_sat_beyond_exhaustive_search(kind: str) -> None:
    check_against_cp_sat(kind, count=1, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_costs_equal_cp_sat_on_hundreds_of_instances(kind: str) -> None:
    check_against_cp_sat(kind, count=25, seed=3)


@pytest.mark.parametrize("n", [9, 12, 15])
def test_values_are_consistent_along_any_tour(n: int) -> None:
    """Bellman: Q*(s, a) is one step's weight plus the best value after it; the last step closes the tour."""
    rng = np.random.default_rng(4)
    weights, tours = draw("asymmetric", n, 20, rng), random_tours(20, n, rng)
    values = action_values(weights, tours)
    rows = np.arange(20)
    for t in range(n - 1):
        taken = values[rows, t, tours[:, t + 1]]
        onward = values[:, t + 1].min(axis=1) if t < n - 2 else weights[rows, tours[:, -1], 0]
        np.testing.assert_array_equal(taken, weights[rows, tours[:, t], tours[:, t + 1]] + onward)
        np.testing.assert_array_equal(np.isinf(values[rows, t]), (tours[:, : t + 1, None] == np.arange(n)).any(axis=1))
    np.testing.assert_array_equal(values[:, 0].min(axis=1), held_karp(weights).costs)


@pytest.mark.parametrize("n", [5, 8])
def test_sums_stay_exact_on_both_sides_of_the_float32_table(n: int) -> None:
    """Odd weights just below and above the switch at n * largest = 2^24, where float32 would begin to round."""
    rng = np.random.default_rng(5)
    for largest in (2**24 // n - 1, 2**24 // n + 1, 2**22, 2**23 + 1, 2**25, 2**31 - 1):
        weights = largest - 2 * rng.integers(0, 50, size=(100, n, n))
        weights[:, np.arange(n), np.arange(n)] = 0
        weights[0, 0, 1] = largest
        weights = weights.astype(np.int32)
        np.testing.assert_array_equal(
            held_karp(weights).costs, exhaustive_costs(weights, all_tours(n)).min(axis=1), err_msg=str(largest)
        )


def test_a_uniform_number_picks_one_of_the_tied_actions() -> None:
    """u in [i / k, (i + 1) / k) picks the i-th of k optimal cities, so uniform numbers pick uniformly."""
    rng = np.random.default_rng(6)
    weights = np.repeat(draw("ties", 6, 20, rng), 60, axis=0)
    uniforms = np.tile((np.arange(60) + 0.5) / 60, 20)
    prefixes, lengths = np.zeros((1200, 6), dtype=np.int64), np.ones(1200, dtype=np.int64)
    tours, values = optimal_rollouts(weights, prefixes, lengths, np.repeat(uniforms[:, None], 6, axis=1))
    optimal = optimal_actions(values)
    ties = optimal.sum(axis=2)
    assert set(np.unique(ties)) >= {1, 2, 3}
    for t in range(5):
        rank = np.take_along_axis(optimal[:, t].cumsum(axis=1), tours[:, t + 1, None], axis=1)[:, 0] - 1
        np.testing.assert_array_equal(rank, (uniforms * ties[:, t]).astype(int))


def test_where_every_tour_is_optimal_each_is_drawn_equally_often() -> None:
    rng = np.random.default_rng(7)
    count = 24_000
    weights = np.ones((count, 5, 5), dtype=np.int32)
    prefixes, lengths = np.zeros((count, 5), dtype=np.int64), np.ones(count, dtype=np.int64)
    tours = optimal_rollouts(weights, prefixes, lengths, rng.random((count, 5))).tours
    _, drawn = np.unique(tours, axis=0, return_counts=True)
    assert len(drawn) == 24
    assert ((drawn - 1000) ** 2 / 1000).sum() < 49.7  # chi-squared, 23 degrees of freedom, p = 0.001


def test_rollouts_keep_their_prefix_and_complete_it_optimally() -> None:
    rng = np.random.default_rng(8)
    weights, prefixes = draw("matrix", 7, 200, rng), random_tours(200, 7, rng)
    lengths = rng.integers(1, 8, size=200)
    tours, values = optimal_rollouts(weights, prefixes, lengths, rng.random((200, 7)))
    np.testing.assert_array_equal(np.sort(tours, axis=1), np.broadcast_to(np.arange(7), (200, 7)))
    optimal = np.take_along_axis(optimal_actions(values), tours[:, 1:, None], axis=2)[:, :, 0]
    for b, length in enumerate(lengths):
        np.testing.assert_array_equal(tours[b, :length], prefixes[b, :length])
        assert optimal[b, length - 1 :].all()
    np.testing.assert_array_equal(values, action_values(weights, tours))


def test_the_lowest_city_comes_first_among_optimal_tours() -> None:
    rng = np.random.default_rng(9)
    weights = draw("ties", 6, 100, rng)
    candidates = all_tours(6)  # in lexicographic order, and argmin takes the first
    expected = candidates[exhaustive_costs(weights, candidates).argmin(axis=1)]
    np.testing.assert_array_equal(held_karp(weights).tours, expected)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 11), kind=st.sampled_from(KINDS))
def test_renaming_the_cities_renames_the_values(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    weights, tours = draw(kind, n, 3, rng), random_tours(3, n, rng)
    new_name = rng.permutation(n)
    old_name = np.argsort(new_name)
    renamed = np.ascontiguousarray(weights[:, old_name][:, :, old_name])
    np.testing.assert_array_equal(held_karp(renamed).costs, held_karp(weights).costs)
    np.testing.assert_array_equal(held_karp(weights.transpose(0, 2, 1)).costs, held_karp(weights).costs)
    new_name[1:] = rng.permutation(n - 1) + 1  # values speak of tours from city 0, which keeps its name here
    new_name[0] = 0
    old_name = np.argsort(new_name)
    renamed = weights[:, old_name][:, :, old_name]
    values = action_values(renamed, new_name[tours])
    np.testing.assert_array_equal(values[:, :, new_name], action_values(weights, tours))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 10), kind=st.sampled_from(KINDS[:7]))
def test_a_constant_on_all_roads_out_of_a_city_shifts_every_tour_alike(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    weights = draw(kind, n, 3, rng)
    extra = rng.integers(0, 1000, size=(1, n, 1), dtype=np.int32)
    np.testing.assert_array_equal(held_karp(weights + extra).costs, held_karp(weights).costs + extra.sum())


def test_what_cannot_be_solved_is_refused() -> None:
    for n in (1, MAX_CITIES + 1):
        with pytest.raises(UserError, match=f"takes 2 to 20 cities, got {n}"):
            held_karp(np.zeros((1, n, n), dtype=np.int32))
    with pytest.raises(UserError, match=r"must have shape \(batch, n, n\) with n >= 2, got \(4, 4\)"):
        held_karp(np.zeros((4, 4), dtype=np.int32))
    assert held_karp(np.zeros((0, 5, 5), dtype=np.int32)).tours.shape == (0, 5)
