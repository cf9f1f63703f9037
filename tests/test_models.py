"""The hooked GPT: its two attention paths, hooks, masks and tokens, and its conversion to a TransformerBridge."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_networks import (
    BATCH,
    MODES,
    PROBLEM,
    SMALL,
    Foreign,
    N,
    difference,
    double,
    erase,
    inputs,
    keep,
    network,
    shape,
)
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint

from mesaprobe.errors import UserError
from mesaprobe.models import UNKNOWN, Subject, TourGPT, gpt_subject, to_bridge, wrap
from mesaprobe.problems import ProblemConfig, make_problem


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize("site", ["attn.hook_pattern", "attn.hook_attn_scores", "hook_scale", "hook_normalized"])
def test_the_explicit_path_equals_the_fused_one(attention: str, site: str) -> None:
    model = network(shape(attention))
    features, tours = inputs(attention)
    fused = model(features, tours)
    explicit = model.run_with_hooks(features, tours, fwd_hooks=[(lambda name: name.endswith(site), keep)])
    assert difference(fused, explicit) < 1e-5
    doubled = model.run_with_hooks(features, tours, fwd_hooks=[(lambda name: name.endswith(site), double)])
    assert difference(fused, doubled) > 5e-3, "an edit at this site must reach the logits"


@pytest.mark.parametrize("attention", MODES)
def test_every_hook_fires_with_its_documented_shape(attention: str) -> None:
    model = network(shape(attention, d_head=5))
    features, tours = inputs(attention)
    _, cache = model.run_with_cache(features, tours)
    pos, heads, width = N + tours.shape[1], SMALL.n_heads, SMALL.d_model
    stream, head, square = (BATCH, pos, width), (BATCH, pos, heads, 5), (BATCH, heads, pos, pos)
    expected = {"hook_embed": stream, "hook_pos_embed": stream}
    norms = ["ln_final"]
    for i in range(SMALL.n_layers):
        block = f"blocks.{i}"
        norms += [f"{block}.ln1", f"{block}.ln2"]
        expected |= {
            f"{block}.hook_{name}": stream for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
        }
        expected |= {f"{block}.attn.hook_{name}": head for name in "qkvz"}
        expected |= {f"{block}.attn.hook_{name}": square for name in ("attn_scores", "pattern")}
        expected |= {f"{block}.mlp.hook_{name}": (BATCH, pos, SMALL.d_mlp) for name in ("pre", "post")}
    for norm in norms:
        expected |= {f"{norm}.hook_scale": (BATCH, pos, 1), f"{norm}.hook_normalized": stream}
    assert {name: tuple(value.shape) for name, value in cache.items()} == expected
    assert set(model.hook_dict) == set(expected)


@pytest.mark.parametrize("attention", MODES)
def test_activation_cache_decompositions_sum_to_the_stream(attention: str) -> None:
    model = network(shape(attention))
    _, acts = model.run_with_cache(*inputs(attention))
    cache = ActivationCache(acts, model)
    for layer in range(1, SMALL.n_layers + 1):
        stream = acts[f"blocks.{layer - 1}.hook_resid_post"]
        assert difference(cache.decompose_resid(layer=layer).sum(0), stream) < 1e-5
        assert difference(cache.get_full_resid_decomposition(layer=layer, expand_neurons=True).sum(0), stream) < 1e-4
        heads = cache.stack_head_results(layer)[-SMALL.n_heads :].sum(0) + model.blocks[layer - 1].attn.b_O
        assert difference(heads, acts[f"blocks.{layer - 1}.hook_attn_out"]) < 1e-5
    assert cache.accumulated_resid(layer=SMALL.n_layers).shape[0] == SMALL.n_layers + 1


def test_logit_attributions_sum_to_the_logit() -> None:
    """Without norms the logit of a city is the sum of what every component writes in its direction."""
    model = network(shape(norm="none"))
    logits, acts = model.run_with_cache(*inputs())
    cache = ActivationCache(acts, model)
    cities = torch.tensor([1, 4, 5])
    attributions = cache.logit_attrs(cache.get_full_resid_decomposition(layer=SMALL.n_layers), cities)
    expected = logits[torch.arange(BATCH), :, cities] - model.unembed.bias[cities, None]
    assert difference(attributions.sum(0)[:, N:], expected) < 1e-4


def seen_by(attention: str, change: Callable[[Tensor, Tensor], None]) -> list[bool]:
    """Which positions of the last residual stream change when the input does."""
    model = network(shape(attention))
    features, tours = inputs()
    before = model(features, tours, stop_at_layer=SMALL.n_layers)
    features, tours = features.clone(), tours.clone()
    change(features, tours)
    after = model(features, tours, stop_at_layer=SMALL.n_layers)
    return (before != after).flatten(2).any(2).any(0).tolist()


@pytest.mark.parametrize("city", range(N))
def test_prefix_instance_block_sees_itself_and_causal_only_what_came_before(city: int) -> None:
    def change(features: Tensor, tours: Tensor) -> None:  # noqa: ARG001
        features[:, city] += 1.0

    assert seen_by("prefix", change)[:N] == [True] * N
    assert seen_by("causal", change)[:N] == [position >= city for position in range(N)]
    assert seen_by("prefix", change)[N:] == seen_by("causal", change)[N:] == [True] * (N - 1)


@pytest.mark.parametrize("step", range(1, N - 1))
def test_later_tour_tokens_do_not_leak(step: int) -> None:
    def change(features: Tensor, tours: Tensor) -> None:  # noqa: ARG001
        tours[:, step] = 0

    expected = [position >= N + step for position in range(2 * N - 1)]
    assert seen_by("prefix", change) == seen_by("causal", change) == expected
    assert seen_by("bidirectional", change) == [True] * (2 * N - 1)


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize("layer", range(SMALL.n_layers))
def test_resuming_at_a_layer_equals_the_full_pass_and_skips_the_layers_below(attention: str, layer: int) -> None:
    model = network(shape(attention))
    features, tours = inputs(attention)
    full, cache = model.run_with_cache(features, tours)
    resid = model(features, tours, stop_at_layer=layer)
    assert difference(resid, cache[f"blocks.{layer}.hook_resid_pre"]) < 1e-5
    ran: list[str] = []

    def note(activation: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
        ran.append(str(hook.name))

    watched = [(lambda name: name.endswith("hook_resid_pre"), note)]
    resumed = model.run_with_hooks(None, None, resid=resid, start_at_layer=layer, fwd_hooks=watched)
    assert difference(full, resumed) < 1e-5
    assert ran == [f"blocks.{i}.hook_resid_pre" for i in range(layer, SMALL.n_layers)]


@pytest.mark.parametrize("attention", MODES)
def test_a_tour_token_is_its_citys_token_plus_a_position(attention: str) -> None:
    model = network(shape(attention))
    features, tours = inputs(attention, length=4)
    tokens = model.embed(features, tours)
    assert torch.equal(tokens[:, :N], model.city(features) + model.identity.weight)
    for i in range(4):
        expected = tokens[torch.arange(BATCH), tours[:, i]] + model.pos.weight[i]
        assert torch.equal(tokens[:, N + i], expected)
    if attention == "bidirectional":
        assert torch.equal(tokens[:, N + 4 :], (model.unknown + model.pos.weight[4:]).expand(BATCH, -1, -1))


@pytest.mark.parametrize("attention", ["prefix", "bidirectional"])
def test_renaming_the_cities_renames_the_answer(attention: str) -> None:
    """Identity lives in one row of two tables: permute them with the input and nothing else changes."""
    model = network(shape(attention))
    features, tours = inputs(attention)
    new_name = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    old_name = new_name.argsort()
    renamed = copy.deepcopy(model)
    renamed.identity.weight.copy_(model.identity.weight[old_name])
    renamed.unembed.weight.copy_(model.unembed.weight[old_name])
    renamed.unembed.bias.copy_(model.unembed.bias[old_name])
    renamed_tours = torch.where(tours == UNKNOWN, UNKNOWN, new_name[tours.clamp(min=0)])
    answer = renamed(features[:, old_name], renamed_tours)
    assert difference(answer[:, :, new_name], model(features, tours)) < 1e-5
    assert difference(answer, model(features, tours)) > 0.1


def test_initial_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    first = TourGPT(SMALL, N, N, seed=5).state_dict()
    torch.manual_seed(2)
    second = TourGPT(SMALL, N, N, seed=5).state_dict()
    other = TourGPT(SMALL, N, N, seed=6).state_dict()
    drawn = {name for name, tensor in first.items() if tensor.dim() > 1}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {name for name in first if not torch.equal(first[name], other[name])} == drawn
    assert float(first["blocks.0.attn.qkv.weight"].std()) == pytest.approx(0.02, rel=0.1)
    assert float(first["blocks.0.mlp.out.weight"].std()) == pytest.approx(0.02 / (2 * 3) ** 0.5, rel=0.15)
    assert not any(tensor.any() for name, tensor in first.items() if name.endswith("bias"))


def test_problems_of_every_family_fit_a_network() -> None:
    for family in ("matrix", "asymmetric", "euclidean"):
        problem: Problem = make_problem(ProblemConfig(family=family, n=N))
        instances = problem.draw(BATCH, np.random.default_rng(0))
        model = TourGPT(SMALL, N, problem.feature_width)
        assert model(torch.from_numpy(instances.features), inputs()[1]).shape == (BATCH, N - 1, N)


# ---- the bridge ------------------------------------------------------------------------------------------------

SHAPES = {
    "plain": {},
    "wide heads": {"d_head": 5},
    "relu": {"act_fn": "relu"},
    "compiled": {"norm": "none", "act_fn": "solu", "d_head": 3, "n_heads": 5},
}


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize("kind", SHAPES)
def test_a_bridge_gives_equal_logits(attention: str, kind: str) -> None:
    config = shape(attention, **SHAPES[kind])
    for model in (TourGPT(config, N, N, seed=4).eval().requires_grad_(False), network(config, seed=4)):
        bridged = to_bridge(model)
        for length in range(1, N):
            features, tours = inputs(attention, length=length, seed=length)
            expected = model(features, tours)
            assert difference(bridged(features, tours), expected) < 1e-4
    assert expected.std() > 0.4, "the loud network must have something to say"


@pytest.mark.parametrize("attention", MODES)
def test_a_bridge_is_exact_in_double_precision_even_for_extreme_weights(attention: str) -> None:
    model = network(shape(attention), loudness=60).double()
    features, tours = inputs(attention)
    bridged = to_bridge(model)
    assert difference(bridged(features.double(), tours), model(features.double(), tours)) < 1e-8


@pytest.mark.parametrize("attention", MODES)
def test_bridge_hooks_stand_at_the_same_positions(attention: str) -> None:
    model = network(shape(attention))
    features, tours = inputs(attention)
    bridged = to_bridge(model)
    _, own = model.run_with_cache(features, tours)
    logits, theirs = bridged.bridge.run_with_cache(bridged.tokens(features, tours))
    assert logits.shape == (BATCH, N + tours.shape[1], N)
    same = ["hook_pos_embed"]
    for i in range(SMALL.n_layers):
        same += [f"blocks.{i}.hook_{name}" for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")]
        same += [f"blocks.{i}.attn.hook_{name}" for name in ("q", "k", "v", "z", "pattern")]
        same += [f"blocks.{i}.mlp.hook_pre", f"blocks.{i}.mlp.hook_post", f"blocks.{i}.ln1.hook_scale"]
    for name in same:
        assert difference(own[name], theirs[name]) < 1e-4, name
    terms = theirs.decompose_resid(layer=SMALL.n_layers)
    whole = bridged.tokens(features, tours) + terms.sum(0)
    assert difference(whole, own[f"blocks.{SMALL.n_layers - 1}.hook_resid_post"]) < 1e-4


def test_tools_that_know_no_mask_still_see_prefix_attention() -> None:
    model = network(shape("prefix"))
    features, tours = inputs()
    bridged = to_bridge(model)
    tokens, expected = bridged.tokens(features, tours), model(features, tours)
    hooked = bridged.bridge.run_with_hooks(tokens, fwd_hooks=[("blocks.0.hook_resid_pre", keep)])
    assert difference(hooked[:, N:], expected) < 1e-4
    resumed = bridged.bridge(bridged.bridge(tokens, stop_at_layer=1), start_at_layer=1)
    assert difference(resumed[:, N:], expected) < 1e-4
    nobody_hidden = torch.zeros(1, 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    assert difference(bridged.bridge(tokens, attention_mask=nobody_hidden)[:, N:], expected) > 1e-2
    assert difference(copy.deepcopy(bridged.bridge)(tokens)[:, N:], expected) < 1e-4


def test_a_bridge_is_a_copy() -> None:
    model = network()
    features, tours = inputs()
    model.add_hook("hook_embed", erase)
    bridged = to_bridge(gpt_subject(model, PROBLEM, "net", {}))
    model.reset_hooks()
    before = model(features, tours).clone()
    for parameter in model.parameters():
        parameter.zero_()
    assert difference(bridged(features, tours), before) < 1e-4
    assert not bridged.bridge.training


class Subclass(TourGPT):
    pass


@pytest.mark.parametrize("other", [wrap(Foreign(), PROBLEM), Subclass(SMALL, N, N)])
def test_only_a_tour_gpt_becomes_a_bridge(other: TourGPT | Subject) -> None:
    with pytest.raises(
        UserError, match=r"only a TourGPT can be converted to a TransformerBridge, got (Foreign|Subclass)"
    ):
        to_bridge(other)
