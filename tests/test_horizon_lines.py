"""E2, E2b, E1b, E10c and the consistency check on subjects whose mechanism is known."""

import dataclasses

import numpy as np
import pytest
import torch
from known_subjects import KnownSubject, complete_optimally, nearest_subject, optimal_subject
from scipy.special import expit

from mesaprobe.evidence import LINES, draw_set
from mesaprobe.evidence.behaviour.horizon import HorizonSettings
from mesaprobe.evidence.behaviour.imitator import fit_imitator
from mesaprobe.evidence.behaviour.layers_kept import LayersKeptSettings
from mesaprobe.evidence.behaviour.own_horizon import OwnHorizonSettings, own_values
from mesaprobe.evidence.behaviour.same_state import path_dependence
from mesaprobe.evidence.behaviour.shifted import shifts
from mesaprobe.evidence.behaviour.slopes import logit_slopes
from mesaprobe.evidence.behaviour.tour_distribution import TourDistributionSettings
from mesaprobe.evidence.states.decision_states import DecisionStates, log_chances, states_along_optimal_tours
from mesaprobe.evidence.states.own_completions import completion_costs, own_completions
from mesaprobe.models import GPTConfig, TourGPT, gpt_subject
from mesaprobe.models.subject import Subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.report.lines.horizon import horizon_figure
from mesaprobe.report.lines.layers_kept import layers_kept_figure
from mesaprobe.report.lines.tour_distribution import tour_distribution_figure
from mesaprobe.solvers.constructive import nearest_neighbour_completions
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.zoo.compiled import best_of_k_enumerator

SETS = HorizonSettings(3000, 60, 400, 40, 40, fewest_in_cell=3, resamples=200, sign_flips=199)
FEW = dataclasses.replace(SETS, pool=1500, states_per_need=25, shifted_pool=200, shifted_states=30)
OWN = OwnHorizonSettings(SETS, 25, resamples=200, sign_flips=199)
TOURS = TourDistributionSettings(6, 60, 2, resamples=200, sign_flips=199)
LAYERS = LayersKeptSettings(2500, 120, 100, 100, resamples=200, sign_flips=199)
PROBLEM = make_problem(ProblemConfig(n=7))


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class ValueSubject(KnownSubject):
    """Steps with probability exp(-Q* / 4), so that a tour has about exp(-cost / 4)."""

    def next_city_logits(self, features: torch.Tensor, prefixes: torch.Tensor) -> torch.Tensor:
        weights = np.rint(features.numpy() * self.problem.config.levels).astype(np.int32)
        tours = self._completed(features, prefixes).numpy()
        values = action_values(weights, tours)[:, prefixes.shape[1] - 1]
        return torch.from_numpy(-np.where(np.isfinite(values), values, 1e6) / 4).float()

    def random_twin(self, seed: int) -> KnownSubject:
        return KnownSubject(nearest_neighbour_completions, n=self.problem.n, planted=False, seed=seed)


@pytest.fixture(scope="module")
def poor_searcher() -> Subject:
    return gpt_subject(best_of_k_enumerator(7, 64, k=60), PROBLEM, "best of 80", {})


def some_states(count: int = 40, step: int | None = None) -> DecisionStates:
    states = states_along_optimal_tours(draw_set(PROBLEM, "test", count, 0), np.random.default_rng(0))
    return states if step is None else states[np.flatnonzero(states.steps == step)]


def test_horizon_is_one_for_the_optimum_and_nothing_for_a_rule_that_the_imitator_knows() -> None:
    best = LINES["E2"].measure(optimal_subject(planted=False), SETS, 0)
    assert best.value == pytest.approx(1.0)
    assert best.p == pytest.approx(1 / 200)
    assert set(best.details["accuracy"].values()) - {None} == {1.0}
    rule = LINES["E2"].measure(nearest_subject(), SETS, 0)
    assert rule.value is not None
    assert abs(rule.value) < 0.05
    assert rule.details["accuracy"]["0"] == 1.0
    assert rule.details["accuracy"]["1"] < 0.2
    assert rule.details["slopes"]["d*"]["ci"][1] < 0
    assert set(rule.details["drawn_otherwise"]) == set(shifts(PROBLEM))
    assert len(horizon_figure(rule.arrays).data) == 2


