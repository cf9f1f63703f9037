"""The instrument on a network whose heads are known: one looks at the nearest unvisited city and answers it."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from mesaprobe.attention import (
    AblationEffect,
    HeadContrast,
    against_twins,
    attention_patterns,
    attention_to_cities,
    entry_knock_out,
    head_ablation,
    head_contrast,
    identity_cells,
    knock_out,
    matched_cells,
    plan_roles,
    role_contrasts,
    spread_heads,
)
from mesaprobe.decoding import greedy_rollout
from mesaprobe.errors import UserError
from mesaprobe.labels import bound_labels, decision_steps, value_labels
from mesaprobe.models import GPTConfig, Subject, TourGPT, gpt_subject, wrap
from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.solvers.constructive import nearest_neighbour, unvisited
from mesaprobe.solvers.exact.held_karp import optimal_rollouts

N, HEADS, VISITED, NEAREST, FAINT = 8, 4, (0, 0), (1, 2), (1, 1)
PROBLEM = make_problem(ProblemConfig(n=N))
STEPS = decision_steps(PROBLEM)


def nearest_city_network(seed: int = 0) -> TourGPT:
    """Two layers, no norm, MLPs off. The stream holds a city's distances, its identity, who is visited, the answer,
    and a mark of tour tokens. Head (0, 0) averages the identities of the tour; head (1, 2) looks at the nearest
    unvisited city and copies its identity to the answer; head (1, 1) looks softly at near cities, visited or not,
    and writes nothing. The other heads look by random weights and write nothing."""
    config = GPTConfig(4 * N + 1, 2, HEADS, d_head=N + 1, d_mlp=1, norm="none", attention="prefix")
    model = TourGPT(config, N, N, seed=seed)
    row, identity, visited, answer = (slice(k * N, (k + 1) * N) for k in range(4))
    mark = 4 * N
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.city.weight[row], model.identity.weight[:, identity] = torch.eye(N), torch.eye(N)
        model.pos.weight[:, mark] = 1.0
        model.unembed.weight[:, answer] = 20 * torch.eye(N)
        for block in model.blocks:
            shape = (3, HEADS, N + 1, 4 * N + 1)
            block.attn.qkv.weight.copy_(torch.randn(shape, generator=generator).flatten(0, 2))
        _write(model, *VISITED, q={}, q_bias={0: 90.0}, k={(0, mark): 1.0}, value=identity, to=visited)
        walk = {(c, c): -600.0 for c in range(N)} | {(c, 2 * N + c): -20_000.0 for c in range(N)}
        keys = {(c, N + c): 1.0 for c in range(N)} | {(N, mark): 1.0}
        _write(model, *NEAREST, q=walk, q_bias={N: -1e6}, k=keys, value=identity, to=answer)
        soft = {(c, c): -15.0 for c in range(N)}
        _write(model, *FAINT, q=soft, q_bias={}, k=keys, value=None, to=None)
    return model


def _write(
    model: TourGPT,
    layer: int,
    head: int,
    *,
    q: dict[tuple[int, int], float],
    q_bias: dict[int, float],
    k: dict[tuple[int, int], float],
    value: slice | None,
    to: slice | None,
) -> None:
    attention = model.blocks[layer].attn
    weight = attention.qkv.weight.view(3, HEADS, N + 1, -1)
    bias = attention.qkv.bias.view(3, HEADS, N + 1)
    weight[:, head] = 0
    for entries, part in ((q, 0), (k, 1)):
        for (dimension, source), size in entries.items():
            weight[part, head, dimension, source] = size
    for dimension, size in q_bias.items():
        bias[0, head, dimension] = size
    if value is not None and to is not None:
        weight[2, head, :N, value] = torch.eye(N)
        attention.out.weight.view(-1, HEADS, N + 1)[to, head, :N] = torch.eye(N)


@functools.cache
def known() -> Subject:
    return gpt_subject(nearest_city_network(), PROBLEM, "nearest city by attention", {})


def drawn(count: int, seed: int = 0) -> tuple[Instances, Tensor]:
    instances = PROBLEM.draw(count, np.random.default_rng(seed))
    return instances, torch.from_numpy(instances.features)


def contrasts(subject: Subject, count: int, seed: int = 0) -> dict[str, HeadContrast]:
    """All roles; the runner-up's plan is exact."""
    instances, features = drawn(count, seed)
    tours = greedy_rollout(subject, features).tours
    own = tours.numpy()
    runner_up = value_labels(instances.weights, own, STEPS).runner_up.argmax(axis=2)
    plans = np.empty((count, STEPS.stop - STEPS.start, N), dtype=np.int64)
    for column, step in enumerate(range(STEPS.start, STEPS.stop)):
        prefixes = own.copy()
        prefixes[:, step + 1] = runner_up[:, column]
        lengths = np.full(count, step + 2)
        plans[:, column] = optimal_rollouts(instances.weights, prefixes, lengths, np.zeros(own.shape)).tours
    found = role_contrasts(
        attention_to_cities(subject, features, tours, STEPS),
        instances,
        own,
        STEPS,
        own=np.repeat(own[:, None], plans.shape[1], axis=1),
        runner_up=plans,
        pruned=bound_labels(instances.weights, own, STEPS, kinds=["one_tree"]).prune[..., 0],
    )
    return {contrast.role: contrast for contrast in found}


