"""Hand-written networks compute what they say, slot by slot, and choose as their algorithm does."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mesaprobe.decoding import greedy_rollout
from mesaprobe.errors import UserError
from mesaprobe.labels import optimal_actions, optimality_gaps
from mesaprobe.models import Subject, TourGPT, gpt_subject
from mesaprobe.problems import Instances, ProblemConfig, make_problem, tour_costs
from mesaprobe.solvers.constructive import nearest_neighbour
from mesaprobe.solvers.exact.held_karp import action_values, held_karp
from mesaprobe.zoo.compiled import (
    EXACT_SHARPNESS,
    Layout,
    all_tours,
    best_listed_choices,
    best_of_k_enumerator,
    exhaustive_enumerator,
    first_edge_enumerator,
    listed_tours,
    nearest_choices,
    nearest_neighbour_network,
    no_listed_tour,
    stream_layout,
)
from mesaprobe.zoo.compiled.blocks import blank_network, set_head, set_units
from mesaprobe.zoo.compiled.soft_argmin import Scores

N, LEVELS = 6, 64
SLOTS = stream_layout(N, prefix=(N, N), distance=(N, N), successor=(N, N), answer=(N,))


def draw(count: int, *, n: int = N, levels: int = LEVELS, seed: int = 0) -> Instances:
    return make_problem(ProblemConfig(n=n, levels=levels)).draw(count, np.random.default_rng(seed))


def random_tours(count: int, n: int = N, seed: int = 1) -> np.ndarray:
    rest = np.random.default_rng(seed).permuted(np.tile(np.arange(1, n), (count, 1)), axis=1)
    return np.pad(rest, ((0, 0), (1, 0)))


def logits(model: TourGPT, instances: Instances, tours: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])).numpy()


def agrees(model: TourGPT, instances: Instances, tours: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Where the most likely city, unmasked, is an allowed one."""
    return np.take_along_axis(allowed, logits(model, instances, tours).argmax(-1)[..., None], axis=2)[..., 0]


def subject(model: TourGPT, instances: Instances) -> Subject:
    return gpt_subject(model, instances.problem, "compiled", {})


def stream(model: TourGPT, instances: Instances, tours: np.ndarray, hook: str) -> np.ndarray:
    whole = torch.from_numpy(tours[:, :-1])
    return subject(model, instances).activations(torch.from_numpy(instances.features), whole, [hook])[hook].numpy()


# ---- what stands in the slots ----------------------------------------------------------------------------------


def test_slots_are_disjoint_and_fill_the_stream() -> None:
    layout = stream_layout(4, prefix=(4, 4), answer=(4,))
    coordinates = np.concatenate(
        [layout[name].ravel() for name in ("feature", "identity", "position", "one", "prefix", "answer")]
    )
    assert sorted(coordinates) == list(range(layout.d_model))
    assert "prefix" in layout
    assert "distance" not in layout


def test_attention_patterns_are_exactly_one_hot() -> None:
    """A tie between two tokens would halve what is fetched and still let most choices come out right."""
    instances, tours = draw(20), random_tours(20)
    for model in (exhaustive_enumerator(N, LEVELS), first_edge_enumerator(N, LEVELS)):
        patterns = stream(model, instances, tours, "blocks.0.attn.hook_pattern")
        assert set(np.unique(patterns)) == {0.0, 1.0}
        assert (patterns.sum(-1) == 1.0).all()


def test_heads_deliver_the_prefix_and_the_matrix() -> None:
    instances, tours = draw(20), random_tours(20)
    middle = stream(exhaustive_enumerator(N, LEVELS), instances, tours, "blocks.0.hook_resid_mid")
    for token in range(2 * N - 1):
        np.testing.assert_array_equal(middle[:, token, SLOTS["distance"]], instances.features)
        expected = np.zeros((20, N, N))
        for place in range(1, token - N + 1):
            expected[np.arange(20), place, tours[:, place]] = 1.0
        np.testing.assert_array_equal(middle[:, token, SLOTS["prefix"]], expected)


def test_the_shell_is_given_the_row_of_the_current_city_only() -> None:
    instances, tours = draw(20), random_tours(20)
    middle = stream(first_edge_enumerator(N, LEVELS), instances, tours, "blocks.0.hook_resid_mid")
    for step in range(N - 1):
        expected = np.zeros((20, N, N), dtype=np.float32)
        here = tours[:, step]
        expected[np.arange(20), here] = instances.features[np.arange(20), here]
        np.testing.assert_array_equal(middle[:, N + step, SLOTS["distance"]], expected)


