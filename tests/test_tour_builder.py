"""Networks that build a tour step by step: their steps, what they are taught, and what can be seen inside them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mesaprobe.analysis.history import training_curve
from mesaprobe.instruments.activations import residual_sites
from mesaprobe.instruments.lens import readout
from mesaprobe.models import load, network_subject
from mesaprobe.models.building_steps import STEPS, EdgeSteps
from mesaprobe.models.config import TourBuilderConfig
from mesaprobe.models.tour_builder import TourBuilder
from mesaprobe.problems import Instances, ProblemConfig, make_problem, random_tours, tour_costs
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.training.built_tours import RULES, one_of, right_steps
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course, read_course
from mesaprobe.training.lessons import BuiltTours, Lesson, OptimalEdges
from mesaprobe.training.optimal_edges import optimal_edges
from mesaprobe.training.teaching import teach
from mesaprobe.zoo import catalogue  # noqa: F401  (registers the members)
from mesaprobe.zoo.edge_scorer import scores_edges_alone
from mesaprobe.zoo.members import ZOO, Taught
from mesaprobe.zoo.reference import rule

N = 6
PROBLEM = make_problem(ProblemConfig(n=N))
KINDS = {name: "insertion" if name.endswith("insertion") else "edges" for name in RULES} | {"mst_preorder": "tree"}
BY_HAND = {"insertion": "cheapest_insertion", "edges": "greedy_edge", "tree": "mst_preorder"}
ZOO_FOLDER = Path("trained_models/zoo")


def drawn(count: int, n: int = N, levels: int = 64, seed: int = 0) -> tuple[Instances, np.ndarray]:
    rng = np.random.default_rng(seed)
    return make_problem(ProblemConfig(n=n, levels=levels)).draw(count, rng), random_tours(count, n, rng)


def built(name: str, instances: Instances, tours: np.ndarray, loops: int, seed: int = 0) -> list[torch.Tensor]:
    """The partial tours that a rule makes at all states of the tours, ties broken at random."""
    steps, rng = STEPS[KINDS[name]](), np.random.default_rng(seed)
    weights = torch.from_numpy(instances.weights).float()
    found = [steps.start(torch.from_numpy(tours[:, :-1]), tours.shape[1]).float()]
    for _ in range(loops):
        right = right_steps(name, steps, weights, found[-1])
        found.append(steps.taken(found[-1], one_of(right, rng)))
    return found


# ---- steps and rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(RULES))
def test_the_steps_of_a_rule_make_the_tour_of_the_library(name: str) -> None:
    """At every state, where weights so fine leave no ties: the neighbour in the last tour is the library's city."""
    instances, tours = drawn(100, n=8, levels=10**6)
    partial = built(name, instances, tours, 8)[-1]
    steps = STEPS[KINDS[name]]()
    assert right_steps(name, steps, torch.from_numpy(instances.weights).float(), partial)[..., 0].all()
    following = steps.following(partial).numpy()
    allowed = rule(name)(instances, tours, np.random.default_rng(0))
    assert following.any(axis=2).all()
    assert (following <= allowed).all()
    assert (following == allowed)[:, 1:].all()


@pytest.mark.parametrize("name", list(RULES))
def test_however_ties_are_broken_the_library_could_have_gone_there(name: str) -> None:
    instances, tours = drawn(40, n=5, levels=3)
    patient = dataclasses.replace(rule(name), draws=200)
    allowed = patient(instances, tours, np.random.default_rng(1))
    for seed in range(5):
        partial = built(name, instances, tours, 5, seed)[-1]
        assert (STEPS[KINDS[name]]().following(partial).numpy() <= allowed).mean() > 0.999


@pytest.mark.parametrize("kind", list(STEPS))
def test_a_mixture_of_steps_is_the_mixture_of_what_they_lead_to(kind: str) -> None:
    partial, steps = built(BY_HAND[kind], *drawn(3), 2)[-1], STEPS[kind]()
    count = steps.count(N)
    allowed = steps.allowed(partial)
    assert allowed.shape == (3, N - 1, count)
    shares = torch.rand(count, generator=torch.Generator().manual_seed(0)) * allowed
    shares = shares / shares.sum(-1, keepdim=True)
    each = [steps.taken(partial, torch.eye(count)[c].expand_as(shares)) for c in range(count)]
    mixed = sum(shares[..., c, None, None] * each[c] for c in range(count))
    torch.testing.assert_close(steps.taken(partial, shares), mixed)
    torch.testing.assert_close(each[0], partial)
    for c in range(1, count):
        grown = each[c].clamp(min=0).sum((-1, -2)) - partial.clamp(min=0).sum((-1, -2))
        assert (grown[allowed[..., c]] == (2 if kind == "edges" else 1)).all()
        assert (steps.rounded(each[c]) == each[c])[allowed[..., c]].all()