def test_the_known_network_walks_to_the_nearest_city() -> None:
    instances, features = drawn(300)
    np.testing.assert_array_equal(greedy_rollout(known(), features).tours, nearest_neighbour(instances.weights))


def test_the_nearest_city_head_ranks_first_and_its_excess_is_what_it_must_be() -> None:
    contrast = contrasts(known(), 400)["nearest"]
    assert contrast.ranked[0] == NEAREST
    assert contrast.matched > 0.9
    # All attention goes to the nearest city, an equal share where several are equally near, and none to others.
    assert 0.9 < contrast.excess[NEAREST] <= 1.0
    rest = np.delete(contrast.excess.flatten(), 4 * NEAREST[0] + NEAREST[1])
    assert rest.max() < 0.4 * contrast.excess[NEAREST]


def test_it_shows_no_plan_beyond_the_next_city() -> None:
    found = contrasts(known(), 400)
    head = NEAREST
    assert found["pruned"].excess[head] < 0  # what is prunable is not the nearest city
    for role in ("own plan, 2 ahead", "own plan, 3 ahead", "runner-up's plan, 2 ahead", "runner-up's plan, 3 ahead"):
        assert abs(found[role].excess[head]) <= 4 * found[role].standard_error[head] + 1e-6, role


def test_random_weights_are_at_null_and_the_known_head_is_not() -> None:
    """No role draws more than a hundredth of a random network's attention; its z are as large as other twins'."""
    config = GPTConfig(d_model=32, n_layers=2, d_mlp=32)
    twins = [contrasts(gpt_subject(TourGPT(config, N, N, seed=seed), PROBLEM, "random", {}), 200) for seed in range(9)]
    for role in twins[0]:
        found = [twin[role] for twin in twins]
        assert max(np.abs(contrast.excess).max() for contrast in found) < 0.01, role
        least = [against_twins(contrast, [*found[:i], *found[i + 1 :]]).min() for i, contrast in enumerate(found)]
        assert sorted(least) == pytest.approx(np.arange(1, 10) / 9), role  # exchangeable: every rank once
    p = against_twins(contrasts(known(), 200)["nearest"], [twin["nearest"] for twin in twins])
    assert p[NEAREST] == 0.1


def test_names_of_cities_are_no_plan() -> None:
    """A head that always looks at city 3, in a network that always plans to go there, looks at no plan."""
    rng = np.random.default_rng(0)
    tours = np.stack([np.concatenate([[0], rng.permutation(N - 1) + 1]) for _ in range(300)])
    attention = np.zeros((300, 3, 1, 2, N), dtype=np.float32)
    attention[..., 0, 3] = 0.5
    free = unvisited(tours)[:, STEPS]
    role = free & (np.arange(N) == 3) & (rng.random((300, 3, 1)) < 0.8)  # its plan, in most instances
    attention[:, :, 0, 1] = 0.1 * free + 0.2 * role
    cells = np.zeros(free.shape, dtype=np.int64)
    plain = head_contrast("plan", attention, role, free, cells)
    named = head_contrast("plan", attention, role, free, cells, identity_cells(tours, STEPS))
    assert plain.excess[0, 0] > 0.4
    np.testing.assert_allclose(named.excess, [[0.0, 0.2]], atol=1e-6)


