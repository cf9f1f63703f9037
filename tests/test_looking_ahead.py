"""Arm A3: the score of a first city is what the docstrings say, its gradient comes through the second one too."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_networks import MODES, PROBLEM, N, inputs, network, shape
from tiny_runs import TINY, changed
from torch import Tensor

from mesaprobe.analysis import load_report
from mesaprobe.cli import main
from mesaprobe.decoding import greedy_rollout
from mesaprobe.decoding.look_ahead import look_ahead_rollout, look_ahead_scores, states_looked_at
from mesaprobe.evidence import BUDGETS, Budget
from mesaprobe.models import GPTConfig, TourGPT, gpt_subject, load
from mesaprobe.models.subject import Subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.training.config import PRESETS, TrainConfig, resolved
from mesaprobe.training.looking_ahead import looked_ahead_next_city, looked_ahead_scores
from mesaprobe.training.loop import train
from mesaprobe.training.memory import training_bytes
from mesaprobe.training.stream import evaluation_instances, make_batch

LEFT_TO_RIGHT = [mode for mode in MODES if mode != "bidirectional"]


def slow_scores(model: TourGPT, features: Tensor, prefix: list[int], depth: int) -> list[float]:
    """The definition for one state in plain Python, a forward pass for every state that it meets."""
    scores = model(features[None], torch.tensor([prefix]))[0, -1].tolist()
    left = [city for city in range(N) if city not in prefix]
    if depth == 1 or len(left) == 1:
        return scores
    for city in left:
        beyond = slow_scores(model, features, [*prefix, city], depth - 1)
        follow = [math.exp(beyond[second]) for second in left if second != city]
        scores[city] += math.log(sum(follow) / len(follow))
    return scores


def whole_tours() -> tuple[Tensor, Tensor]:
    features, tours = inputs("prefix", length=N)
    return features, tours


@pytest.mark.parametrize("mode", LEFT_TO_RIGHT)
@pytest.mark.parametrize("tied", [False, True])
def test_the_scores_of_training_are_the_definition_at_every_decision(mode: str, tied: bool) -> None:
    model = network(shape(mode, tied=tied))
    features, tours = whole_tours()
    found = looked_ahead_scores(model, features, tours)
    assert found.shape == (len(tours), N - 1, N)
    for row, step in itertools.product(range(len(tours)), range(N - 1)):
        slow = slow_scores(model, features[row], tours[row, : step + 1].tolist(), 2)
        torch.testing.assert_close(found[row, step], torch.tensor(slow), atol=1e-4, rtol=1e-4)
    plain = model(features, tours[:, :-1])
    assert (found - plain)[:, :-1].abs().max() > 0.1, "the second city counts"
    torch.testing.assert_close(found[:, -1], plain[:, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_scores_at_use_are_the_definition_at_any_depth(depth: int) -> None:
    model = network()
    subject = gpt_subject(model, PROBLEM, "loud", {})
    features, tours = whole_tours()
    for length in range(1, N):
        found = look_ahead_scores(subject, features, tours[:, :length], depth)
        for row in range(len(tours)):
            slow = slow_scores(model, features[row], tours[row, :length].tolist(), depth)
            torch.testing.assert_close(found[row], torch.tensor(slow), atol=1e-4, rtol=1e-4)


def test_passes_are_counted_as_they_are_made() -> None:
    for depth in (1, 2, 3):
        asked: list[int] = []
        rollout = look_ahead_rollout(_told(asked), torch.rand(3, N, N), depth)
        assert sum(asked) == 3 * states_looked_at(N, depth)
        assert (rollout.tours.sort(dim=1).values == torch.arange(N)).all()


def _told(asked: list[int]) -> Subject:
    """A subject that knows nothing and notes how many states it is asked."""

    def next_city_logits(features: Tensor, prefixes: Tensor) -> Tensor:
        assert len(features) == len(prefixes)
        asked.append(len(features))
        return torch.zeros(len(features), N)

    return SimpleNamespace(next_city_logits=next_city_logits)  # type: ignore[return-value]


def test_full_depth_over_sharp_arc_costs_is_exact_and_less_is_not() -> None:
    """Scores that know one arc each: what the tours are worth is then the look-ahead's alone."""
    instances = PROBLEM.draw(60, np.random.default_rng(0))
    levels, last = PROBLEM.config.levels, N - 1

    def minus_arcs(features: Tensor, prefixes: Tensor) -> Tensor:
        rows, current = torch.arange(len(features)), prefixes[:, -1]
        back = features[:, :, 0] if prefixes.shape[1] == last else 0.0  # the last city also pays for the way home
        return -30.0 * levels * (features[rows, current] + back)

    features = torch.from_numpy(instances.features)
    subject: Subject = SimpleNamespace(next_city_logits=minus_arcs)  # type: ignore[assignment]
    gaps = [
        (instances.tour_costs(look_ahead_rollout(subject, features, depth).tours.numpy()) - _optimum(instances)).mean()
        for depth in (1, 2, 3, N - 1)
    ]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] == 0


def _optimum(instances: object) -> np.ndarray:
    return held_karp(instances.weights).costs  # type: ignore[attr-defined]


