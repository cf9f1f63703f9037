"""Counterfactual pairs: closed-form edits against dynamic programming, and every claim of every mined pair."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from pair_cases import CASES, mined

from mesaprobe.labels.pairs import (
    EDIT_FEATURE_NAMES,
    CounterfactualPairs,
    PairCriteria,
    check_pairs,
    edit_features,
    edited_action_values,
    edited_or_natural,
    mine_pairs,
)
from mesaprobe.labels.pairs.closed_form import SLOTS, search_flips
from mesaprobe.labels.pairs.edits import change_entries
from mesaprobe.labels.pairs.states import far_cities, prefix_costs, rank_classes, state_optimum
from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.solvers.exact.held_karp import action_values


def random_states(config: ProblemConfig, count: int, seed: int = 0) -> tuple[Instances, np.ndarray, np.ndarray]:
    """Instances, random tours from city 0 and how many cities of each are the prefix (at least four are left)."""
    rng = np.random.default_rng(seed)
    instances = make_problem(config).draw(count, rng)
    tours = np.zeros((count, config.n), dtype=np.int64)
    tours[:, 1:] = np.argsort(rng.random((count, config.n - 1)), axis=1) + 1
    return instances, tours, rng.integers(1, config.n - 3, size=count)


# ---- closed form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", range(SLOTS + 1))
@pytest.mark.parametrize("levels", [3, 64])
@pytest.mark.parametrize(("family", "n"), [("matrix", 7), ("matrix", 8), ("matrix", 9), ("asymmetric", 7)])
def test_closed_form_equals_dynamic_programming_on_the_edited_weights(
    family: str, n: int, levels: int, changed: int
) -> None:
    instances, tours, lengths = random_states(ProblemConfig(family, n, levels=levels), 60, seed=changed)
    rng, symmetric = np.random.default_rng(1), instances.problem.symmetric
    entries = np.empty((60, changed, 2), dtype=np.int64)
    for row, tour, length in zip(entries, tours, lengths, strict=True):
        pairs = itertools.combinations if symmetric else itertools.permutations
        possible = list(pairs(sorted(tour[length:]), 2))
        row[:] = np.array(possible)[rng.permutation(len(possible))[:changed]]
    values = rng.integers(1, levels + 1, size=(60, changed))
    closed = edited_action_values(instances.weights, tours, lengths, entries, values, symmetric)
    edited = instances.weights.copy()
    for weights, places, new in zip(edited, entries, values, strict=True):
        for (u, v), value in zip(places, new, strict=True):
            weights[u, v] = value
            if symmetric:
                weights[v, u] = value
    assert np.array_equal(closed, action_values(edited, tours)[np.arange(60), lengths - 1])


@pytest.mark.parametrize("family", ["matrix", "asymmetric"])
def test_a_state_has_flips_exactly_if_some_single_edit_flips_it(family: str) -> None:
    config, margin = ProblemConfig(family, 7, levels=6), 0.05
    instances, tours, _ = random_states(config, 300)
    weights, symmetric = instances.weights, instances.problem.symmetric
    lengths = np.full(300, 2)
    far = np.zeros((300, 7), dtype=np.bool_)
    np.put_along_axis(far, tours[:, 4 : 7 if symmetric else 6], True, axis=1)  # three entries, or two arcs
    seeds = np.arange(300, dtype=np.uint64)
    spent = prefix_costs(weights, tours, lengths)
    found, _ = search_flips(weights, tours, lengths, spent, far, seeds, symmetric, 6, margin, 2)
    base = state_optimum(weights, tours, lengths).optimal
    expected = np.zeros(300, dtype=np.bool_)
    for u, v, value in itertools.product(range(7), range(7), range(1, 7)):
        edited = change_entries(
            weights, np.full((300, 1, 2), (u, v)), (value - weights[:, u, v])[:, None].astype(np.int64), symmetric
        )
        after = state_optimum(edited, tours, lengths)
        flips = ~(after.optimal & base).any(axis=1) & (after.margins > margin)
        expected |= flips & far[:, u] & far[:, v] & (u != v)
    assert 10 < expected.sum() < 290
    assert np.array_equal(found[:, 0, 0, 0] >= 0, expected)


def test_no_more_than_the_picked_entries_are_evaluated_at_once() -> None:
    instances, tours, lengths = random_states(ProblemConfig(n=8), 1)
    entries = np.zeros((1, SLOTS + 1, 2), dtype=np.int64)
    with pytest.raises(ValueError, match="at most 4 entries"):
        edited_action_values(instances.weights, tours, lengths, entries, entries[:, :, 0], True)


# ---- states ----------------------------------------------------------------------------------------------------


def test_cities_as_near_as_the_last_protected_one_are_protected_too() -> None:
    weights = np.full((1, 7, 7), 5, dtype=np.int32)
    weights[0, 1] = [9, 0, 2, 1, 3, 3, 8]
    prefixes, lengths = np.array([[0, 1, 0, 0, 0, 0, 0]]), np.array([2])
    expected = {1: [2, 4, 5, 6], 2: [4, 5, 6], 3: [6], 4: [6]}
    assert {k: np.flatnonzero(far_cities(weights, prefixes, lengths, k)).tolist() for k in expected} == expected


def test_rank_classes_split_the_entries_in_thirds() -> None:
    instances = make_problem(ProblemConfig(n=10, levels=10_000_000)).draw(20, np.random.default_rng(0))
    upper = instances.weights[:, *np.triu_indices(10, 1)]
    classes = np.sort(rank_classes(instances.weights, upper), axis=1)
    assert (classes == np.repeat([0, 1, 2], 15)).all()


# ---- mined pairs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_every_mined_pair_keeps_all_its_claims(case: str) -> None:
    pairs = mined(case).pairs
    assert len(pairs) == CASES[case][2]
    check_pairs(pairs)


def test_larger_edits_are_mined_where_there_is_room_for_their_twins() -> None:
    two = {case: (mined(case).pairs.entries[:, 1, 0] >= 0).mean() for case in ("matrix 8", "matrix 9", "asymmetric 7")}
    assert two["matrix 8"] == 0
    assert two["matrix 9"] > 0.05
    assert two["asymmetric 7"] > 0.05
    single = mine_pairs(make_problem(ProblemConfig(n=9)), 20, np.random.default_rng(0), PairCriteria(max_entries=1))
    assert (single.pairs.entries[:, 1] == -1).all()


def test_default_pairs_at_eight_cities_stand_at_the_first_decision() -> None:
    assert set(mined("matrix 8").pairs.lengths) == {2}


# ---- the check can fail ----------------------------------------------------------------------------------------


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[CounterfactualPairs], object]:
    """A break: one array of the pairs replaced."""
    return lambda pairs: dataclasses.replace(pairs, **{name: change(getattr(pairs, name))})


def with_edit_at_the_nearest_city(pairs: CounterfactualPairs, named: bool) -> CounterfactualPairs:
    """The first pair's relevant twin edited between the nearest free city and the edited far one instead."""
    nearest, far = pairs.heuristic_choices[0, 0], pairs.entries[0, 0, 0]
    weights, entries = pairs.relevant.weights.copy(), pairs.entries.copy()
    weights[0] = pairs.base.weights[0]
    weights[0, nearest, far] = weights[0, far, nearest] = weights[0, far, nearest] % 64 + 1
    if named:
        entries[0, 0] = nearest, far
    return dataclasses.replace(pairs, relevant=Instances(pairs.base.problem, weights), entries=entries)