def test_the_contrast_is_a_difference_of_matched_means() -> None:
    attention = np.zeros((2, 1, 1, 1, 4), dtype=np.float32)
    attention[0, 0, 0, 0], attention[1, 0, 0, 0] = [0.7, 0.1, 0.2, 0.0], [0.5, 0.4, 0.0, 0.1]
    role = np.zeros((2, 1, 4), dtype=bool)
    role[0, 0, 0] = role[1, 0, 1] = True
    cells = np.array([[[5, 5, 9, 5]], [[5, 7, 5, 9]]])
    contrast = head_contrast("example", attention, role, np.ones_like(role), cells)
    # City 0 of the first: cell 5 also holds 0.1 and 0.0, and 0.5, 0.0 of the second. Cell 7 holds nobody else.
    assert contrast.excess[0, 0] == pytest.approx(0.7 - (0.1 + 0.0 + 0.5 + 0.0) / 4)
    assert contrast.matched == 0.5
    np.testing.assert_allclose(contrast.totals[:, 0, 0], [0.55, 0.0], atol=1e-7)
    np.testing.assert_array_equal(contrast.counts, [1, 0])
    with pytest.raises(UserError, match="no city of the role 'alone'"):
        head_contrast("alone", attention, role, role, cells)


def test_cells_hold_cities_of_one_step_distance_and_rank() -> None:
    instances, features = drawn(200)
    tours = greedy_rollout(known(), features).tours.numpy()
    free = unvisited(tours)[:, STEPS]
    distances = np.take_along_axis(instances.weights, tours[:, :-1, None], axis=1)[:, STEPS]
    ranks = np.argsort(np.argsort(np.where(free, distances, 10**6) * 100, axis=2, kind="stable"), axis=2)
    cells, by_rank = (matched_cells(instances, tours, STEPS, rank=rank) for rank in (False, True))
    for cell in np.unique(cells[free])[::7]:
        where = (cells == cell) & free
        assert len(np.unique(np.nonzero(where)[1])) == 1
        assert np.ptp(distances[where]) <= 2
    untied = np.array(
        [
            [len(set(row[ok])) == ok.sum() for row, ok in zip(*pair, strict=True)]
            for pair in zip(distances, free, strict=True)
        ]
    )
    for cell in np.unique(by_rank[free])[::7]:
        assert len(set(ranks[(by_rank == cell) & free & untied[..., None]])) <= 1


def test_plan_roles_are_the_cities_of_the_plan_in_order() -> None:
    plans = np.array([[[0, 3, 1, 2, 4], [0, 3, 1, 4, 2]]])
    first, second, third = plan_roles(plans, slice(1, 3), 3)
    assert first[0].argmax(axis=1).tolist() == [1, 4]
    assert second[0].argmax(axis=1).tolist() == [2, 2]
    assert third[0].sum(axis=1).tolist() == [1, 0]  # two steps after the second state the tour is over


def test_attention_is_read_at_the_token_that_answers_each_state() -> None:
    _, features = drawn(5)
    tours = greedy_rollout(known(), features).tours
    found = attention_to_cities(known(), features, tours, STEPS, chunk=2)
    for column, step in enumerate(range(STEPS.start, STEPS.stop)):
        patterns = attention_patterns(known(), features, tours[:, : step + 1])
        assert patterns is not None
        expected = patterns[:, :, :, known().decode_position(step + 1), :N]
        np.testing.assert_allclose(found[:, column], expected, atol=1e-5)


PREFIX = torch.tensor([[0, 2, 5]])


