"""E1: what the library would do at a state, noisy policies, and which algorithm a known subject looks like."""

import dataclasses

import numpy as np
import pytest
from known_subjects import KnownSubject, complete_optimally, nearest_subject, optimal_subject

from mesaprobe.evidence import LINES, draw_set
from mesaprobe.evidence.behaviour.algorithms import IMITATOR, ORACLE, AlgorithmSettings
from mesaprobe.evidence.behaviour.library import EXACT, LIMITED, candidate_costs, contracted, library, library_costs
from mesaprobe.evidence.behaviour.noise_model import exceedance_probabilities, expected_log_likelihood, fit_noise
from mesaprobe.evidence.behaviour.recovery import algorithm_recovery
from mesaprobe.evidence.behaviour.telling_states import disagreement, merged_classes, telling_states
from mesaprobe.evidence.states.decision_states import states_along_optimal_tours
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1, Algorithm
from mesaprobe.solvers.fixed_horizon import horizon_completions, horizon_tours
from mesaprobe.solvers.known_rules import leaving_out

SMALL = AlgorithmSettings(pool=2500, states=120, imitator_states=150, resamples=200, sign_flips=199)
PROBLEM = make_problem(ProblemConfig(n=7))
RNG = np.random.default_rng


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def walker(complete: object) -> KnownSubject:
    return KnownSubject(complete, planted=False)  # type: ignore[arg-type]