def with_twins_swapped(pairs: CounterfactualPairs) -> CounterfactualPairs:
    return dataclasses.replace(
        pairs,
        relevant=pairs.irrelevant,
        irrelevant=pairs.relevant,
        entries=pairs.irrelevant_entries,
        irrelevant_entries=pairs.entries,
    )


def on_fewer_levels(pairs: CounterfactualPairs) -> CounterfactualPairs:
    problem = make_problem(ProblemConfig(n=8, levels=30))
    return dataclasses.replace(pairs, base=Instances(problem, pairs.base.weights))


BREAKS = [
    ("its state is a decision", changed("lengths", lambda lengths: lengths + 1)),
    ("its prefix begins in city 0", changed("prefixes", np.zeros_like)),
    ("zeros follow its prefix", changed("prefixes", lambda prefixes: prefixes + (np.arange(8) > 1))),
    ("its prefix lies on an optimal tour", changed("prefixes", lambda p: np.where(p > 0, p % 7 + 1, 0))),
    (
        "the twins are edited in different places",
        lambda pairs: dataclasses.replace(pairs, irrelevant=pairs.relevant, irrelevant_entries=pairs.entries),
    ),
    ("exactly the named entries differ", lambda pairs: with_edit_at_the_nearest_city(pairs, named=False)),
    ("edited cities are far", lambda pairs: with_edit_at_the_nearest_city(pairs, named=True)),
    ("entries lie in 1..levels", on_fewer_levels),
    ("entries change by the stated sizes", changed("edit_sizes", lambda sizes: sizes + np.array([1, 0]))),
    ("a missing entry changes by nothing", changed("edit_sizes", lambda sizes: sizes + np.array([0, 1]))),
    ("its optimal sets are as stated", with_twins_swapped),
    ("the two optimal sets are disjoint", changed("new_optimal", np.ones_like)),
    ("its margins are as stated", changed("margins", lambda margins: margins + 0.01)),
    ("its margins exceed the threshold", changed("criteria", lambda _: PairCriteria(margin=0.2))),
    ("nearest_neighbour chooses as stated", changed("heuristic_choices", lambda choices: choices + 1)),
]
"""What is done to good pairs, and the claim that it breaks."""