# ---- the network -------------------------------------------------------------------------------------------------


def builder(kind: str) -> TourBuilder:
    """A builder that runs the rule of `BY_HAND`."""
    network = TourBuilder(TourBuilderConfig(n_layers=N, d_mlp=4, steps=kind), N, N).eval()  # type: ignore[arg-type]
    price = {
        "insertion": [1.0, 1.0, -1.0, 0.0, 0.0],
        "edges": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "tree": [1.0, 0.0, 0.0, 2.0],
    }[kind]
    with torch.no_grad():
        network.step_score.direct.weight[:] = -torch.tensor(price)
        network.unembed.weight.zero_()
        row = N if kind == "insertion" else 0
        network.unembed.weight[torch.arange(N), row + torch.arange(N)] = 10.0
    return network


@pytest.mark.parametrize("name", list(BY_HAND.values()))
def test_a_builder_that_scores_by_the_rules_key_runs_the_rule(name: str) -> None:
    instances, tours = drawn(60)
    subject = network_subject(builder(KINDS[name]), PROBLEM, "by hand")
    chosen = subject.logits(torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])).argmax(-1).numpy()
    allowed = rule(name)(instances, tours, np.random.default_rng(0))
    assert np.take_along_axis(allowed, chosen[:, :, None], axis=2).all()


@pytest.mark.parametrize("kind", list(STEPS))
def test_a_builder_is_looked_into_like_any_other_network(kind: str) -> None:
    instances, tours = drawn(4)
    features, shown = torch.from_numpy(instances.features), torch.from_numpy(tours[:, :3])
    subject = network_subject(builder(kind), PROBLEM, "by hand")
    sites = [site.hook for site in residual_sites(subject, roles=("decode",))]
    assert sites[:3] == ["blocks.0.hook_resid_pre", "blocks.0.hook_mlp_out", "blocks.0.hook_resid_post"]
    name = f"blocks.{N - 1}.hook_resid_post"
    last = subject.activations(features, shown, [name])[name]
    torch.testing.assert_close(readout(subject)(last[:, N:]), subject.logits(features, shown))
    edits = {hook: lambda activation, hook: activation.clone() for hook in subject.hook_names}  # noqa: ARG005
    torch.testing.assert_close(subject.edited_logits(features, shown, edits), subject.next_city_logits(features, shown))
    first = "blocks.0.hook_resid_pre"
    other = subject.activations(features.flip(0), shown.flip(0), [first])[first]
    swapped = subject.edited_logits(features, shown, {first: lambda activation, hook: other})  # noqa: ARG005
    torch.testing.assert_close(swapped, subject.next_city_logits(features.flip(0), shown.flip(0)))


@pytest.mark.parametrize("kind", list(STEPS))
def test_whatever_an_edit_leaves_in_the_stream_is_answered(kind: str) -> None:
    instances, tours = drawn(50)
    subject = network_subject(builder(kind), PROBLEM, "by hand")
    features, shown = torch.from_numpy(instances.features), torch.from_numpy(tours[:, :3])

    def noise(activation: torch.Tensor, hook: object) -> torch.Tensor:  # noqa: ARG001
        return 2 * torch.randn(activation.shape, generator=torch.Generator().manual_seed(0))

    assert subject.edited_logits(features, shown, {"blocks.1.hook_resid_pre": noise}).isfinite().all()


@pytest.mark.parametrize("kind", list(STEPS))
def test_gradients_pass_the_rounding(kind: str) -> None:
    instances, tours = drawn(4)
    features = torch.from_numpy(instances.features).requires_grad_()
    network = builder(kind)
    with torch.no_grad():
        network.step_score.direct.weight.mul_(1e-3)  # soft choices
    network(features, torch.from_numpy(tours[:, :3])).logsumexp(-1).sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad.abs().sum() > 0


def test_only_rows_of_weights_are_taken() -> None:
    with pytest.raises(ValueError, match="features must be the rows of weights"):
        TourBuilder(TourBuilderConfig(), N, 2)