def test_the_gradient_comes_through_the_second_city_and_no_further() -> None:
    """Of the first decision's loss, to the positions that later cities stand at: one that only children use, then
    none. A plain left-to-right loss reaches none of them."""
    features, tours = whole_tours()
    for scores, through in ((looked_ahead_scores, True), (lambda net, f, t: net(f, t[:, :-1]), False)):
        model = network().requires_grad_(True)
        scores(model, features, tours)[:, 0].log_softmax(-1)[:, 1].sum().backward()
        reach = model.pos.weight.grad.abs().sum(dim=1)  # type: ignore[union-attr]
        assert reach[0] > 0
        assert (reach[1] > 1e-3) == through
        assert (reach[2:] == 0).all()


def test_the_gradient_at_the_second_scores_is_their_softmax() -> None:
    """d S(s, a) / d f(sa, b) = softmax over the cities b left after a."""
    model = network().requires_grad_(True)
    features, tours = whole_tours()
    kept: list[Tensor] = []

    def keep(_: torch.nn.Module, __: tuple[Tensor, ...], logits: Tensor) -> None:
        logits.retain_grad()
        kept.append(logits)

    handle = model.unembed.register_forward_hook(keep)
    first = int(tours[0, 1])
    looked_ahead_scores(model, features, tours)[0, 0, first].backward()
    handle.remove()
    moved = kept[0].grad[0]  # type: ignore[index]
    left = [city for city in range(1, N) if city != first]
    expected = torch.zeros(N)
    expected[left] = kept[0][0, 1, left].detach().softmax(0)
    torch.testing.assert_close(moved[1], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved[0], torch.nn.functional.one_hot(torch.tensor(first), N).float())
    assert (moved[2:] == 0).all(), "no other state was asked"


def test_normalised_scores_look_nowhere() -> None:
    """Why the scores are not log-probabilities: those of the second city add up to the same, whatever the first."""
    subject = gpt_subject(network(), PROBLEM, "loud", {})
    features, tours = whole_tours()

    def normalised(features: Tensor, prefixes: Tensor) -> Tensor:
        used = (prefixes[:, :, None] == torch.arange(N)).any(dim=1)
        return subject.next_city_logits(features, prefixes).masked_fill(used, -torch.inf).log_softmax(1)

    wrapped: Subject = SimpleNamespace(next_city_logits=normalised)  # type: ignore[assignment]
    prefixes = tours[:, :2]
    expected = normalised(features, prefixes) - math.log(N - 3)
    torch.testing.assert_close(look_ahead_scores(wrapped, features, prefixes, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a3"
    model = GPTConfig(d_model=32, n_layers=2, n_heads=2, d_mlp=128)
    config = changed(arm="A3", problem=ProblemConfig(n=6), model=model, steps=500, batch_size=64)
    train(dataclasses.replace(config, evaluate_every=250, evaluation_instances=1000), folder)
    return folder


def test_training_lowers_the_loss_and_the_gap_of_the_look_ahead(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert rows[1]["loss"] < rows[0]["loss"] - 0.2
    assert rows[1]["loss"] < math.log(6) / 2
    points = json.loads((trained / "outer_compute.json").read_text())
    depth = {point["setting"]: point for point in points if point["method"] == "look_ahead"}
    greedy = next(point for point in points if point["method"] == "beam" and point["setting"] == 1)
    assert depth[1]["gap"] == greedy["gap"], "one city ahead is one pass alone"
    assert [depth[d]["forward_passes"] for d in (1, 2, 3)] == [states_looked_at(6, d) for d in (1, 2, 3)]
    assert depth[2]["gap"] < depth[1]["gap"], "it was trained as the scorer of two"
    assert "| look ahead | current | 2 |" in (trained / "README.md").read_text()


def test_the_loss_is_that_of_the_decoder(trained: Path) -> None:
    """One number from the objective, one from the scores that decode tours."""
    config = resolved(dataclasses.replace(TINY, arm="A3", problem=ProblemConfig(n=6)), 1)
    subject, batch = load(trained), make_batch(config, 0)
    features, tours = torch.from_numpy(batch.features), torch.from_numpy(batch.tours)
    scores = torch.stack([look_ahead_scores(subject, features, tours[:, :t]) for t in range(1, 6)], dim=1)
    expected = -(torch.from_numpy(batch.targets) * scores.log_softmax(-1)).sum(-1).mean()
    found = looked_ahead_next_city(subject.module, batch, config, 0)  # type: ignore[attr-defined]
    assert float(found.detach()) == pytest.approx(float(expected), abs=1e-5)


def test_the_trained_network_analyses_by_single_passes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUDGETS._members, "quick", Budget("quick", 120))
    main(["analyze", str(trained), "--lines", "E4", "--out", str(tmp_path / "found")])
    report = load_report(tmp_path / "found")
    assert report["subject"]["arm"] == "A3"
    assert report["lines"][0]["status"] in ("ok", "underpowered")
    subject = load(trained)
    instances = evaluation_instances(TrainConfig(problem=ProblemConfig(n=6)), "natural", 50).instances
    features = torch.from_numpy(instances.features)
    alone, ahead = greedy_rollout(subject, features).tours, look_ahead_rollout(subject, features).tours
    assert not torch.equal(alone, ahead), "the outer loop is not inside the subject"
    assert torch.equal(alone, look_ahead_rollout(subject, features, 1).tours)


def test_the_preset_sees_as_many_instances_as_the_plain_arm() -> None:
    plain, ahead = PRESETS["matrix8-arm-a0"], PRESETS["matrix8-arm-a3"]
    assert dataclasses.replace(ahead, arm="A0") == plain
    assert plain.steps * plain.batch_size == 640_000
    assert training_bytes(ahead) > training_bytes(plain), "the states looked at take memory"
    assert make_problem(ahead.problem).symmetric