@pytest.mark.parametrize(("claim", "spoil"), BREAKS, ids=[claim for claim, _ in BREAKS])
def test_the_check_finds_a_broken_claim(
    claim: str, spoil: Callable[[CounterfactualPairs], CounterfactualPairs]
) -> None:
    with pytest.raises(ValueError, match=f"pair \\d+ breaks its claim that {claim}"):
        check_pairs(spoil(mined("matrix 8").pairs))


def test_the_check_finds_a_match_of_another_rank_class() -> None:
    """The edited entry made the longest one on all members: the size of the edit stays, its rank class does not."""
    pairs = mined("matrix 8").pairs
    rows, u, v = np.arange(len(pairs)), *pairs.entries[:, 0].T
    raise_by = np.zeros_like(pairs.base.weights)
    raise_by[rows, u, v] = raise_by[rows, v, u] = 100
    state = pairs.prefixes, pairs.lengths, pairs.entries[:, :0], pairs.edit_sizes[:, :0], True
    values, new_values = (
        edited_action_values(weights, *state) for weights in (pairs.base.weights, pairs.base.weights + raise_by)
    )
    harmless = values.min(axis=1) == new_values.min(axis=1)  # the prefix still lies on an optimal tour
    problem = make_problem(ProblemConfig(n=8, levels=200))
    base, relevant, irrelevant = (Instances(problem, member.weights + raise_by) for member in pairs.members)
    spoilt = dataclasses.replace(pairs, base=base, relevant=relevant, irrelevant=irrelevant)
    assert harmless.sum() > 20
    with pytest.raises(ValueError, match="changed entries match in rank class"):
        check_pairs(spoilt[harmless])


def test_the_check_finds_broken_moves() -> None:
    pairs = mined("euclidean 8").pairs
    assert pairs.relevant.coordinates is not None
    points = pairs.relevant.coordinates.copy()
    points[:, 0] = 0
    moved_too = Instances(pairs.base.problem, pairs.relevant.weights, points)
    with pytest.raises(ValueError, match="exactly the named city has moved"):
        check_pairs(dataclasses.replace(pairs, relevant=moved_too))
    stale = Instances(pairs.base.problem, pairs.base.weights, pairs.relevant.coordinates)
    with pytest.raises(ValueError, match="distances are those of the points"):
        check_pairs(dataclasses.replace(pairs, relevant=stale))
    with pytest.raises(ValueError, match="the city moves by the stated size"):
        check_pairs(dataclasses.replace(pairs, edit_sizes=pairs.edit_sizes + 2))


# ---- edited or natural -----------------------------------------------------------------------------------------


def test_features_of_one_edited_entry() -> None:
    weights = np.array([[[0, 2, 4, 6], [2, 0, 8, 10], [4, 8, 0, 12], [6, 10, 12, 0]]], dtype=np.int32)
    instances = Instances(make_problem(ProblemConfig(n=4)), weights)
    features = dict(zip(EDIT_FEATURE_NAMES, edit_features(instances, np.array([[[1, 3], [-1, -1]]]))[0], strict=True))
    assert np.allclose(list(features.values())[:6], [10 / 7] * 3 + [8 / 12] * 3)
    assert np.allclose(list(features.values())[6:9], [2, 7, 12])
    row = edit_features(instances, np.array([[[2, 2], [-1, -1]]]))[0]  # the distances of city 2: 4, 8, 12
    assert np.allclose(row[:6], [4 / 7, 8 / 7, 12 / 7, 2 / 12, 6 / 12, 10 / 12])


@pytest.mark.parametrize("case", ["matrix 8", "euclidean 8"])
def test_natural_and_edited_rows_differ_only_by_the_edit(case: str) -> None:
    pairs = mined(case).pairs
    for relevant in (True, False):
        data = edited_or_natural(pairs, relevant)
        natural, edited = data.features[~data.edited], data.features[data.edited]
        assert data.features.shape == (2 * len(pairs), len(EDIT_FEATURE_NAMES))
        assert np.isfinite(data.features).all()
        assert np.array_equal(data.pair[data.edited], data.pair[~data.edited])
        assert (natural != edited).any(axis=1).all()
    same = dataclasses.replace(pairs, relevant=pairs.base)
    data = edited_or_natural(same)
    assert np.array_equal(data.features[~data.edited], data.features[data.edited])