# ---- training and the zoo ----------------------------------------------------------------------------------------


def test_optimal_edges_make_an_optimal_tour_that_keeps_the_prefix() -> None:
    instances, tours = drawn(30)
    edges = optimal_edges(instances.weights, tours, np.random.default_rng(0)).numpy()
    assert (edges.sum(-1) == 2).all()
    assert (edges == edges.swapaxes(2, 3)).all()
    costs = (edges * instances.weights[:, None]).sum((2, 3)) / 2
    assert (costs[:, 0] == held_karp(instances.weights).costs).all()
    assert (costs[:, -1] == tour_costs(instances.weights, tours)).all()
    assert (np.diff(costs, axis=1) >= 0).all()
    for length in range(2, N):
        assert (edges[np.arange(30), length - 1, tours[:, length - 2], tours[:, length - 1]] == 1).all()


@pytest.mark.parametrize(
    ("lesson", "kind", "least"),
    [
        (BuiltTours("nearest_insertion"), "insertion", 0.95),
        (BuiltTours("savings"), "edges", 0.95),
        (OptimalEdges(), "edges", 0.85),
    ],
    ids=["nearest_insertion", "savings", "optimal_edges"],
)
def test_a_builder_learns_which_step_to_take(lesson: Lesson, kind: str, least: float, tmp_path: Path) -> None:
    course = Course(
        lesson,
        PROBLEM.config,
        TourBuilderConfig(n_layers=N, d_mlp=8, steps=kind),  # type: ignore[arg-type]
        optimiser=OptimiserConfig(learning_rate=1e-2, warmup_steps=10),
        steps=200,
        batch_size=16,
        evaluate_every=100,
    )
    rows: list[dict[str, float]] = []
    teach(course, tmp_path, rows.append)
    assert next(value for name, value in rows[-1].items() if name in ("right_step", "right_edge")) > least
    assert rows[-1]["right_city"] > 0.95
    assert read_course(tmp_path / "config.json") == course
    assert training_curve(load(tmp_path)) is None  # a report draws no curve of gaps that were not measured


def test_the_certificate_of_an_edge_scorer_sees_far_weights_and_a_blind_readout() -> None:
    class FarSighted(EdgeSteps):
        def describe(self, weights: torch.Tensor, partial: torch.Tensor) -> torch.Tensor:
            return super().describe(weights, partial) + weights.mean((1, 2))[:, None, None, None]

    instances, _ = drawn(20)

    def checked(network: TourBuilder) -> np.ndarray:
        return scores_edges_alone(network_subject(network, PROBLEM, "x"), instances, np.random.default_rng(0))

    pairs, network = N * (N - 1) // 2 * N, builder("edges")  # every edge in every loop
    assert checked(network).all()
    network.steps = FarSighted()
    at_root = checked(network)[:pairs].reshape(-1, N, 20, N - 1)[:, 0, :, 0]  # where every edge is allowed
    assert at_root.mean() < 0.05
    assert checked(network)[pairs:].all()
    network = builder("edges")
    with torch.no_grad():
        network.unembed.weight.zero_()
    assert checked(network)[:-1].all()
    assert not checked(network)[-1].all()


@pytest.mark.parametrize("name", [f"{name}-loop" for name in RULES])
def test_a_stored_builder_holds_a_partial_tour_of_its_rule_after_every_loop(name: str) -> None:
    folder = ZOO_FOLDER / "trained" / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not shipped")
    member = ZOO[name]
    assert isinstance(member.recipe, Taught)
    assert member.recipe.course == read_course(folder / "config.json")
    subject, (instances, tours) = load(folder), drawn(100, n=8)
    hooks = [f"blocks.{loop}.hook_resid_post" for loop in range(8)]
    seen = subject.activations(torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1]), hooks)
    steps, weights = STEPS[KINDS[member.family]](), torch.from_numpy(instances.weights).float()
    partial = steps.start(torch.from_numpy(tours[:, :-1]), 8).float()
    for hook in hooks:
        right = right_steps(member.family, steps, weights, partial)
        after = torch.stack([steps.taken(partial, share.expand_as(right)) for share in torch.eye(right.shape[-1])])
        partial = seen[hook][:, 8:].unflatten(2, (8, 8))
        taken = (after == partial).all(-1).all(-1).movedim(0, -1)
        assert (taken & right).any(-1).float().mean() > 0.98
