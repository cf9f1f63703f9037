"""The miner of counterfactual pairs: seeds, yield, held-out rules, imitators, impossible requests."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from pair_cases import CASES, mined

import mesaprobe.labels.pairs.mining as mining
from mesaprobe.errors import UserError
from mesaprobe.labels.pairs import CounterfactualPairs, PairCriteria, PairYield, check_pairs, mine_pairs
from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.solvers import HEUR_V1
from mesaprobe.solvers.constructive import nearest_neighbour_completions
from mesaprobe.solvers.exact.held_karp import optimal_rollouts

# ---- seeds and yield -------------------------------------------------------------------------------------------


def equal(one: CounterfactualPairs, other: CounterfactualPairs) -> bool:
    columns = [field.name for field in dataclasses.fields(one) if isinstance(getattr(one, field.name), np.ndarray)]
    same = [np.array_equal(getattr(one, name), getattr(other, name)) for name in columns]
    members = [np.array_equal(a.weights, b.weights) for a, b in zip(one.members, other.members, strict=True)]
    return all(same + members)


@pytest.mark.parametrize("case", ["matrix 8", "asymmetric 7", "euclidean 8"])
def test_the_same_seed_gives_the_same_pairs_and_asking_for_more_keeps_them(case: str) -> None:
    config, criteria, _ = CASES[case]
    fewer = mine_pairs(make_problem(config), 7, np.random.default_rng(0), criteria).pairs
    assert equal(fewer, mined(case).pairs[:7])
    assert not equal(fewer, mine_pairs(make_problem(config), 7, np.random.default_rng(1), criteria).pairs)


@pytest.mark.parametrize("case", CASES)
def test_the_yield_adds_up(case: str) -> None:
    found = mined(case).found
    tried, *outcomes = found.counts()
    assert tried == sum(outcomes)
    assert tried % mining.STATES_PER_ROUND == 0
    assert found.kept >= len(mined(case).pairs)
    assert found.imitator_moves == 0
    assert min(found.base_undecided, found.no_flip, found.heuristic_moves) > 0


def test_yields_are_summed_by_criterion() -> None:
    total = PairYield(tried=3, no_flip=2, kept=1) + PairYield(tried=2, base_undecided=1, no_flip=1)
    assert total == PairYield(tried=5, base_undecided=1, no_flip=3, kept=1)
    assert total.kept_fraction == 0.2


def test_held_out_rules_do_not_filter() -> None:
    problem = make_problem(ProblemConfig(n=8))
    none = mine_pairs(problem, 20, np.random.default_rng(0), PairCriteria(heuristics=()))
    assert none.found.heuristic_moves == none.found.heuristic_moves_on_irrelevant == 0
    assert none.pairs.heuristic_choices.shape == (20, 0)
    check_pairs(none.pairs)
    kept = [none.found.kept_fraction]
    for left_out in ("greedy_edge", None):
        rules = tuple(name for name in HEUR_V1 if name != left_out)
        found = mine_pairs(problem, 20, np.random.default_rng(0), PairCriteria(heuristics=rules))
        check_pairs(found.pairs)
        kept.append(found.found.kept_fraction)
    assert kept[0] > kept[1] > kept[2]


# ---- imitators -------------------------------------------------------------------------------------------------


def nearest_imitator(instances: Instances, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Goes to the nearest free city, which no edit of a far entry can change."""
    tours = nearest_neighbour_completions(instances.weights, prefixes, lengths)
    return tours[np.arange(len(tours)), lengths]


