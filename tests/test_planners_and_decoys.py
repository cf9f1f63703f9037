"""Networks that plan by their architecture, and networks that hold what they do not use."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mesaprobe.instruments.activations import residual_sites
from mesaprobe.instruments.lens import readout
from mesaprobe.models import GPTConfig, LocalScorer, LocalScorerConfig, TourGPT, build_network, network_subject
from mesaprobe.models.config import PlannerConfig
from mesaprobe.models.planners import VISITED, IterationNetwork, TreeUnroll
from mesaprobe.problems import ProblemConfig, make_problem, random_tours
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.solvers.fixed_horizon import walk_values
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course
from mesaprobe.training.inert_values import next_but_one
from mesaprobe.training.lessons import InertValues
from mesaprobe.training.teaching import teach
from mesaprobe.zoo import catalogue, store
from mesaprobe.zoo.decoys import Held, planar_scorer_ignores_far_weights
from mesaprobe.zoo.planners import follows_compared_costs
from mesaprobe.zoo.state_tests import DecoyTest

N = 6
PROBLEM = make_problem(ProblemConfig(n=N))
TREE = PlannerConfig(kind="tree", width=8, d_mlp=8)
ITERATION = PlannerConfig(kind="iteration", n_layers=4, width=3, d_mlp=8)
SHAPES = pytest.mark.parametrize("config", [TREE, ITERATION], ids=["tree", "iteration"])
SMALL_GPT = GPTConfig(d_model=24, n_layers=3, n_heads=2, d_mlp=16)
ZOO_FOLDER = Path("trained_models/zoo")


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Weights, random tours, features."""
    rng = np.random.default_rng(seed)
    instances = PROBLEM.draw(count, rng)
    return instances.weights, random_tours(count, N, rng), torch.from_numpy(instances.features)


# ---- planners ----------------------------------------------------------------------------------------------------


@SHAPES
def test_the_choice_is_the_least_of_the_compared_costs(config: PlannerConfig) -> None:
    subject = network_subject(build_network(config, PROBLEM, seed=3), PROBLEM, "planner")
    instances = PROBLEM.draw(20, np.random.default_rng(0))
    assert follows_compared_costs(subject, instances, np.random.default_rng(1)).all()