def look_two_arcs(weights: np.ndarray, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return horizon_completions(weights, prefixes, lengths, 2)


def test_tours_of_the_contracted_rest_cost_what_completions_cost() -> None:
    states = states_along_optimal_tours(draw_set(PROBLEM, "test", 30, 0), RNG(0))
    states = states[np.flatnonzero(states.steps == 2)]
    small, cities = contracted(states.weights, states.tours, 2)
    tours = ALGORITHMS["held_karp"](small)
    costs = small[np.arange(len(small))[:, None], tours, np.roll(tours, -1, 1)].sum(1)
    np.testing.assert_array_equal(costs, states.values().min(axis=1))
    first = np.take_along_axis(cities, tours[:, 1:2] - 1, axis=1)[:, 0]
    assert states.optimal()[np.arange(len(first)), first].all()


def test_every_member_names_one_free_city_and_searches_with_much_to_spend_name_optimal_ones() -> None:
    states = states_along_optimal_tours(draw_set(PROBLEM, "test", 40, 0), RNG(0))
    members = library(PROBLEM)
    assert {"annealing", "two_opt", "held_karp"} <= {member.name for member in members}
    assert {member.name for member in LIMITED} <= {member.name for member in members}
    rows, free = np.arange(len(states)), states.free
    for member in members:
        for form, costs in candidate_costs(member, states, 0).items():
            best = np.where(free, costs, np.inf).argmin(axis=1)
            assert np.isfinite(costs[free]).all()
            if form == "choice":
                assert free[rows, costs.argmin(axis=1)].all(), member.name
            if member.name in ("annealing", "held_karp"):
                assert states.optimal()[rows, best].mean() > 0.99


def test_values_lead_to_the_cities_that_the_algorithm_chooses() -> None:
    states = states_along_optimal_tours(draw_set(PROBLEM, "test", 40, 0), RNG(0))
    both = [(m.name, f) for m in library(PROBLEM) if "value" in (f := candidate_costs(m, states, 0))]
    assert len(both) >= 5
    for name, forms in both:
        best = np.where(states.free, forms["value"], np.inf)
        named = forms["choice"] < 1.0 - 1e-9
        least = best == best.min(axis=1, keepdims=True)
        assert (named & least).any(axis=1).all(), name


def test_telling_states_are_discordant_divided_and_the_same_from_the_cache() -> None:
    first, again = (telling_states(PROBLEM, "test", 2500, 80, 0) for _ in range(2))
    np.testing.assert_array_equal(first.states.tours, again.states.tours)
    rows = np.arange(len(first))
    for rule in HEUR_V1:
        completions = ALGORITHMS[rule].completions
        assert completions is not None
        states = first.states
        named = completions(states.weights, states.tours, states.steps + 1)[rows, states.steps + 1]
        assert not first.optimal[rows, named].any()
    fewer = telling_states(PROBLEM, "test", 2500, 40, 0)
    spread = [disagreement(np.stack([1 - c["choice"] for c in part.costs.values()])).mean() for part in (fewer, first)]
    assert spread[0] > spread[1]
    with leaving_out(["savings"]):
        without = telling_states(PROBLEM, "test", 2500, 80, 0)
    assert "savings" not in without.costs
    assert without.nuisance.shape[2] == first.nuisance.shape[2] - 1


def test_algorithms_that_agree_are_one_class_and_the_exact_ones_are_with_their_like() -> None:
    part = telling_states(PROBLEM, "calibration", 2500, 120, 0)
    members = library(PROBLEM)
    classes = merged_classes(members, part.costs, 0.9)
    assert sorted(name for each in classes for name in each) == sorted(member.name for member in members)
    exact = next(each for each in classes if "held_karp" in each)
    assert "annealing" in exact
    assert all(len(each) == 1 for each in merged_classes(members, part.costs, 1.0))


def test_the_noise_model_finds_what_generated_the_answers() -> None:
    rng = RNG(0)
    costs, free = rng.random((600, 5)), np.ones((600, 5), dtype=bool)
    free[:300, 4] = False
    soft = np.where(free, np.exp(-6.0 * costs), 0.0)
    truth = 0.8 * soft / soft.sum(1, keepdims=True) + 0.2 * free / free.sum(1, keepdims=True)
    model, score = fit_noise(costs, free, truth)
    assert 5.0 < model.sharpness < 7.2
    assert abs(model.lapse - 0.2) < 0.05
    entropy = (truth * np.log(np.where(free, truth, 1.0))).sum(1).mean()
    assert entropy - 0.005 < score <= entropy + 1e-12
    assert score == pytest.approx(expected_log_likelihood(model, costs, free, truth).mean())
    flat, _ = fit_noise(costs, free, free / free.sum(1, keepdims=True))
    assert flat.lapse > 0.9 or flat.sharpness < 0.2


def test_exceedance_shares_a_tie_and_does_not_call_noise() -> None:
    rng = RNG(0)
    tied = exceedance_probabilities(np.tile([0.0, 0.0, -9.0], (60, 1)), rng)
    assert abs(tied[0] - tied[1]) < 0.05
    assert tied.sum() == pytest.approx(1.0)
    noise = exceedance_probabilities(0.01 * rng.normal(size=(60, 3)), rng)
    assert noise.max() < 0.5


def test_a_walker_looks_like_its_own_rule_and_like_no_search() -> None:
    result = LINES["E1"].measure(nearest_subject(), SMALL, 0)
    assert result.status in ("ok", "underpowered")
    ranking = [each for each in result.details["ranking"] if each["kind"] != "null"]
    assert ranking[0]["algorithm"] == "nearest_neighbour"
    assert ranking[0]["value"] > 0.95
    assert result.value is not None
    assert result.ci is not None
    assert result.ci[1] < 0
    assert result.p is not None
    assert result.p > 0.5
    assert abs(result.null["answers of other states"]) < 0.1


def test_a_short_look_ahead_is_recognised_as_search_beyond_the_imitator() -> None:
    result = LINES["E1"].measure(walker(look_two_arcs), SMALL, 0)
    assert (result.details["looks_like"], result.details["best_search"]) == ("horizon_2", "horizon_2")
    assert result.ci is not None
    assert result.ci[0] > 0
    assert result.p == pytest.approx(1 / 200)
    kinds = {each["algorithm"]: each["kind"] for each in result.details["ranking"]}
    assert (kinds[IMITATOR], kinds[ORACLE], kinds["horizon_2"], kinds["savings"]) == ("null", "null", "search", "rule")
    assert not set(EXACT) & {each["algorithm"] for each in result.details["ranking"]}


def test_above_97_percent_the_line_says_why_it_gives_no_number() -> None:
    result = LINES["E1"].measure(optimal_subject(planted=False), SMALL, 0)
    assert (result.status, result.value, result.p) == ("na", None, None)
    assert "97%" in str(result.reason)
    assert result.details["discordant_accuracy"] > 0.97


def test_same_seed_same_numbers_and_too_few_states_is_not_applicable() -> None:
    first, again, other = (LINES["E1"].measure(walker(look_two_arcs), SMALL, seed) for seed in (0, 0, 1))
    for name in ("value", "ci", "p", "null", "details"):
        assert getattr(first, name) == getattr(again, name)
    assert first.value != other.value
    few = LINES["E1"].measure(nearest_subject(), dataclasses.replace(SMALL, pool=150), 0)
    assert few.status == "na"
    assert "decisions" in str(few.reason)


def test_a_users_own_algorithm_appears_in_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    members = dict(ALGORITHMS._members)
    members.pop("horizon_2", None)
    monkeypatch.setattr(ALGORITHMS, "_members", members)

    def my_tours(weights: np.ndarray) -> np.ndarray:
        return horizon_tours(weights, 2)

    ALGORITHMS.add("mine", Algorithm("mine", 3, my_tours, look_two_arcs))
    result = LINES["E1"].measure(walker(look_two_arcs), SMALL, 0)
    assert result.details["looks_like"] == "mine"
    assert "mine" in result.arrays["names"].tolist()
    assert library_costs([ALGORITHMS["mine"]], states_along_optimal_tours(draw_set(PROBLEM, "test", 3, 0), RNG(0)), 0)


def test_a_search_with_too_little_to_spend_is_not_called_by_its_rule() -> None:
    """Recovery on a few classes; all of them, at three noise levels, in the slow test."""
    found = algorithm_recovery(PROBLEM, SMALL, 0, lapses=(0.2,), repeats=1)
    assert found.confusion.shape == (len(found.names),) * 2
    np.testing.assert_allclose(found.confusion.sum(axis=1), 1.0)
    assert np.diag(found.confusion).mean() > 0.9


@pytest.mark.slow
def test_every_class_of_the_library_is_recognised_at_three_noise_levels() -> None:
    problem = make_problem(ProblemConfig(n=8))
    found = algorithm_recovery(problem, LINES["E1"].settings["quick"], 0, repeats=7)
    assert np.diag(found.confusion).min() >= 0.85, found.worst


def test_complete_optimally_is_what_the_oracle_does() -> None:
    states = states_along_optimal_tours(draw_set(PROBLEM, "test", 20, 0), RNG(0))
    named = complete_optimally(states.weights, states.tours, states.steps + 1)[np.arange(len(states)), states.steps + 1]
    costs = candidate_costs(ALGORITHMS["held_karp"], states, 0)["choice"]
    assert (costs[np.arange(len(states)), named] < 1.0).all()