def soft_optimum(instances: Instances, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Log-probabilities that follow Q*: it notices every relevant edit."""
    rollouts = optimal_rollouts(instances.weights, prefixes, lengths, np.zeros(prefixes.shape))
    return -rollouts.action_values[np.arange(len(prefixes)), lengths - 1]


def row_reader(instances: Instances, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Log-probabilities that follow the mean distance of a city, which only some edits move by enough to notice."""
    return -0.1 * instances.weights.mean(axis=2).astype(np.float32)


def test_an_imitator_that_sees_no_far_entry_changes_nothing() -> None:
    config, criteria, _ = CASES["matrix 8"]
    found = mine_pairs(make_problem(config), 20, np.random.default_rng(0), criteria, nearest_imitator)
    assert found.found.imitator_moves == 0
    assert equal(found.pairs, mined("matrix 8").pairs[:20])


def test_an_imitator_is_honoured() -> None:
    config, criteria, _ = CASES["matrix 8"]
    found = mine_pairs(make_problem(config), 20, np.random.default_rng(0), criteria, row_reader)
    assert found.found.imitator_moves > 0
    assert found.found.tried == sum(found.found.counts()[1:])
    check_pairs(found.pairs, row_reader)
    with pytest.raises(ValueError, match="the imitator keeps"):
        check_pairs(mined("matrix 8").pairs, row_reader)
    free = np.ones((20, 8), dtype=np.bool_)
    np.put_along_axis(free, found.pairs.prefixes[:, :2], False, axis=1)
    likelihoods = [np.where(free, np.exp(row_reader(member, free, free)), 0.0) for member in found.pairs.members]
    probabilities = [likelihood / likelihood.sum(axis=1, keepdims=True) for likelihood in likelihoods]
    choice = probabilities[0].argmax(axis=1)
    base, *twins = (p[np.arange(20), choice] for p in probabilities)
    for twin, probability in zip(twins, probabilities[1:], strict=True):
        assert (probability.argmax(axis=1) == choice).all()
        assert np.abs(np.log(twin / (1 - twin)) - np.log(base / (1 - base))).max() < 0.2


def test_an_imitator_that_follows_the_optimum_leaves_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "MAX_STATES_PER_PAIR", 10_000)
    with pytest.raises(UserError, match="keep almost nothing \\(0 of"):
        mine_pairs(make_problem(ProblemConfig(n=8)), 1, np.random.default_rng(0), imitator=soft_optimum)


@pytest.mark.parametrize(
    "answer",
    [
        lambda shape: np.zeros(shape[0]),
        lambda shape: np.zeros((shape[0], shape[1] + 1)),
        lambda shape: np.full(shape, np.nan),
        lambda shape: np.full(shape, -np.inf),
        lambda shape: np.zeros(shape, dtype=np.int64),
    ],
)
def test_an_answer_that_is_no_distribution_is_refused(answer: Callable[[tuple[int, ...]], np.ndarray]) -> None:
    with pytest.raises(UserError, match="an imitator must return log-probabilities"):
        check_pairs(mined("matrix 8").pairs, lambda _, prefixes, __: answer(prefixes.shape))


def test_a_certain_imitator_has_infinite_log_odds_that_stay() -> None:
    def certain(instances: Instances, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        chosen = nearest_imitator(instances, prefixes, lengths)[:, None] == np.arange(8)
        return np.where(chosen, 0.0, -np.inf)

    check_pairs(mined("matrix 8").pairs, certain)


# ---- impossible requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 1.0}, "margin is a fraction"),
        ({"margin": float("nan")}, "margin is a fraction"),
        ({"protected": 0}, "protected must be at least 1"),
        ({"max_entries": 3}, "max_entries must be 1 or 2"),
        ({"max_log_odds_shift": 0.0}, "max_log_odds_shift must be positive"),
        ({"heuristics": ("sweep",)}, "says nothing about a state"),
        ({"heuristics": ("nearest_neighbor",)}, "unknown algorithm"),
    ],
)
def test_criteria_that_no_pair_can_meet_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PairCriteria(**arguments)


@pytest.mark.parametrize(
    ("config", "count", "criteria", "message"),
    [
        (ProblemConfig(n=7), 1, PairCriteria(), "lower protected or raise n"),
        (ProblemConfig("asymmetric", 4), 1, PairCriteria(protected=1), "no decision"),
        (ProblemConfig(n=13), 1, PairCriteria(), "at most 12 cities"),
        (ProblemConfig(n=8, levels=1), 1, PairCriteria(), "at least 2 levels"),
        (ProblemConfig(n=8), 0, PairCriteria(), "number of pairs"),
        (ProblemConfig(n=8), 1, PairCriteria(margin=0.9), "keep almost nothing"),
        (ProblemConfig("euclidean", 8), 1, PairCriteria(margin=0.9), "keep almost nothing"),
    ],
)
def test_impossible_requests_end_in_one_sentence(
    config: ProblemConfig, count: int, criteria: PairCriteria, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, "MAX_STATES_PER_PAIR", 5000)
    with pytest.raises(UserError, match=message):
        mine_pairs(make_problem(config), count, np.random.default_rng(0), criteria)
