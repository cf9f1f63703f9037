"""The lens shows what the network would answer at each layer; a tuned one undoes what is affine; revisions count."""

import functools

import numpy as np
import pytest
import torch
from small_networks import MODES, PROBLEM, Foreign, N, network, shape
from torch import Tensor

from mesaprobe.decoding import greedy_rollout
from mesaprobe.errors import UserError
from mesaprobe.lens import (
    choice_revisions,
    decoded_plans,
    greedy_plans,
    layer_choices,
    layer_tours,
    lens_sites,
    logit_lens,
    plan_revisions,
    readout,
    tuned_lens,
)
from mesaprobe.models import GPTConfig, Subject, TourGPT, gpt_subject, wrap
from mesaprobe.probes import Activations, collect
from mesaprobe.problems import tour_costs
from mesaprobe.solvers.constructive import unvisited

STEPS = slice(1, 4)


@functools.cache
def subject(attention: str = "prefix") -> Subject:
    return gpt_subject(network(shape(attention)), PROBLEM, "small", {})


def states(model: Subject, count: int, seed: int) -> tuple[Tensor, Tensor, Activations]:
    """Features, the network's own tours, and the streams along them."""
    features = torch.from_numpy(PROBLEM.draw(count, np.random.default_rng(seed)).features)
    tours = greedy_rollout(model, features).tours
    return features, tours, collect(model, features, tours, STEPS, lens_sites(model), dtype=np.float32)


@pytest.mark.parametrize("attention", MODES)
def test_the_last_layer_is_the_network_and_the_others_are_its_beginnings(attention: str) -> None:
    model = subject(attention)
    features, tours, streams = states(model, 6, seed=0)
    found = logit_lens(model).logits(streams)
    assert [site.layer for site in streams.sites] == [-1, 0, 1, 2]
    assert found.shape == (4, 6, 3, N)
    for column, step in enumerate(range(1, 4)):
        prefixes = tours[:, : step + 1]
        torch.testing.assert_close(
            found[3, :, column], model.next_city_logits(features, prefixes), atol=1e-4, rtol=1e-4
        )
        for layer, site in enumerate(streams.sites):
            seen = model.activations(features, prefixes, [site.hook])[site.hook]

            def early(stream: Tensor, hook: object, seen: Tensor = seen) -> Tensor:  # noqa: ARG001
                return seen

            expected = model.edited_logits(features, prefixes, {"blocks.2.hook_resid_post": early})
            torch.testing.assert_close(found[layer, :, column], expected, atol=1e-4, rtol=1e-4)


def test_following_the_last_layer_is_the_networks_own_rollout() -> None:
    model = subject()
    features, tours, streams = states(model, 40, seed=1)
    found = layer_tours(model, logit_lens(model), features, chunk=16)
    np.testing.assert_array_equal(found[-1], tours)
    assert (np.sort(found, axis=2) == np.arange(N)).all()
    assert (found[0] != found[-1]).any()
    choices = layer_choices(logit_lens(model).logits(streams), unvisited(tours.numpy())[:, STEPS])
    np.testing.assert_array_equal(choices[-1], tours[:, 1:][:, STEPS])


def divergences(lens_logits: Tensor) -> Tensor:
    logs = lens_logits.log_softmax(-1)
    return (logs[-1].exp() * (logs[-1] - logs)).sum(-1).mean((1, 2))


def affine_network() -> TourGPT:
    """The last layer maps the stream affinely: no attention, and an MLP whose units are always on."""
    config = GPTConfig(d_model=12, n_layers=2, n_heads=2, d_mlp=16, act_fn="relu", norm="none")
    model = TourGPT(config, N, N, seed=0).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for block in model.blocks:
        block.attn.out.weight.zero_()
        block.mlp.into.weight.copy_(torch.randn(16, 12, generator=generator))
        block.mlp.out.weight.copy_(torch.randn(12, 16, generator=generator) / 4)
    model.blocks[1].mlp.into.bias.fill_(50.0)
    model.blocks[1].mlp.out.bias.copy_(-model.blocks[1].mlp.out.weight.sum(1) * 50)
    model.unembed.weight.copy_(torch.randn(N, 12, generator=generator))
    return model


def test_a_tuned_lens_undoes_an_affine_layer() -> None:
    model = gpt_subject(affine_network(), PROBLEM, "affine", {})
    lens = tuned_lens(model, states(model, 400, seed=2)[2], seed=0, passes=800, learning_rate=5e-3)
    new = states(model, 100, seed=3)[2]
    before, after = divergences(logit_lens(model).logits(new)), divergences(lens.logits(new))
    assert before[1] > 0.5
    assert after[1] < 0.01 * before[1]
    assert after[-1] == 0


