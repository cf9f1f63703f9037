"""What the explorer shows of single states is what the network and dynamic programming say of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from known_subjects import optimal_subject
from small_networks import network, shape

from mesaprobe.analysis.explorer import explorer_picture
from mesaprobe.decoding import greedy_rollout
from mesaprobe.labels.values import decision_steps
from mesaprobe.models import Subject, load
from mesaprobe.models.subject import gpt_subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.report.explorer import ARRAYS, explorer_data
from mesaprobe.solvers.exact.held_karp import held_karp


def explored(subject: Subject, count: int = 3) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    instances = subject.problem.draw(count, np.random.default_rng(1))
    features = torch.from_numpy(instances.features)
    tours = greedy_rollout(subject, features).tours.numpy()
    return explorer_picture(subject, instances, tours, 0), features


@pytest.fixture(scope="module", params=["prefix", "bidirectional"])
def subject(request: pytest.FixtureRequest) -> Subject:
    problem = make_problem(ProblemConfig(n=6))
    return gpt_subject(network(shape(request.param)), problem, "small", {})


def test_shares_are_those_of_the_network_at_every_state(subject: Subject) -> None:
    arrays, features = explored(subject)
    assert set(ARRAYS) | {"lens", "attention"} == set(arrays)
    steps = subject.problem.n - 2
    for step in range(steps):
        prefixes = torch.from_numpy(arrays["tours"][:, : step + 1])
        shares = subject.next_city_logits(features, prefixes).softmax(-1).numpy()
        np.testing.assert_allclose(arrays["probabilities"][:, step], shares, atol=1e-5)
        np.testing.assert_allclose(arrays["lens"][-1, :, step], shares, atol=2e-3)
        masked = np.where(np.isfinite(arrays["values"][:, step]), shares, 0)
        np.testing.assert_array_equal(masked.argmax(-1), arrays["tours"][:, step + 1])
        hook = "blocks.1.attn.hook_pattern"
        pattern = subject.activations(features, prefixes, [hook])[hook][:, :, subject.decode_position(step + 1)]
        seen = pattern[:, :, list(subject.city_positions)].numpy()
        np.testing.assert_allclose(arrays["attention"][:, step, 1], seen, atol=2e-3)
    assert np.ptp(arrays["lens"][0].astype(float) - arrays["lens"][-1]) > 1e-3, (
        "layers differ, so rows are not mixed up"
    )


def test_completions_cost_what_the_values_say(subject: Subject) -> None:
    arrays, _ = explored(subject)
    for i, s, city in np.ndindex(arrays["values"].shape):
        prefix, way = arrays["tours"][i, : s + 1], arrays["completions"][i, s, city]
        if city in prefix:
            assert np.isinf(arrays["values"][i, s, city])
            assert (way == -1).all()
            continue
        assert sorted(way) == list(range(subject.problem.n))
        assert way[: s + 2].tolist() == [*prefix, city]
        legs = arrays["weights"][i][way[s:], np.append(way[s + 1 :], 0)]
        assert legs.sum() == arrays["values"][i, s, city]
    best = held_karp(arrays["weights"]).costs
    np.testing.assert_array_equal(arrays["values"][:, 0].min(axis=-1), best)
    inside = decision_steps(subject.problem)
    assert np.flatnonzero(arrays["is_decision"]).tolist() == list(range(inside.start, inside.stop))


def test_network_without_streams_and_patterns_is_still_explored() -> None:
    subject = optimal_subject(planted=False, n=6)
    arrays, _ = explored(subject)
    assert set(arrays) == set(ARRAYS)
    chosen = np.take_along_axis(arrays["values"], arrays["tours"][:, 1:-1, None], axis=2)[..., 0]
    np.testing.assert_array_equal(chosen, arrays["values"].min(axis=2))
    assert explorer_data(arrays)["layers"] == []


def test_page_data_are_rounded_shares_and_null_for_visited_cities(subject: Subject) -> None:
    arrays, _ = explored(subject)
    data = explorer_data(arrays)
    assert data["layers"][:2] == ["input", "after layer 0"]
    state = data["instances"][2]["states"][3]
    visited = set(arrays["tours"][2, :4].tolist())
    assert {city for city, value in enumerate(state["values"]) if value is None} == visited
    assert {city for city, way in enumerate(state["completions"]) if way is None} == visited
    np.testing.assert_allclose(np.array(state["probabilities"]) / 1000, arrays["probabilities"][2, 3], atol=5.1e-4)
    np.testing.assert_allclose(np.array(state["lens"]) / 1000, arrays["lens"][:, 2, 3], atol=5.1e-4)
    assert np.array(state["attention"]).shape == arrays["attention"].shape[2:]


def test_shipped_network_has_a_row_for_every_layer_and_head() -> None:
    subject = load(Path(__file__).parents[1] / "trained_models" / "matrix8-optimal")
    arrays, _ = explored(subject, 2)
    assert arrays["lens"].shape == (5, 2, 6, 8)
    assert arrays["attention"].shape == (2, 6, 4, 4, 8)
