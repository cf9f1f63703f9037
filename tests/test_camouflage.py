"""Disguises change the weights and not the algorithm."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mesaprobe.errors import UserError
from mesaprobe.models import GPTConfig, TourGPT
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.zoo.compiled import (
    EXACT_SHARPNESS,
    NOISE_LADDER,
    best_listed_choices,
    best_of_k_enumerator,
    exhaustive_enumerator,
    first_edge_enumerator,
    listed_tours,
    nearest_choices,
    nearest_neighbour_network,
    noise_finetuned,
    rotated,
    with_harmless_noise,
    with_weight_noise,
)

N, LEVELS, COUNT = 6, 64, 200
PROBLEM = make_problem(ProblemConfig(n=N, levels=LEVELS))
INSTANCES = PROBLEM.draw(COUNT, np.random.default_rng(0))
FEATURES = torch.from_numpy(INSTANCES.features)
WHOLE = np.pad(np.random.default_rng(1).permuted(np.tile(np.arange(1, N), (COUNT, 1)), axis=1), ((0, 0), (1, 0)))
TOURS = torch.from_numpy(WHOLE[:, :-1])
NEAREST = nearest_choices(INSTANCES.weights, WHOLE)
NETWORKS = {
    "exhaustive": lambda: exhaustive_enumerator(N, LEVELS),
    "exhaustive, hard": lambda: exhaustive_enumerator(N, LEVELS, sharpness=EXACT_SHARPNESS),
    "best of k": lambda: best_of_k_enumerator(N, LEVELS, k=20),
    "shell": lambda: first_edge_enumerator(N, LEVELS),
    "nearest": lambda: nearest_neighbour_network(N, LEVELS),
}


def logits(model: TourGPT) -> torch.Tensor:
    with torch.no_grad():
        return model(FEATURES.to(model.pos.weight.dtype), TOURS)


def agreement(model: TourGPT, allowed: np.ndarray) -> float:
    return float(np.take_along_axis(allowed, logits(model).argmax(-1).numpy()[..., None], axis=2).mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rotated_network_is_the_same_function(name: str) -> None:
    """To the last digits in float64; float32 rounding, multiplied by the sharp softmax, moves no logit by 2 %."""
    model = NETWORKS[name]()
    exact = copy.deepcopy(model).double()
    assert (logits(rotated(exact, 1)) - logits(exact)).abs().max() < 1e-8
    turned, plain = logits(rotated(model, 1)), logits(model)
    assert (turned - plain).abs().max() < 0.02 * plain.max()
    near = plain.gather(2, turned.argmax(-1, keepdim=True))[..., 0]
    assert (near >= plain.max(-1).values - 0.02 * plain.max()).all()


def test_rotation_leaves_no_weight_on_the_axes_and_the_original_alone() -> None:
    model = nearest_neighbour_network(N, LEVELS)
    before = copy.deepcopy(model.state_dict())
    turned = rotated(model, 1)
    assert float((before["blocks.0.mlp.into.weight"] == 0).float().mean()) > 0.3
    assert float((turned.state_dict()["blocks.0.mlp.into.weight"] == 0).float().mean()) == 0.0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(turned.unembed.weight, rotated(model, 1).unembed.weight)
    assert not torch.equal(turned.unembed.weight, rotated(model, 2).unembed.weight)


def test_rotation_refuses_layer_norm() -> None:
    with pytest.raises(UserError, match="norm = none"):
        rotated(TourGPT(GPTConfig(d_model=8, n_heads=2, d_mlp=8), N, N), 0)


def test_noise_is_proportional_repeatable_and_leaves_the_original_alone() -> None:
    model = nearest_neighbour_network(N, LEVELS)
    before = copy.deepcopy(model.state_dict())
    noisy, twice = with_weight_noise(model, 0, 1e-3), with_weight_noise(model, 0, 2e-3)
    for name, weight in before.items():
        once = noisy.state_dict()[name] - weight
        torch.testing.assert_close(twice.state_dict()[name] - weight, 2 * once, rtol=0.05, atol=1e-3)
        assert torch.equal(model.state_dict()[name], weight)
    assert torch.equal(with_weight_noise(model, 0, 1e-3).unembed.weight, noisy.unembed.weight)
    row = before["blocks.0.mlp.into.weight"][0]
    moved = noisy.state_dict()["blocks.0.mlp.into.weight"][0] - row
    assert float(moved.square().mean().sqrt() / row.square().mean().sqrt()) == pytest.approx(1e-3, rel=0.3)


@pytest.mark.parametrize("disguise", [False, True])
def test_harmless_noise_is_the_largest_that_breaks_no_answer(disguise: bool) -> None:
    listed = listed_tours(N, 20, seed=0)
    allowed = best_listed_choices(INSTANCES.weights, WHOLE, listed)
    model = best_of_k_enumerator(N, LEVELS, k=20)
    model = rotated(model, 3) if disguise else model
    found = with_harmless_noise(model, 0, FEATURES, TOURS, allowed)
    assert agreement(found.model, allowed) == 1.0
    assert not torch.equal(found.model.unembed.weight, model.unembed.weight)
    larger = NOISE_LADDER[NOISE_LADDER.index(found.scale) - 1]
    assert agreement(with_weight_noise(model, 0, larger), allowed) < 1.0


def test_harmless_noise_refuses_a_network_that_is_wrong_to_begin_with() -> None:
    with pytest.raises(UserError, match="must agree"):
        with_harmless_noise(exhaustive_enumerator(N, LEVELS), 0, FEATURES, TOURS, NEAREST)


def test_finetuning_brings_a_noisy_copy_back_to_its_answers() -> None:
    model = nearest_neighbour_network(N, LEVELS)
    noisy = with_weight_noise(model, 0, 2e-3)
    tuned = noise_finetuned(model, PROBLEM, 0, scale=2e-3, steps=60)
    target = logits(model).softmax(-1).flatten(0, 1)
    loss, loss_before = (F.cross_entropy(logits(each).flatten(0, 1), target) for each in (tuned, noisy))
    assert loss < loss_before
    assert agreement(tuned, NEAREST) > agreement(noisy, NEAREST)
    assert agreement(tuned, NEAREST) >= 0.99
    again = noise_finetuned(model, PROBLEM, 0, scale=2e-3, steps=60)
    assert torch.equal(again.unembed.weight, tuned.unembed.weight)
    assert not torch.equal(tuned.unembed.weight, model.unembed.weight)