def test_a_tuned_lens_is_nearer_to_the_output_on_new_instances_and_says_by_how_much() -> None:
    model = subject()
    lens = tuned_lens(model, states(model, 800, seed=4)[2], seed=0)
    new = states(model, 400, seed=5)[2]
    before, after = divergences(logit_lens(model).logits(new)), divergences(lens.logits(new))
    assert lens.divergence is not None
    assert (lens.divergence[:, 1] <= lens.divergence[:, 0]).all()
    assert lens.divergence[-1].tolist() == [0, 0]
    assert (after[:-1] < 0.8 * before[:-1]).all()
    np.testing.assert_allclose(lens.divergence[:, 0], before, rtol=0.25, atol=1e-6)
    np.testing.assert_allclose(lens.divergence[:, 1], after, rtol=0.35, atol=1e-6)


def test_a_tuned_lens_is_not_shown_what_it_was_trained_on() -> None:
    model = subject()
    streams = states(model, 20, seed=6)[2]
    lens = tuned_lens(model, streams, seed=0, passes=2)
    with pytest.raises(ValueError, match="trained on some of these instances"):
        lens.logits(streams)
    other = tuned_lens(model, streams, seed=0, passes=2)
    assert lens.maps is not None and other.maps is not None  # noqa: PT018
    torch.testing.assert_close(lens.maps, other.maps, atol=0, rtol=0)


def test_networks_that_cannot_be_looked_through_are_refused() -> None:
    foreign = wrap(Foreign(), PROBLEM)
    with pytest.raises(UserError, match="no hook points of the residual stream"):
        lens_sites(foreign)
    with pytest.raises(UserError, match="no final norm and unembedding"):
        readout(foreign)

    class Louder(TourGPT):
        def forward(self, *arguments: Tensor, **options: Tensor) -> Tensor:
            return 2 * super().forward(*arguments, **options)

    model = Louder(shape(), N, N)
    model.load_state_dict(network().state_dict())
    with pytest.raises(UserError, match=r"are not unembed\(ln_final\(h\)\)"):
        readout(wrap(model, PROBLEM))


def test_revisions_of_choices_are_counted_by_regret() -> None:
    regrets = np.array([[[np.inf, 0.0, 3.0, 3.0]]])
    found = choice_revisions(np.array([[[2]], [[3]], [[1]], [[2]], [[2]]]), regrets)
    assert found.changed[:, 0, 0].tolist() == [True, True, True, False]
    assert found.better[:, 0, 0].tolist() == [False, True, False, False]
    assert found.worse[:, 0, 0].tolist() == [False, False, True, False]
    np.testing.assert_array_equal(found.better_share, [np.nan, 1, 0, np.nan])
    assert found.costs[:, 0, 0].tolist() == [3, 3, 0, 3, 3]


def test_revisions_of_plans_are_counted_by_cost_and_a_reversed_plan_is_none() -> None:
    instances = PROBLEM.draw(2, np.random.default_rng(0))
    plan = np.array([0, 1, 2, 3, 4, 5])
    plans = np.stack([[plan, plan], [plan[[0, 5, 4, 3, 2, 1]]] * 2, [plan[[0, 2, 1, 3, 4, 5]]] * 2])
    found = plan_revisions(plans, instances.weights, undirected=True)
    assert found.changed.tolist() == [[False, False], [True, True]]
    assert plan_revisions(plans, instances.weights, undirected=False).changed[0].all()
    costs = np.stack([tour_costs(instances.weights, layer) for layer in plans])
    np.testing.assert_array_equal(found.costs, costs)
    np.testing.assert_array_equal(found.better[1], costs[2] < costs[1])
    np.testing.assert_array_equal(found.worse[1], costs[2] > costs[1])


def test_plans_are_decoded_from_a_probe_and_checked() -> None:
    model = subject()
    _, tours, streams = states(model, 5, seed=7)
    wanted = np.stack([np.random.default_rng(i).permutation(N) for i in range(5)])
    scores = np.zeros((4, 5, 3, N, N))
    scores[:, np.arange(5)[:, None], :, wanted, np.roll(wanted, -1, axis=1)] = 1.0

    def decoder(activations: np.ndarray) -> np.ndarray:
        assert activations.shape == (4, 15, 16)
        return greedy_plans(scores, tours.numpy(), streams.steps).reshape(4, 15, N)

    plans = decoded_plans(decoder, streams)
    assert plans.shape == (4, 15, N)
    following = {int(city): int(after) for city, after in zip(wanted[2], np.roll(wanted[2], -1), strict=True)}
    plan = plans[0, 2 * 3].tolist()  # instance 2, first state
    assert plan[:2] == tours[2, :2].tolist()
    for place in range(1, N - 1):
        if following[plan[place]] not in plan[: place + 1]:
            assert plan[place + 1] == following[plan[place]]
    with pytest.raises(ValueError, match="does not keep the prefix"):
        decoded_plans(lambda activations: np.tile(np.roll(np.arange(N), 1), (4, 15, 1)), streams)  # noqa: ARG005
    with pytest.raises(ValueError, match="one tour per site and sample"):
        decoded_plans(lambda activations: np.zeros((4, 15, N), dtype=np.int64), streams)  # noqa: ARG005
