"""E3 and E7 (a to e) on networks whose mechanism is known: searches, rules, and values that stand there unused."""

import dataclasses
import itertools
import sys
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from known_subjects import nearest_subject, optimal_subject
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.evidence import LINES
from mesaprobe.evidence.causal.causal_scrubbing import ScrubbingSettings
from mesaprobe.evidence.causal.flips import mined_flips
from mesaprobe.evidence.causal.interchange import InterchangeSettings
from mesaprobe.evidence.causal.invisible_changes import InvisibleChangesSettings
from mesaprobe.evidence.causal.plan_editing import PlanEditingSettings
from mesaprobe.evidence.causal.plan_interchange import PlanInterchange, comparisons
from mesaprobe.evidence.causal.unit_tours import UnitToursSettings, best_overlap, incidence, renamed
from mesaprobe.evidence.causal.value_interchange import SubspaceSearch, arbitrary_labels
from mesaprobe.evidence.result import LineResult
from mesaprobe.evidence.states.causal_models import Exhaustive, LookAhead, OwnCompletions, Rule, cheapest, rival_models
from mesaprobe.evidence.states.pairs import own_pairs
from mesaprobe.models import GPTConfig, TourGPT, gpt_subject
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.report.lines.causal import (
    accuracy_figure,
    doses_figure,
    recovered_figure,
    switches_figure,
    units_figure,
)
from mesaprobe.solvers.exact.held_karp import action_values, held_karp
from mesaprobe.zoo.compiled import best_of_k_enumerator, exhaustive_enumerator, nearest_neighbour_network
from mesaprobe.zoo.red_team import HABIT, habitual_walker

PROBLEM = make_problem(ProblemConfig(n=8))
CHANGES = InvisibleChangesSettings(60, 40, 30, 600, natural_pairs=20, flips=999, resamples=200)
EXCHANGE = InterchangeSettings(80, 120, 30, SubspaceSearch(1, (8,), 12), randoms=20, resamples=200)
UNITS = UnitToursSettings(120, 8, 8, resamples=200)
EDITING = PlanEditingSettings(60, 200, 20, 30, edge_dimensions=(4,), resamples=200)
SCRUBS = ScrubbingSettings(40, 60, 30, resamples=200)


class Evaluator(HookedRootModule):
    """A stream that holds each option's regret and its distance, rotated into 32 dimensions; the answer is the option
    of least `strength` x regret + (1 - strength) x distance. With strength 0 the regrets stand there unused (K1)."""

    def __init__(self, strength: float, seed: int = 0, *, scrambled: bool = False) -> None:
        super().__init__()
        block = nn.Module()
        block.hook_resid_post = HookPoint()
        self.blocks, self.strength = nn.ModuleList([block]), strength
        generator = torch.Generator().manual_seed(seed)
        self.rotation = nn.Parameter(torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q)
        reader = torch.zeros(32, 8)
        reader[:8], reader[8:16] = -strength * torch.eye(8), -(1 - strength) * torch.eye(8)
        if scrambled:
            reader = torch.randn(32, 8, generator=generator)
        self.reader = nn.Parameter(reader)
        self.setup()

    def forward(self, features: Tensor, tour: Tensor) -> Tensor:
        (batch, n, _), t = features.shape, tour.shape[1]
        weights = np.rint(features.numpy() * 64).astype(np.int32)
        values = action_values(weights, np.stack([completed(row, n) for row in tour.numpy()]))[:, : min(t, n - 1)]
        free = np.isfinite(values)
        regrets = torch.from_numpy(np.where(free, values - values.min(axis=2, keepdims=True), 0.0)).float()
        distances = 64 * features.gather(1, tour[:, : values.shape[1], None].expand(-1, -1, n))
        held = torch.cat([regrets, distances * torch.from_numpy(free), torch.zeros(*regrets.shape[:2], 16)], dim=2)
        stream = torch.cat([torch.zeros(batch, n, 32), held / 16 @ self.rotation.T], dim=1)
        stream = self.blocks[0].hook_resid_post(stream)
        answers = (stream @ self.rotation @ self.reader)[:, n:]
        return answers.masked_fill(~torch.from_numpy(free), -1e4)


def completed(prefix: np.ndarray, n: int) -> np.ndarray:
    """A whole tour that begins as the prefix does, up to a city that is named twice (padding)."""
    named = list(dict.fromkeys(prefix.tolist()))
    return np.array([*named, *(city for city in range(n) if city not in named)])


def evaluator(strength: float) -> ModuleSubject:
    return ModuleSubject(
        Evaluator(strength),
        PROBLEM,
        name=f"evaluator {strength}",
        make_twin=lambda seed: Evaluator(strength, seed, scrambled=True),
    )