def test_a_poor_searcher_shows_by_its_own_completions_and_a_rule_does_not(poor_searcher: Subject) -> None:
    own = LINES["E2b"].measure(poor_searcher, OWN, 0)
    assert own.ci is not None
    assert own.ci[0] > 0.2
    assert own.p == pytest.approx(1 / 200)
    rule = LINES["E2b"].measure(nearest_subject(), OWN, 0)
    assert rule.details["names_own_best"] == 0.0
    assert rule.value is not None
    assert -0.02 < rule.value <= 0.0
    assert rule.ci is not None
    assert rule.ci[1] < own.ci[0]


@pytest.mark.parametrize(
    ("line", "settings"), [("E2", FEW), ("E2b", OwnHorizonSettings(FEW, 8)), ("E1b", TOURS), ("E10c", LAYERS)]
)
def test_same_seed_same_numbers(line: str, settings: object, poor_searcher: Subject) -> None:
    first, again, other = (LINES[line].measure(poor_searcher, settings, seed) for seed in (0, 0, 1))
    for name in ("value", "ci", "p", "null", "details"):
        assert getattr(first, name) == getattr(again, name)
    assert first.value != other.value


@pytest.mark.parametrize(("line", "settings"), [("E2", SETS), ("E2b", OWN), ("E1b", TOURS), ("E10c", LAYERS)])
def test_where_a_line_cannot_apply_it_gives_no_number(line: str, settings: object) -> None:
    result = LINES[line].measure(optimal_subject(planted=False, n=4), settings, 0)
    assert (result.status, result.value, result.p) == ("na", None, None)
    assert result.reason


def test_a_network_that_answers_at_random_has_no_horizon() -> None:
    """It may beat the favourite of any rule where rules are wrong by selection, but not the imitator's chance."""
    loud = TourGPT(GPTConfig(d_model=32, n_layers=2, n_heads=2, d_mlp=32), 7, 7)
    for parameter in loud.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    sets = dataclasses.replace(SETS, pool=6000, states_per_need=150)
    found = LINES["E2"].measure(gpt_subject(loud, PROBLEM, "untrained", {}), sets, 0)
    assert found.ci is not None
    assert found.ci[0] < 0
    assert found.p is not None
    assert found.p > 0.02


def test_own_values_of_an_optimal_network_are_exact_values() -> None:
    states = some_states(15)
    np.testing.assert_array_equal(own_values(optimal_subject(planted=False), states), states.values())


def test_own_completions_keep_prefix_and_forced_city_and_end_as_tours() -> None:
    states = some_states(20)
    forced = np.array([np.flatnonzero(free)[-1] for free in states.free])
    tours = own_completions(nearest_subject(), states, forced)
    np.testing.assert_array_equal(np.sort(tours, axis=1), np.tile(np.arange(7), (len(tours), 1)))
    for row, step in enumerate(states.steps):
        np.testing.assert_array_equal(tours[row, : step + 1], states.tours[row, : step + 1])
        assert tours[row, step + 1] == forced[row]
    spent = states.instances.tour_costs(tours) - completion_costs(states, tours)
    again = states.instances.tour_costs(states.tours) - completion_costs(states, states.tours)
    np.testing.assert_array_equal(spent, again)


def test_the_imitator_learns_a_rule_and_not_the_optimum() -> None:
    train, test = (
        some_states(400),
        states_along_optimal_tours(draw_set(PROBLEM, "probe", 200, 0), np.random.default_rng(1)),
    )
    agreement = {}
    for name, subject in (("rule", nearest_subject()), ("optimum", optimal_subject(planted=False))):
        imitator = fit_imitator(train, train.nuisance(), log_chances(subject, train), 0)
        guessed = imitator.scores(test.nuisance(), test.free).argmax(axis=1)
        agreement[name] = float((guessed == log_chances(subject, test).argmax(axis=1)).mean())
    assert agreement["rule"] > 0.97
    assert agreement["optimum"] < 0.95


