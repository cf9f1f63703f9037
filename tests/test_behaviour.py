"""The behaviour block, the pictures and the gates on subjects whose behaviour is known."""

import numpy as np
import pytest
import torch
from known_subjects import nearest_subject, optimal_subject
from small_networks import network

from mesaprobe.analysis.behaviour import measure_behaviour
from mesaprobe.analysis.flip_pair import find_flip_pair
from mesaprobe.analysis.layout import instance_layouts
from mesaprobe.analysis.pictures import SHOWN, attention_picture, instance_pictures, patching_picture
from mesaprobe.evidence import draw_set
from mesaprobe.models import ModuleSubject
from mesaprobe.problems import ProblemConfig, make_problem


def test_an_optimal_subject_has_no_gap_and_is_right_in_every_bin() -> None:
    subject = optimal_subject(planted=False)
    found = measure_behaviour(subject, draw_set(subject.problem, "behaviour", 300, 0), 0)
    assert (found.gap.value, found.optimal_fraction, found.legal_fraction) == (0, 1, 1)
    assert found.decision_accuracy == found.discordant_accuracy == 1
    assert {e.value for e in found.dstar_accuracy["model"].values() if e is not None} == {1.0}
    assert sum(found.dstar_states.values()) == found.decision_states


def test_a_nearest_neighbour_subject_is_the_nearest_neighbour_reference() -> None:
    subject = nearest_subject()
    found = measure_behaviour(subject, draw_set(subject.problem, "behaviour", 300, 0), 0)
    np.testing.assert_array_equal(found.gaps["model"], found.gaps["nearest_neighbour"])
    assert found.discordant_accuracy == 0
    own = found.dstar_accuracy["model"]
    assert own["0"] is not None
    assert own["0"].value == 1
    assert own == found.dstar_accuracy["nearest_neighbour"] or own["1"] is not None
    for label in ("1", "2"):
        estimate = own[label]
        assert estimate is not None
        assert estimate.value < 0.15, "where the nearest city is wrong, only ties can make it right"


def test_references_are_ordered_as_they_must_be_and_random_tours_come_last() -> None:
    subject = optimal_subject(planted=False)
    found = measure_behaviour(subject, draw_set(subject.problem, "behaviour", 300, 0), 0)
    mean = {name: float(gaps.mean()) for name, gaps in found.gaps.items()}
    assert mean["two_opt_or_opt"] < mean["nearest_neighbour"], "local search starts there and only improves"
    assert max(mean, key=lambda name: mean[name]) == "random_legal"
    assert all((gaps >= 0).all() for gaps in found.gaps.values())
    assert set(found.references) == set(mean) - {"model", "optimal"}


def test_rules_that_refuse_asymmetric_weights_are_left_out() -> None:
    subject = optimal_subject(planted=False)
    subject.problem = make_problem(ProblemConfig(family="asymmetric", n=6))
    subject.logits = lambda features, tours: torch.zeros(len(features), tours.shape[1], 6)  # type: ignore[method-assign]
    subject.next_city_logits = lambda features, prefixes: torch.zeros(len(features), 6)  # type: ignore[method-assign] # noqa: ARG005
    found = measure_behaviour(subject, draw_set(subject.problem, "behaviour", 50, 0), 0)
    assert "mst_preorder" not in found.references
    assert "savings" in found.references


def test_layouts_are_the_coordinates_or_repeatable_with_their_stress() -> None:
    plane = make_problem(ProblemConfig(family="euclidean", n=5)).draw(3, np.random.default_rng(0))
    assert plane.coordinates is not None
    layout = instance_layouts(plane, 0)
    np.testing.assert_array_equal(layout.positions, plane.coordinates)
    assert (layout.kind, layout.stress.max()) == ("coordinates", 0)
    matrix = make_problem(ProblemConfig(n=5)).draw(3, np.random.default_rng(0))
    first, again = instance_layouts(matrix, 7), instance_layouts(matrix, 7)
    np.testing.assert_array_equal(first.positions, again.positions)
    assert first.kind == "mds"
    assert ((first.stress > 0) & (first.stress < 1)).all()


@pytest.mark.parametrize("family", ["matrix", "asymmetric", "euclidean"])
def test_a_flip_pair_differs_in_one_part_and_flips_the_choice(family: str) -> None:
    problem = make_problem(ProblemConfig(family=family, n=6))
    width = problem.feature_width
    subject = ModuleSubject(network(), problem) if width == 6 else _network_for(problem)
    pair = find_flip_pair(subject, problem.draw(12, np.random.default_rng(0)), 0)
    assert pair is not None
    prefix = torch.from_numpy(pair.prefix)[None]
    for instance, choice in ((pair.clean, pair.clean_choice), (pair.corrupt, pair.corrupt_choice)):
        logits = subject.next_city_logits(torch.from_numpy(instance.features), prefix)[0]
        logits[prefix[0]] = -torch.inf
        assert int(logits.argmax()) == choice
    changed = pair.clean.weights[0] != pair.corrupt.weights[0]
    u, v = pair.changed
    touched = np.zeros_like(changed)
    touched[u] |= family == "euclidean"
    touched[u, v] = True
    if family != "asymmetric":
        touched |= touched.T
    assert not (changed & ~touched).any()


def _network_for(problem):  # type: ignore[no-untyped-def]
    from mesaprobe.models import GPTConfig, TourGPT

    model = TourGPT(GPTConfig(d_model=16, n_layers=2, n_heads=2, d_mlp=24), problem.n, problem.feature_width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return ModuleSubject(model, problem)


def test_pictures_hold_what_the_report_draws() -> None:
    problem = make_problem(ProblemConfig(n=6))
    subject = ModuleSubject(network(), problem)
    instances = draw_set(problem, "behaviour", 60, 0)
    behaviour = measure_behaviour(subject, instances, 0)
    drawn = instance_pictures(instances, behaviour, 0)
    m, k = drawn["costs"].shape
    assert (m, k) == (len(drawn["methods"]), SHOWN)
    assert drawn["tours"].shape == (m, k, 6)
    for row in range(k):
        for tour, cost in zip(drawn["tours"][:, row], drawn["costs"][:, row], strict=True):
            assert drawn["weights"][row][tour, np.roll(tour, -1)].sum() == cost
    attention = attention_picture(subject, instances[:1], 0)
    assert attention is not None
    np.testing.assert_allclose(attention["patterns"].astype(float).sum(-1), 1, atol=5e-3)
    patching = patching_picture(subject, instances[:12], 0)
    assert patching is not None
    np.testing.assert_array_equal(patching["identity"], 0)
    assert patching["effects"].shape == (len(patching["layer_names"]), len(patching["locations"]))
    assert float(patching["clean_difference"]) < 0 < float(patching["corrupt_difference"])