def compiled(model: TourGPT) -> Subject:
    return gpt_subject(model, PROBLEM, "compiled", {})


def nearest() -> Subject:
    return compiled(nearest_neighbour_network(8, 64))


def measured(line: str, subject: Subject, settings: object, seed: int = 0) -> LineResult:
    return LINES[line].measure(subject, settings, seed)


# ---- high-level models and their pairs ----------------------------------------


@pytest.mark.parametrize(
    ("model", "rivals"),
    [
        (LookAhead(2), rival_models(PROBLEM)),
        (LookAhead(3), rival_models(PROBLEM)),
        (Rule("nearest_neighbour"), (Exhaustive(),)),
        (Rule("savings"), (LookAhead(2),)),
    ],
)
def test_a_model_changes_its_mind_on_its_flips_and_no_rival_does(model: Exhaustive, rivals: tuple) -> None:
    found = mined_flips(PROBLEM, model, rivals, "pairs_probe", 40, 0)
    assert len(found) == 40
    rows = np.arange(40)
    for side, choice in ((found.base, found.old), (found.source, found.new)):
        best = cheapest(model.values(side, found.prefixes, found.lengths))
        assert (best.sum(axis=1) == 1).all()
        assert best[rows, choice].all()
    assert (found.old != found.new).all()
    for rival in rivals:
        before, after = (
            cheapest(rival.values(side, found.prefixes, found.lengths)) for side in (found.base, found.source)
        )
        np.testing.assert_array_equal(before, after)
    changed = (found.base.weights != found.source.weights).reshape(40, -1).sum(axis=1)
    assert (changed == 2).all()  # one entry, in both directions
    current = found.prefixes[rows, found.lengths - 1]
    touched = (found.base.weights != found.source.weights)[rows, current].any(axis=1)
    assert (touched == isinstance(model, Rule)).all()


def test_own_completions_of_an_optimal_subject_cost_what_the_best_ones_do() -> None:
    subject = optimal_subject(planted=False, n=7)
    instances = subject.problem.draw(20, np.random.default_rng(0))
    prefixes, lengths = np.zeros((20, 7), dtype=np.int64), np.full(20, 2)
    prefixes[:, 1] = 3
    own = OwnCompletions(subject).values(instances, prefixes, lengths)
    np.testing.assert_array_equal(own, Exhaustive().values(instances, prefixes, lengths))


# ---- E3 ----------------------------------------


def test_an_optimal_network_follows_invisible_changes_and_a_one_step_rule_never_does() -> None:
    optimal = measured("E3", optimal_subject(planted=False, n=8), CHANGES)
    assert (optimal.status, optimal.value, optimal.p) == ("ok", 1.0, 0.001)
    assert optimal.details["natural_pairs"]["value"] == pytest.approx(1.0)
    assert 0.4 < optimal.details["edited_from_natural_auc"] < 0.9
    assert sum(third["pairs"] for third in optimal.details["by_edit_size"]) == optimal.details["pairs"] == 60
    assert len(switches_figure(dict(optimal.arrays)).data) == 2
    for rule in (nearest(), nearest_subject(n=8)):
        found = measured("E3", rule, CHANGES)
        assert (found.status, found.value, found.ci, found.p) == ("ok", 0.0, (0.0, 0.0), 1.0)
        assert found.details["natural_pairs"]["value"] in (0.0, None)


def test_a_bad_searcher_is_held_to_its_own_completions() -> None:
    """The best of 256 tours: right on few bases, yet it follows every change that moves its own optimum."""
    subject = compiled(best_of_k_enumerator(8, 64, k=256))
    found = own_pairs(subject, "pairs_test", 60, 0)
    followed, stray = found.switched()
    assert found.own
    assert len(found) >= 3
    assert followed.all()
    assert not stray.any()


def test_equal_seeds_give_equal_results() -> None:
    subject = evaluator(1.0)
    for line, settings in (("E3", CHANGES), ("E7", EXCHANGE), ("E7e", SCRUBS)):
        first, again = (measured(line, subject, settings, 3) for _ in range(2))
        assert (first.value, first.ci, first.p) == (again.value, again.ci, again.p)
        assert first.details == again.details


# ---- E7a, E7b ----------------------------------------


def test_values_that_decide_are_found_above_every_baseline() -> None:
    found = measured("E7", evaluator(1.0), EXCHANGE)
    assert found.status == "ok"
    assert found.p is not None
    assert found.p < 0.01
    assert found.details["e7a"] > 0.5
    assert found.details["search"] == "exhaustive"
    assert found.details["value_interchange"]["dormant"] is not None
    assert all(found.details["interchange_accuracy"] > rate + 0.5 for rate in found.null.values())
    assert len(accuracy_figure(dict(found.arrays)).data[0].x) == 1 + len(found.null)


