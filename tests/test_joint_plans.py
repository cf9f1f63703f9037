"""Joint consistency of decoded edges: wholes are told from independent edges of the same accuracy, and only wholes."""

import itertools

import numpy as np
import pytest
from scipy.stats import kstest

from mesaprobe.evidence.probing.joint_plans import PairScores, decoded_edges, joint_consistency, one_path
from mesaprobe.evidence.probing.plan_targets import city_pairs, used_pairs

N = 6


def scores(batch: int, seed: int, symmetric: bool = True) -> tuple[PairScores, np.random.Generator]:
    """Random completions of the prefix 0; g(Z) knows nothing and nothing is read yet."""
    rng = np.random.default_rng(seed)
    tours = np.concatenate(
        [np.zeros((batch, 1), int), 1 + rng.permuted(np.tile(np.arange(N - 1), (batch, 1)), axis=1)], 1
    )
    edges = used_pairs(tours, 1, symmetric)
    nothing = np.zeros(edges.shape)
    pairs = city_pairs(N, symmetric)
    return PairScores(pairs, symmetric, np.ones_like(edges), edges, nothing, nothing.copy(), tours[:, 1]), rng


def read(given: PairScores, values: np.ndarray) -> PairScores:
    return PairScores(given.pairs, given.symmetric, given.open, given.edges, given.known, values, given.starts)


def noise(rng: np.random.Generator, given: PairScores) -> np.ndarray:
    return 0.3 * rng.normal(size=given.edges.shape)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_set_of_edges_is_one_path_if_some_order_of_the_cities_has_these_edges(symmetric: bool) -> None:
    """Against all orders, on all sets of as many edges: cycles, branches, wrong ends and gaps are no path."""
    n, start = 4, 2
    pairs = city_pairs(n, symmetric)
    sets = np.array(
        [[index in picked for index in range(len(pairs))] for picked in itertools.combinations(range(len(pairs)), 3)]
    )
    orders = [(start, *middle, 0) for middle in itertools.permutations([1, 3])]
    expected = {
        frozenset(frozenset(edge) if symmetric else edge for edge in itertools.pairwise(order)) for order in orders
    }
    named = [frozenset(frozenset(pair) if symmetric else tuple(pair) for pair in pairs[row].tolist()) for row in sets]
    nothing = np.zeros(sets.shape)
    given = PairScores(pairs, symmetric, np.ones_like(sets), sets, nothing, nothing, np.full(len(sets), start))
    found = one_path(sets, given)
    assert found.tolist() == [edges in expected for edges in named]
    assert found.sum() == 2


def test_as_many_edges_are_decoded_as_the_completion_has_and_only_open_ones() -> None:
    given, rng = scores(50, 0)
    closed = given.open.copy()
    closed[:, 0] = given.edges[:, 0]
    given = PairScores(given.pairs, True, closed, given.edges, given.known, given.read, given.starts)
    found = decoded_edges(given, rng.normal(size=given.edges.shape))
    np.testing.assert_array_equal(found.sum(axis=1), N - 1)
    assert not found[~closed].any()
    np.testing.assert_array_equal(decoded_edges(given, given.edges.astype(float)), given.edges)


def test_a_wrong_plan_that_is_held_whole_is_told_from_edges_one_by_one() -> None:
    """Half of the instances hold another path from the same city: their false edges fit together."""
    given, rng = scores(300, 1)
    other, _ = scores(300, 2)
    places = np.array([int(np.flatnonzero(other.starts == start)[k % 20]) for k, start in enumerate(given.starts)])
    wrong = rng.random(300) < 0.5
    held = np.where(wrong[:, None], other.edges[places], given.edges)
    found = joint_consistency(read(given, held + noise(rng, given)), 0, exchanges=199)
    assert found.p == 1 / 200
    assert found.excess.low > 0.3
    assert found.paths > 0.6
    assert found.paths > found.right + 0.2
    assert found.null_interval[0] < found.null_mean < found.null_interval[1] < found.paths


def test_accurate_edges_alone_are_no_plan() -> None:
    """Readings that are independent given the answer: however accurate, p-values are those of chance."""
    for accuracy in (0.5, 1.5, 3.0):
        found = []
        for seed in range(25):
            given, rng = scores(80, 100 + seed)
            values = accuracy * given.edges + rng.normal(size=given.edges.shape)
            found.append(joint_consistency(read(given, values), seed, exchanges=79))
        p = np.array([one.p for one in found])
        assert kstest(p - np.random.default_rng(0).random(25) / 80, "uniform", alternative="greater").pvalue > 0.01
        assert abs(np.mean([one.excess.value for one in found])) < 0.02
    assert np.mean([one.paths for one in found]) > 0.5


def test_nothing_read_has_no_excess() -> None:
    """What g(Z) tells of paths stays in the null: it is not exchanged."""
    given, _ = scores(60, 3)
    known = PairScores(given.pairs, True, given.open, given.edges, given.edges * 1.0, given.read, given.starts)
    found = joint_consistency(known, 0, exchanges=19)
    assert (found.paths, found.null_mean, found.excess.value, found.p, found.right) == (1.0, 1.0, 0.0, 1.0, 1.0)