def test_a_network_that_keeps_to_states_answers_both_roads_alike_and_one_that_reads_order_does_not() -> None:
    states = some_states(30)
    states = DecisionStates(states.instances, states.tours, np.full(len(states), 4), states.groups)
    rng = np.random.default_rng(0)
    alike = path_dependence(optimal_subject(planted=False), states, rng)
    assert alike is not None
    assert (alike["divergence"], alike["same_city"]) == (0.0, 1.0)
    ordered = gpt_subject(TourGPT(GPTConfig(d_model=16, n_heads=2, d_mlp=16), 7, 7), PROBLEM, "untrained", {})
    with torch.no_grad():
        ordered.module.pos.weight.mul_(100)  # type: ignore[attr-defined]
    apart = path_dependence(ordered, states, rng)
    assert apart is not None
    assert apart["divergence"] > 0
    assert path_dependence(optimal_subject(planted=False), some_states(5, step=2), rng) is None


def test_slopes_cover_the_truth_with_clusters_and_stay_finite_when_separated() -> None:
    rng = np.random.default_rng(0)
    groups, covered = np.repeat(np.arange(300), 4), np.zeros(2)
    for _ in range(60):
        x = rng.normal(size=(1200, 2))
        x[:, 1] = rng.normal(size=300)[groups]
        answers = rng.random(1200) < expit(0.5 + 1.0 * x[:, 0] + 1.0 * rng.normal(size=300)[groups])
        slopes = logit_slopes(x, answers, groups)
        assert slopes is not None
        covered += [slopes[0].low < 0.87 < slopes[0].high, slopes[1].low < 0.0 < slopes[1].high]
    assert (covered >= 52).all()  # the first slope shrinks to 0.87 when the instance's own intercept is averaged out
    x = rng.normal(size=(1200, 1))
    separated = logit_slopes(x, x[:, 0] > 0, groups)
    assert separated is not None
    assert np.isfinite(separated[0].value)
    assert logit_slopes(x, np.ones(1200, dtype=bool), groups) is None


def test_shifted_instances_are_legal_and_differ_from_natural_ones() -> None:
    for problem in (PROBLEM, make_problem(ProblemConfig("asymmetric", 6)), make_problem(ProblemConfig("euclidean", 6))):
        for draw in shifts(problem).values():
            instances = draw(problem, 50, np.random.default_rng(0))
            n = problem.n
            off = instances.weights[:, ~np.eye(n, dtype=bool)]
            assert (instances.weights[:, np.arange(n), np.arange(n)] == 0).all()
            assert off.min() >= (0 if problem.planar else 1)
            if not problem.planar:
                assert off.max() <= problem.config.levels
            assert instances.features.shape == (50, n, problem.feature_width)
            if problem.symmetric:
                np.testing.assert_array_equal(instances.weights, instances.weights.swapaxes(1, 2))


def test_a_network_that_weighs_whole_tours_has_tour_fidelity_and_a_step_rule_has_none_left() -> None:
    enumerator = ValueSubject(complete_optimally, n=6, planted=False)
    found = LINES["E1b"].measure(enumerator, TOURS, 0)
    rule = LINES["E1b"].measure(nearest_subject(n=6), TOURS, 0)
    assert found.value is not None
    assert found.ci is not None
    assert rule.value is not None
    assert found.ci[0] > 0
    assert found.value > max(rule.value, 0.0) + 0.5
    assert 2.0 < found.details["implied_temperature"] < 8.0
    assert found.details["role"] == "context"
    assert len(tour_distribution_figure(found.arrays).data[0].x) == 60
    every = LINES["E1b"].measure(enumerator, dataclasses.replace(TOURS, tours=None, instances=2, twin_instances=1), 0)
    assert every.details["tours_per_instance"] == 120


def test_layers_kept_end_at_the_networks_own_answer_and_one_layer_is_no_axis(poor_searcher: Subject) -> None:
    found = LINES["E10c"].measure(poor_searcher, LAYERS, 0)
    assert found.details["layers"] == len(found.arrays["kept"]) - 1 >= 2
    assert len(layers_kept_figure(found.arrays).data) == 2
    foreign = LINES["E10c"].measure(nearest_subject(), LAYERS, 0)
    assert foreign.status == "na"
    single = TourGPT(GPTConfig(d_model=16, n_layers=1, n_heads=2, d_mlp=16), 7, 7)
    assert LINES["E10c"].measure(gpt_subject(single, PROBLEM, "one layer", {}), LAYERS, 0).status == "na"