def test_values_that_stand_there_unused_are_not_search() -> None:
    """K1: the regrets can be read as well as in the network above, and the answer is the nearest city."""
    found = measured("E7", evaluator(0.0), EXCHANGE)
    assert found.details["rival"] == "nearest_neighbour"
    assert found.value == 0.0
    assert found.p is not None
    assert found.p > 0.1
    assert found.null["rival heuristic"] > 0.8
    exchange = found.details["value_interchange"]
    assert (exchange["whole_site_accuracy"], exchange["source_accuracy"]) == (0.0, 0.0)
    # What little a learned direction achieves, it does by waking what the network leaves unused, and is flagged.
    assert found.details["interchange_accuracy"] < 0.4
    assert exchange["dormant"] == (found.details["interchange_accuracy"] > 0.0)


def test_a_one_step_rule_has_nothing_to_interchange() -> None:
    found = measured("E7", nearest(), EXCHANGE)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.details["e7b"] in (None, 0.0)


def test_comparisons_are_made_within_a_state_and_the_permutation_test_keeps_its_level() -> None:
    rng = np.random.default_rng(0)
    moved = rng.random((60, 8)) < 0.4
    stays = ~moved & (rng.random((60, 8)) < 0.8)
    noise = rng.normal(size=(60, 8))
    per_state = rng.normal(size=(60, 1)) * 100.0
    blind = PlanInterchange(noise + per_state, moved, stays, {})
    assert abs(blind.value) < 0.2
    assert blind.p(rng, 199) > 0.05
    seeing = PlanInterchange(noise + 3.0 * moved + per_state, moved, stays, {})
    assert seeing.value > 0.8
    assert seeing.p(rng, 199) == pytest.approx(1 / 200)
    wins, count = comparisons(np.zeros((1, 3)), np.array([[True, False, False]]), np.array([[False, True, True]]))
    assert (wins.tolist(), count.tolist()) == ([1.0], [2.0])


def test_arbitrary_labels_are_legal_fixed_and_neither_choice() -> None:
    found = mined_flips(PROBLEM, LookAhead(2), rival_models(PROBLEM), "pairs_probe", 40, 0)
    labels = arbitrary_labels(found, 8).numpy()
    np.testing.assert_array_equal(labels, arbitrary_labels(found, 8).numpy())
    rows = np.arange(40)
    assert (labels != found.old).all()
    assert (labels != found.new).all()
    assert not any(label in found.prefixes[row, : found.lengths[row]] for row, label in zip(rows, labels, strict=True))


# ---- E7c ----------------------------------------


def removed(details: Mapping[str, float]) -> float:
    """Overlap times selectivity: what E7c says where units are only removed."""
    return details["overlap_excess"] * (details["lead_lost_on_own_tour"] - details["lead_lost_on_other_tours"])


def test_units_of_an_enumerator_stand_for_tours_and_those_of_a_rule_do_not() -> None:
    found = measured("E7c", compiled(best_of_k_enumerator(8, 64, k=256)), UNITS)
    assert found.status == "ok"
    assert removed(found.details) > 0.9
    assert found.value is not None
    assert found.value > 0.8
    assert found.p is not None
    assert found.p < 0.01
    assert found.details["fit"] > 0.99
    assert found.details["lead_lost_to_later_edges"] > 0.8
    assert found.details["lead_lost_to_other_edges"] < 0.05
    assert len(units_figure(dict(found.arrays)).data) == 4
    rule = measured("E7c", nearest(), UNITS)
    assert rule.value is not None
    assert rule.value < 0.05
    assert rule.p is not None
    assert rule.p > 0.01


def test_a_passenger_in_a_unit_is_not_taken_for_what_the_unit_says() -> None:
    """The red team's walker: removing a carrier removes its passenger, but nothing of the tour's length arrives."""
    found = measured("E7c", compiled(habitual_walker(8, 64, HABIT)), UNITS)
    assert removed(found.details) > 0.8
    assert found.value is not None
    assert found.value < 0.3
    assert found.p is not None
    assert found.p > 0.05