@SHAPES
def test_another_way_to_the_logits_is_found_out(config: PlannerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(config, PROBLEM, seed=3)
    kind = type(network)
    plain = kind.choice

    def leaking(self: object, onward: torch.Tensor, rows: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return plain(self, onward + 0.1 * rows[:, None, 1], rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "choice", leaking)
    subject = network_subject(network, PROBLEM, "leaking")
    instances = PROBLEM.draw(20, np.random.default_rng(0))
    assert follows_compared_costs(subject, instances, np.random.default_rng(1)).mean() < 0.8


def test_a_tree_without_values_looks_two_arcs_ahead() -> None:
    """Values of 0 and a sharp minimum leave the cheapest two arcs."""
    network = TreeUnroll(TREE, N, N).eval()
    with torch.no_grad():
        for parameter in network.value.parameters():
            parameter.zero_()
        network.log_sharpness.fill_(9.0)
    weights, tours, features = drawn(30)
    logits = network(features, torch.from_numpy(tours[:, :-1])).detach()
    costs = -logits / network.unembed.log_scale.detach().exp() * 64
    for b, t in np.ndindex(30, N - 2):
        free = sorted(set(range(N)) - set(tours[b, : t + 1]))
        for a in free:
            onward = [weights[b, a, u] for u in free if u != a] or [weights[b, a, 0]]
            assert float(costs[b, t, a]) == pytest.approx(weights[b, tours[b, t], a] + min(onward), abs=0.05)


def test_an_iteration_without_learnt_costs_values_walks() -> None:
    """Learnt parts of 0 and a sharp minimum leave value iteration over walks home, while cities are left to walk."""
    network = IterationNetwork(dataclasses.replace(ITERATION, n_layers=2), N, N).eval()
    with torch.no_grad():
        for parameter in (*network.arc.parameters(), *network.terminal.parameters()):
            parameter.zero_()
        network.log_sharpness.fill_(9.0)
    weights, tours, features = drawn(30)
    logits = network(features, torch.from_numpy(tours[:, :-1])).detach()
    costs = -logits / network.unembed.log_scale.detach().exp() * 64
    expected = walk_values(weights, tours, 2)[:, : N - 3]  # at least 3 cities left
    free = expected < VISITED * 64
    found = costs[:, : N - 3].detach().numpy()
    np.testing.assert_allclose(found[free], expected[free], atol=0.05)


@SHAPES
def test_a_planner_is_looked_into_like_any_other_network(config: PlannerConfig) -> None:
    _, tours, features = drawn(4)
    subject = network_subject(build_network(config, PROBLEM), PROBLEM, "planner")
    shown = torch.from_numpy(tours[:, :3])
    assert len(residual_sites(subject, roles=("decode",))) == 1 + config.n_layers
    hook = f"blocks.{config.n_layers - 1}.hook_resid_post"
    stream = subject.activations(features, shown, [hook])[hook]
    torch.testing.assert_close(readout(subject)(stream[:, N:]), subject.logits(features, shown))
    first = "blocks.0.hook_resid_pre"
    other = subject.activations(features.flip(0), shown, [first])[first]
    swapped = subject.edited_logits(features, shown, {first: lambda activation, hook: other})  # noqa: ARG005
    own = subject.next_city_logits(features.flip(0), shown)
    free = own > -VISITED
    torch.testing.assert_close(swapped[free], own[free])


@SHAPES
def test_renaming_the_cities_of_an_iteration_renames_its_logits(config: PlannerConfig) -> None:
    if config.kind == "tree":
        pytest.skip("a tree embeds cities by name")
    weights, tours, features = drawn(4)
    order = np.concatenate([[0], 1 + np.random.default_rng(0).permutation(N - 1)])
    network, shown = build_network(config, PROBLEM), torch.from_numpy(tours[:, :4])
    renamed = features[:, order][:, :, order]
    names = torch.from_numpy(np.argsort(order))
    torch.testing.assert_close(network(renamed, names[shown]), network(features, shown)[:, :, order])
    assert len(weights) == 4


# ---- decoys ------------------------------------------------------------------------------------------------------


def test_next_but_one_is_on_an_optimal_completion() -> None:
    weights, tours, _ = drawn(20)
    found = next_but_one(dataclasses.replace(PROBLEM.draw(20, np.random.default_rng(0)), weights=weights), tours)
    values = action_values(weights, tours)
    assert (found[:, -1] == -1).all()
    for b, t in np.ndindex(20, N - 2):
        free = [u for u in range(N) if u not in tours[b, : t + 1] and u != found[b, t]]
        prefix = tours[b, : t + 1]
        costs = []
        for first in free:
            longer = [*prefix, first, found[b, t]]
            rest = [u for u in range(N) if u not in longer]
            tour = np.array([[*longer, *rest]])
            head = weights[b, prefix[-1], first] + weights[b, first, found[b, t]]
            behind = action_values(weights[b : b + 1], tour)[0, t + 2].min() if rest else weights[b, found[b, t], 0]
            costs.append(head + behind)
        assert min(costs) == values[b, t].min()


def test_a_lesson_of_inert_values_teaches_both(tmp_path: Path) -> None:
    """A small network comes to hold something of the values, and to rest where nothing may be written."""
    course = Course(
        InertValues(dormant=True, layer=1, gain=4.0),
        ProblemConfig(n=N),
        SMALL_GPT,
        optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=10),
        steps=60,
        batch_size=8,
        evaluate_every=20,
    )
    rows: list[dict[str, float]] = []
    network = teach(course, tmp_path, rows.append)
    assert rows[-1]["value_error"] < 0.75 * rows[0]["value_error"]
    assert {"agreement", "exchanged_agreement", "dormant", "completion"} <= set(rows[-1])
    subject = network_subject(network, PROBLEM, "decoy")
    test = Held(1, 4.0, 11, dormant=True).measure(subject)
    assert -1 < test.decodable < 1
    assert test.at_rest is not None
    assert test.at_rest < 1
    assert not test.passed


def test_inertness_is_measured_where_there_is_none() -> None:
    """An untrained network is moved by whatever is exchanged: it must not pass as inert."""
    network = TourGPT(SMALL_GPT, N, N, seed=0).eval()
    with torch.no_grad():
        network.unembed.weight.mul_(50)
    test = Held(1, 4.0, 11, dormant=False).measure(network_subject(network, PROBLEM, "untrained"))
    assert test.changed > 0.05
    assert test.moved > 0
    assert test.dormant is None


def test_each_condition_can_fail_a_decoy() -> None:
    good = DecoyTest(0.9, 0.5, 0.3, 0.0, 0.0, 100, dormant=0.9, at_rest=0.01)
    assert good.passed
    for change in ({"decodable": 0.7}, {"changed": 0.02}, {"dormant": 0.4}, {"at_rest": 0.2}):
        assert not dataclasses.replace(good, **change).passed  # type: ignore[arg-type]


def test_a_scorer_in_the_plane_reads_distances_only() -> None:
    problem = make_problem(ProblemConfig("euclidean", N))
    scorer = LocalScorer(LocalScorerConfig(width=4, n_layers=2, d_mlp=8), N, 2, seed=1).eval()
    subject = network_subject(scorer, problem, "planar")
    instances = problem.draw(5, np.random.default_rng(0))
    assert planar_scorer_ignores_far_weights(subject, instances, np.random.default_rng(1)).all()
    points, tour = torch.from_numpy(instances.features), torch.arange(N - 1)[None].repeat(5, 1)
    turned = 0.5 - (points - 0.5).flip(2)  # another place, the same distances
    torch.testing.assert_close(scorer(turned, tour), scorer(points, tour), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [member.name for member in catalogue.select(["all"]) if member.role == "decoy"])
def test_decoys_are_certified_by_what_they_hold(name: str) -> None:
    member = catalogue.select([name])[0]
    certificate = store.read_certificate(ZOO_FOLDER, member)
    if certificate is None:
        pytest.skip(f"{name} is not built")
    assert (certificate.kind == "decoy") == (member.held is not None)
    if certificate.decoy is not None:
        assert certificate.passed <= certificate.decoy.passed
