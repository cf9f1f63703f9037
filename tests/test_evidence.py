"""The plan line on subjects that are known by construction: it finds a planted plan and nothing else."""

import dataclasses

import numpy as np
import pytest
import torch
from known_subjects import HOOK, nearest_subject, optimal_subject

from mesaprobe.evidence import LINES, draw_set, protocol_hash
from mesaprobe.evidence.baseline import fit_baseline, label_losses, planned_steps
from mesaprobe.evidence.plan_probe import PlanProbeSettings
from mesaprobe.problems import ProblemConfig, make_problem

SMALL = PlanProbeSettings(1200, 600, 500, 1, sign_flips=199, resamples=300)


def test_a_planted_plan_is_found_with_its_site_and_a_small_p_value() -> None:
    result = LINES["E6"].measure(optimal_subject(planted=True), SMALL, 0)
    assert result.status == "ok"
    assert result.value is not None
    assert result.ci is not None
    assert result.value > 0.5
    assert result.ci[0] > 0.4
    assert result.p == pytest.approx(1 / 200)
    assert result.details["site"] == f"{HOOK} @ decode"
    assert max(result.null.values()) < 0.05


def test_optimal_behaviour_without_a_plan_inside_gives_nothing() -> None:
    """Behaviour alone, however good, must not move this line: the same subject with noise as activations."""
    result = LINES["E6"].measure(optimal_subject(planted=False), SMALL, 0)
    assert result.status == "ok"
    assert result.value is not None
    assert abs(result.value) < 0.05
    assert result.p is not None
    assert result.p > 0.01


def test_a_rule_that_the_baseline_knows_leaves_no_plan_to_look_for() -> None:
    """A nearest-neighbour walker whose activations do hold its plan: decodable, but no more than its rule says."""
    result = LINES["E6"].measure(nearest_subject(), SMALL, 0)
    assert result.value is None or result.value < 0.02 or result.details["baseline_entropy"] < 0.1
    assert result.status == "na" or result.details["baseline_accuracy"] > 0.95


def test_same_seed_same_numbers_and_seeds_matter() -> None:
    small = dataclasses.replace(SMALL, calibration_instances=300, probe_instances=200, test_instances=200)
    first, again, other = (LINES["E6"].measure(optimal_subject(planted=True), small, seed) for seed in (3, 3, 4))
    assert (first.value, first.ci, first.p, first.null) == (again.value, again.ci, again.p, again.null)
    assert first.value != other.value
    assert first.table is not None
    assert first.table.equals(again.table)


def test_labels_are_the_second_step_and_its_candidates_are_what_is_left() -> None:
    subject = optimal_subject(planted=False)
    data = planned_steps(subject, draw_set(subject.problem, "probe", 50, 0))
    for column, step in enumerate(range(7)[data.steps]):
        assert (data.chosen[:, column] == data.tours[:, step + 1]).all()
        assert (data.label[:, column] == data.tours[:, step + 2]).all()
        left = 7 - (step + 2)
        assert (data.allowed[:, column].sum(1) == left).all()
        assert not data.allowed[:, column].gather(1, data.tours[:, : step + 2]).any()
    known = np.isfinite(data.nuisance[..., 0])
    np.testing.assert_array_equal(known, data.allowed.numpy())


def test_the_baseline_beats_uniform_guessing_and_is_calibrated() -> None:
    subject = optimal_subject(planted=False)
    sets = [
        planned_steps(subject, draw_set(subject.problem, name, 400, 0)) for name in ("calibration", "probe", "test")
    ]
    baseline = fit_baseline(sets[0], sets[1], 0)
    logits = baseline.log_odds(sets[2])
    loss = float(label_losses(logits[None], sets[2]).mean())
    uniform = float(label_losses(torch.zeros_like(logits)[None], sets[2]).mean())
    assert loss < 0.75 * uniform
    sharper, flatter = (float(label_losses((c * logits)[None], sets[2]).mean()) for c in (1.5, 0.67))
    assert loss < sharper
    assert loss < flatter


def test_sets_are_disjoint_and_the_protocol_hash_covers_budget_and_lines_but_not_the_seed() -> None:
    problem = make_problem(ProblemConfig(n=8))
    drawn = [draw_set(problem, name, 200, 0).weights for name in ("calibration", "probe", "test", "behaviour")]
    together = np.concatenate(drawn)
    assert len(np.unique(together.reshape(len(together), -1), axis=0)) == 800
    assert protocol_hash("quick", ["E6"]) == protocol_hash("quick", ["E6"])
    assert protocol_hash("quick", ["E6"]) != protocol_hash("quick", [])
    assert protocol_hash("quick", ["E6"]) != protocol_hash("standard", ["E6"])


def test_too_few_cities_is_not_applicable_rather_than_zero() -> None:
    result = LINES["E6"].measure(optimal_subject(planted=True, n=5), SMALL, 0)
    assert (result.status, result.value, result.p) == ("na", None, None)
    assert "cities" in str(result.reason)