def test_a_tours_own_incidence_overlaps_fully_and_renaming_makes_it_optimal() -> None:
    tours = np.array([[0, 3, 1, 5, 2, 7, 4, 6], [0, 1, 2, 3, 4, 5, 6, 7]])
    overlap, which = best_overlap(incidence(tours) * 3.0 + 1.0, incidence(tours))
    np.testing.assert_allclose(overlap, 1.0)
    assert which.tolist() == [0, 1]
    instances = PROBLEM.draw(30, np.random.default_rng(0))
    before = held_karp(instances.weights)
    changed, wanted = renamed(instances, before.tours, np.broadcast_to(tours[0], (30, 8)))
    np.testing.assert_array_equal(changed.tour_costs(wanted), before.costs)
    np.testing.assert_array_equal(held_karp(changed.weights).costs, before.costs)


# ---- E7d, E7e ----------------------------------------


def test_a_rule_is_not_moved_by_edits_of_its_plan() -> None:
    found = measured("E7d", nearest(), EDITING)
    assert (found.value, found.p) == (0.0, 1.0)
    assert (found.details["stays"], found.details["coherent"]) == (1.0, 0.0)
    assert len(doses_figure(dict(found.arrays)).data[0].x) == 5


def test_scrubbing_tells_search_from_rule() -> None:
    search, rule = measured("E7e", evaluator(1.0), SCRUBS), measured("E7e", nearest(), SCRUBS)
    assert search.details["recovered_by_search"] >= 0.9
    assert search.details["recovered_by_heuristic"] < 0.5
    assert search.p == 0.001
    assert rule.details["recovered_by_heuristic"] >= 0.9
    assert rule.details["recovered_by_search"] < 0.5
    assert rule.p == 1.0
    assert len(recovered_figure(dict(search.arrays)).data) == 1


# ---- where the lines do not apply ----------------------------------------


def test_where_a_line_cannot_apply_it_says_so_in_a_sentence() -> None:
    outside = optimal_subject(planted=False, n=8)  # no module to reach
    plane = make_problem(ProblemConfig("euclidean", n=8))
    small = gpt_subject(TourGPT(GPTConfig(d_model=16, n_layers=1, n_heads=2, d_mlp=8), 8, 2), plane, "plane", {})
    few = gpt_subject(
        TourGPT(GPTConfig(d_model=16, n_layers=1, n_heads=2, d_mlp=8), 6, 6), make_problem(ProblemConfig(n=6)), "6", {}
    )
    for line, settings in (("E7", EXCHANGE), ("E7c", UNITS), ("E7d", EDITING), ("E7e", SCRUBS)):
        found = measured(line, outside, settings)
        assert (found.status, found.value) == ("na", None)
        assert found.reason
    for line, settings in (("E7", EXCHANGE), ("E7c", UNITS), ("E7d", EDITING)):
        assert measured(line, small, settings).status == "na"
    assert measured("E3", few, CHANGES).status == "na"


# ---- slow proofs ----------------------------------------


@pytest.mark.slow
def test_the_exhaustive_enumerator_follows_an_edited_plan_as_a_whole_and_is_scrubbed_by_the_search_only() -> None:
    subject = compiled(exhaustive_enumerator(8, 64))
    edited = measured("E7d", subject, EDITING)
    assert edited.details["mongrel"] <= 0.05
    assert edited.value is not None
    assert edited.value > 0.9
    assert edited.details["monotone"]
    scrubbed = measured("E7e", subject, SCRUBS)
    assert scrubbed.details["recovered_by_search"] >= 0.9
    assert scrubbed.details["recovered_by_heuristic"] < 0.5
    units = measured("E7c", subject, UNITS)
    assert removed(units.details) > 0.9
    assert units.value is not None
    assert units.value > 0.5  # a soft minimum saturates: of the lead in logits, less arrives than of that in lengths
    assert units.details["lead_lost_to_later_edges"] - units.details["lead_lost_to_other_edges"] > 0.5
    assert units.p is not None
    assert units.p < 0.01


@pytest.mark.slow
def test_a_planted_search_is_found_the_better_the_stronger_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """The dial mixes a planted evaluation into a nearest-neighbour answer, from none to nothing else."""
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0)
    settings = dataclasses.replace(EXCHANGE, pairs=160)
    exchanged = [measured("E7", evaluator(strength), settings) for strength in strengths]
    followed = [measured("E3", evaluator(strength), dataclasses.replace(CHANGES, pairs=200)) for strength in strengths]
    for name, results in (("E7", exchanged), ("E3", followed)):
        values = [float(result.value or 0.0) for result in results]
        assert all(later >= earlier - 0.05 for earlier, later in itertools.pairwise(values))
        assert values[0] == 0.0
        assert values[-1] > 0.5
        found = [s for s, result in zip(strengths, results, strict=True) if result.p is not None and result.p < 0.01]
        with capsys.disabled():
            sys.stdout.write(f"\n{name} at {strengths}: {np.round(values, 3).tolist()}, found from {min(found)} on\n")
        assert min(found) <= 0.75