def test_a_knocked_out_entry_is_0_and_the_rest_of_the_row_is_scaled_up() -> None:
    """One layer, one head: the answer must be that of the pattern, renormalised by hand."""
    model = TourGPT(GPTConfig(d_model=16, n_layers=1, n_heads=2, d_mlp=8), N, N, seed=1)
    subject, (_, features) = gpt_subject(model, PROBLEM, "small", {}), drawn(1)
    entries = torch.zeros(1, 1, 2, N + 3, dtype=torch.bool)
    entries[0, 0, 1, 4] = True
    query = subject.decode_position(3)

    def by_hand(pattern: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        pattern = pattern.clone()
        pattern[0, 1, query, 4] = 0
        pattern[0, 1, query] /= pattern[0, 1, query].sum()
        return pattern

    expected = subject.edited_logits(features, PREFIX, {"blocks.0.attn.hook_pattern": by_hand})
    found = knock_out(subject, features, PREFIX, entries)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert float((found - subject.next_city_logits(features, PREFIX)).abs().max()) > 1e-5
    with pytest.raises(UserError, match="nothing would be left to look at"):
        knock_out(subject, features, PREFIX, torch.ones_like(entries))


def test_ablating_nothing_changes_nothing_and_a_spread_head_is_uniform() -> None:
    model = TourGPT(GPTConfig(d_model=16, n_layers=2, n_heads=2, d_mlp=8), N, N, seed=1)
    subject, (_, features) = gpt_subject(model, PROBLEM, "small", {}), drawn(3)
    prefixes, nothing = PREFIX.expand(3, -1), torch.zeros(2, 2, dtype=torch.bool)
    plain = subject.next_city_logits(features, prefixes)
    torch.testing.assert_close(spread_heads(subject, features, prefixes, nothing), plain, atol=1e-6, rtol=1e-5)
    heads = nothing.clone()
    heads[1, 0] = True
    query = subject.decode_position(3)

    def by_hand(pattern: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        pattern = pattern.clone()
        pattern[:, 0, query] = 1 / (N + 3)
        return pattern

    expected = subject.edited_logits(features, prefixes, {"blocks.1.attn.hook_pattern": by_hand})
    torch.testing.assert_close(spread_heads(subject, features, prefixes, heads), expected, atol=1e-6, rtol=1e-5)


def ablated(heads: list[tuple[int, int]], twins: int = 3) -> AblationEffect:
    _, features = drawn(60, seed=1)
    tours = greedy_rollout(known(), features).tours
    return head_ablation(known(), features, tours, STEPS, heads, twins=twins, seed=0)


def test_only_the_heads_that_answer_are_missed() -> None:
    effect = ablated([NEAREST])
    assert effect.nothing < 1e-3
    assert effect.changed.mean() > 0.5
    assert effect.twin_changed.shape == (3, 60, 3)
    idle = ablated([FAINT], twins=1)
    assert not idle.changed.any()
    assert np.abs(idle.drop).max() < 1e-3
    with pytest.raises(UserError, match=r"5 heads of 8 leave only 3 for a random twin"):
        ablated([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)])


def test_the_entry_of_the_nearest_city_is_missed_and_another_is_not() -> None:
    instances, features = drawn(60, seed=2)
    tours = greedy_rollout(known(), features).tours
    following = tours[:, 1:][:, STEPS]
    effect = entry_knock_out(known(), features, tours, STEPS, NEAREST, following, twins=2, seed=0)
    # It goes to the second nearest: always elsewhere, whether or not another city was as near.
    assert effect.changed.all()
    distances = np.take_along_axis(instances.weights, tours.numpy()[:, :-1, None], axis=1)[:, STEPS]
    nearest = np.where(unvisited(tours.numpy())[:, STEPS], distances, 99)
    alone = (nearest == nearest.min(axis=2, keepdims=True)).sum(axis=2) == 1
    assert not effect.twin_changed[:, alone].any()


def test_networks_without_patterns_are_refused() -> None:
    from small_networks import Foreign

    subject = wrap(Foreign(), make_problem(ProblemConfig(n=6)))
    features, tours = torch.rand(2, 6, 6), torch.arange(6).expand(2, 6)
    with pytest.raises(UserError, match="its attention can't be read"):
        attention_to_cities(subject, features, tours, slice(1, 2))
    with pytest.raises(UserError, match="its heads can't be ablated"):
        head_ablation(subject, features, tours, slice(1, 2), [(0, 0)], seed=0)