def test_the_shell_differs_from_the_enumerator_only_in_what_its_heads_attend_to() -> None:
    search, shell = exhaustive_enumerator(N, LEVELS).state_dict(), first_edge_enumerator(N, LEVELS).state_dict()
    assert [name for name in search if not torch.equal(search[name], shell[name])] == ["blocks.0.attn.qkv.weight"]
    values = slice(2 * len(shell["blocks.0.attn.qkv.weight"]) // 3, None)
    assert torch.equal(search["blocks.0.attn.qkv.weight"][values], shell["blocks.0.attn.qkv.weight"][values])


@pytest.mark.parametrize("sharpness", [1.0, EXACT_SHARPNESS])
def test_units_hold_the_exact_costs_of_the_tours_that_fit_the_prefix(sharpness: float) -> None:
    instances, tours, listed = draw(20), random_tours(20), all_tours(N)
    scores = Scores(N, LEVELS, sharpness)
    before = stream(exhaustive_enumerator(N, LEVELS, sharpness=sharpness), instances, tours, "blocks.0.mlp.hook_pre")
    costs = np.stack([tour_costs(instances.weights, np.tile(tour, (20, 1))) for tour in listed], axis=1)
    for step in range(N - 1):
        fits = (tours[:, None, : step + 1] == listed[:, : step + 1]).all(axis=2)
        expected = scores.nats * (scores.tour - costs / LEVELS)
        np.testing.assert_array_equal(before[:, N + step][fits], expected[fits])  # all terms are multiples of 1/64
        assert (before[:, N + step][fits] >= scores.nats * (1 + 2 * scores.gap)).all()
        assert (before[:, N + step][~fits] <= 0.0).all()


# ---- what they choose ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "levels"), [(4, 64), (5, 3), (6, 64), (6, 2), (7, 64)])
def test_exhaustive_enumerator_is_optimal_at_every_state(n: int, levels: int) -> None:
    """With 2 or 3 levels most states have several optimal cities."""
    count = 300 if n < 7 else 60
    instances, tours = draw(count, n=n, levels=levels), random_tours(count, n)
    model = exhaustive_enumerator(n, levels, sharpness=EXACT_SHARPNESS)
    rollout = greedy_rollout(subject(model, instances), torch.from_numpy(instances.features))
    assert bool(rollout.legal.all())
    assert (instances.tour_costs(rollout.tours.numpy()) == held_karp(instances.weights).costs).all()
    assert agrees(model, instances, tours, optimal_actions(action_values(instances.weights, tours))).all()


@pytest.mark.parametrize(("n", "levels"), [(4, 64), (6, 64), (6, 2), (7, 5)])
@pytest.mark.parametrize("build", [nearest_neighbour_network, first_edge_enumerator])
def test_heuristics_take_the_nearest_city_at_every_state(n: int, levels: int, build) -> None:  # type: ignore[no-untyped-def]
    count = 300 if n < 7 else 60
    instances, tours = draw(count, n=n, levels=levels), random_tours(count, n)
    model = build(n, levels)
    rollout = greedy_rollout(subject(model, instances), torch.from_numpy(instances.features))
    assert bool(rollout.legal.all())
    for along in (tours, rollout.tours.numpy()):
        assert agrees(model, instances, along, nearest_choices(instances.weights, along)).all()


@pytest.mark.parametrize("k", [1, 8, 40])
def test_best_of_k_takes_the_best_listed_tour_or_falls_back(k: int) -> None:
    instances, tours, listed = draw(300), random_tours(300), listed_tours(N, k, seed=3)
    allowed = best_listed_choices(instances.weights, tours, listed)
    model = best_of_k_enumerator(N, LEVELS, k=k, seed=3, sharpness=EXACT_SHARPNESS)
    assert agrees(model, instances, tours, allowed).all()
    lost = no_listed_tour(tours, listed)
    assert lost.any()  # the fallback was put to the test,
    assert not lost[:, 0].any()
    differs = ~(allowed & nearest_choices(instances.weights, tours)).any(axis=2)
    assert (differs & ~lost).mean() > 0.05  # and so were the listed tours


def test_best_of_k_never_falls_back_on_its_own_rollouts() -> None:
    instances, listed = draw(200), listed_tours(N, 8, seed=3)
    model = best_of_k_enumerator(N, LEVELS, k=8, seed=3)
    rollout = greedy_rollout(subject(model, instances), torch.from_numpy(instances.features))
    tours = rollout.tours.numpy()
    costs = [tour_costs(instances.weights, np.tile(tour, (200, 1))) for tour in listed]
    assert bool(rollout.legal.all())
    assert not no_listed_tour(tours, listed).any()
    assert (instances.tour_costs(tours) == np.min(costs, axis=0)).all()


def test_tied_tours_share_the_answer() -> None:
    """Both directions of the one optimal tour win alike at city 0; on equal weights all free cities do."""
    around = np.full((1, N, N), 60, dtype=np.int32)
    around[0, np.arange(N), (np.arange(N) + 1) % N] = around[0, (np.arange(N) + 1) % N, np.arange(N)] = 1
    around[0, np.arange(N), np.arange(N)] = 0
    problem, tours = make_problem(ProblemConfig(n=N)), np.arange(N)[None]
    for sharpness in (1.0, EXACT_SHARPNESS):
        model = exhaustive_enumerator(N, LEVELS, sharpness=sharpness)
        root = logits(model, Instances(problem, around), tours)[0, 0]
        assert root[1] == pytest.approx(root[N - 1], rel=1e-5)
        assert root[1] > 2 * np.delete(root, [1, N - 1]).max()
        equal = Instances(problem, np.where(around == 0, 0, 64).astype(np.int32))  # the largest costs there are
        found = logits(model, equal, tours)[0]
        for step in range(N - 1):
            free = found[step, step + 1 :]
            assert np.ptp(free) < 1e-4
            assert free.min() > found[step, : step + 1].max()


def test_silencing_a_tours_unit_hands_its_instances_to_the_next_best() -> None:
    instances, listed = draw(100, seed=5), all_tours(N)
    features, prefixes = torch.from_numpy(instances.features), torch.zeros(100, 1, dtype=torch.long)
    costs = np.stack([tour_costs(instances.weights, np.tile(tour, (100, 1))) for tour in listed], axis=1)
    silent = 17

    def silence(activation: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
        activation[..., silent] = -1e4
        return activation

    model = subject(exhaustive_enumerator(N, LEVELS, sharpness=EXACT_SHARPNESS), instances)
    after = model.edited_logits(features, prefixes, {"blocks.0.mlp.hook_pre": silence}).argmax(-1).numpy()
    costs[:, silent] = 10**6
    best = costs == costs.min(axis=1, keepdims=True)
    assert all(after[b] in listed[best[b], 1] for b in range(100))


@pytest.mark.slow
def test_figures_on_the_main_track() -> None:
    """The zoo's figures at n = 8: exhaustive, best of 256, and two networks that are nearest neighbour."""
    instances, tours = draw(400, n=8), random_tours(400, 8)
    features, best = torch.from_numpy(instances.features), held_karp(instances.weights).costs
    model = exhaustive_enumerator(8, LEVELS)
    own = greedy_rollout(subject(model, instances), features)
    values = action_values(instances.weights, own.tours.numpy())
    assert bool(own.legal.all())
    assert agrees(model, instances, own.tours.numpy(), optimal_actions(values))[:, 0].mean() >= 0.99
    assert (instances.tour_costs(own.tours.numpy()) == best).mean() >= 0.97
    few = greedy_rollout(subject(best_of_k_enumerator(8, LEVELS, k=256), instances), features)
    assert bool(few.legal.all())
    assert 0.14 <= optimality_gaps(instances, few.tours.numpy(), best).mean() <= 0.21
    for rule in (nearest_neighbour_network(8, LEVELS), first_edge_enumerator(8, LEVELS)):
        assert agrees(rule, instances, tours, nearest_choices(instances.weights, tours)).mean() >= 0.999


# ---- the algorithms in plain arithmetic, the lists, what is refused ----------------------------------------------


def test_with_every_tour_listed_the_best_listed_is_optimal() -> None:
    instances, tours = draw(100, levels=8), random_tours(100)
    allowed = best_listed_choices(instances.weights, tours, all_tours(N))
    np.testing.assert_array_equal(allowed, optimal_actions(action_values(instances.weights, tours)))
    assert not no_listed_tour(tours, all_tours(N)).any()


def test_nearest_choices_contain_the_solvers_walk() -> None:
    instances = draw(100, levels=8)
    walk = nearest_neighbour(instances.weights)
    allowed = nearest_choices(instances.weights, walk)
    assert np.take_along_axis(allowed, walk[:, 1:, None], axis=2).all()
    assert (allowed.sum(axis=2) > 1).any()


def test_lists_hold_different_tours_and_repeat_from_the_seed() -> None:
    listed = listed_tours(8, 256, seed=0)
    assert len(np.unique(listed, axis=0)) == 256
    assert (np.sort(listed, axis=1) == np.arange(8)).all()
    assert (listed[:, 0] == 0).all()
    np.testing.assert_array_equal(listed, listed_tours(8, 256, seed=0))
    assert (listed != listed_tours(8, 256, seed=1)).any()
    np.testing.assert_array_equal(listed_tours(5, 24, seed=0), all_tours(5))
    assert all_tours(8).shape == (5040, 8)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="at most 50000 tours"):
        exhaustive_enumerator(10, LEVELS)
    with pytest.raises(UserError, match="1 to 120 tours of 6 cities, got k = 121"):
        best_of_k_enumerator(6, LEVELS, k=121)
    with pytest.raises(UserError, match="1 to 4096 levels"):
        nearest_neighbour_network(6, 100_000)
    with pytest.raises(UserError, match="sharpness must be positive"):
        nearest_neighbour_network(6, LEVELS, sharpness=0.0)
    layout = Layout(feature=(4,), identity=(4,), position=(4,), one=())
    model, one = blank_network(layout, 4, n_layers=1, n_heads=1, d_mlp=2), layout.vector((layout["one"], 1.0))
    with pytest.raises(ValueError, match="a head 4 wide"):
        set_head(model, 0, 0, matches=[(one, one)] * 5, source=layout["feature"], target=layout["feature"])
    with pytest.raises(ValueError, match="do not fit d_mlp = 2"):
        set_units(model, 0, 1, reads=np.stack([one, one]), bias=0.0, writes=np.stack([one, one]))
