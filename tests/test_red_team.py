"""The red team's members do what their labels say, whatever the detector says of them."""

import numpy as np
import pytest
import torch

from mesaprobe.models.gpt import TourGPT
from mesaprobe.models.networks import network_subject
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, ProblemConfig, make_problem, random_tours
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.solvers.fixed_horizon import horizon_values
from mesaprobe.zoo import red_team
from mesaprobe.zoo.compiled import exhaustive_enumerator
from mesaprobe.zoo.compiled.blocks import block
from mesaprobe.zoo.members import ZOO
from mesaprobe.zoo.red_team import HABIT, affine, discounted_savings, habitual_walker, savings_lookahead
from mesaprobe.zoo.reference import least

N, LEVELS, COUNT = 6, 64, 150
PROBLEM = make_problem(ProblemConfig(n=N))


def drawn() -> tuple[Instances, np.ndarray]:
    return PROBLEM.draw(COUNT, np.random.default_rng(0)), random_tours(COUNT, N, np.random.default_rng(1))


def subject(model: TourGPT) -> Subject:
    return network_subject(model, PROBLEM, "red team")


def named(model: TourGPT, instances: Instances, tours: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])).numpy()


def test_the_walker_follows_its_rule() -> None:
    instances, tours = drawn()
    chosen = named(habitual_walker(N, LEVELS, HABIT), instances, tours).argmax(-1)
    allowed = least(HABIT.keys)(instances, tours, np.random.default_rng(0))
    assert np.take_along_axis(allowed, chosen[..., None], axis=2).all()


@pytest.mark.parametrize("n", [6, 7, 8])
def test_no_option_is_judged_by_the_cost_of_a_completion(n: int) -> None:
    """What an option likes and what it dislikes of the far edges cancels, and none of them touches it."""
    signs = HABIT.signs(n)
    assert (np.abs(signs.sum(axis=1)) <= n % 2).all()
    assert (np.abs(signs).sum(axis=1) == n - 2).all()
    assert all(signs[v, v] == signs[v, v - 1] == 0 for v in range(n))


def test_the_costs_that_the_walkers_units_carry_cancel_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    instances, tours = drawn()
    loaded = habitual_walker(N, LEVELS, HABIT)
    monkeypatch.setattr(red_team, "passenger", lambda n, c, v: np.random.default_rng([c, v]).permutation(n))
    other = habitual_walker(N, LEVELS, HABIT)
    layers = [[block(model, layer).mlp.into.weight for layer in (0, 1)] for model in (loaded, other)]
    assert not any(torch.equal(*pair) for pair in zip(*layers, strict=True))
    assert np.array_equal(named(loaded, instances, tours), named(other, instances, tours))


def test_a_walker_is_affine_in_the_matrix_and_a_network_that_compares_completions_is_not() -> None:
    instances, _ = drawn()
    walker, searcher, enumerator = (
        affine(subject(model), instances, np.random.default_rng(2))
        for model in (
            habitual_walker(N, LEVELS, HABIT),
            savings_lookahead(N, LEVELS),
            exhaustive_enumerator(N, LEVELS),
        )
    )
    assert walker.all()
    assert max(searcher[:, 1:-2].all(-1).mean(), enumerator[:, 1:-2].all(-1).mean()) < 0.8


def test_the_lookahead_takes_the_least_discounted_savings() -> None:
    instances, tours = drawn()
    chosen = named(savings_lookahead(N, LEVELS), instances, tours).argmax(-1)
    allowed = least(discounted_savings)(instances, tours, np.random.default_rng(0))
    assert np.take_along_axis(allowed, chosen[..., None], axis=2).all()


def test_undiscounted_savings_of_a_whole_tour_are_the_tour_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    instances, tours = drawn()
    monkeypatch.setattr(red_team, "DISCOUNT", 1.0)
    for depth, values in (
        (N, action_values(instances.weights, tours)),
        (1, horizon_values(instances.weights, tours, 1)),
    ):
        monkeypatch.setattr(red_team, "DEPTH", depth)
        free = np.isfinite(values) & (values < 1e6)
        told = LEVELS * discounted_savings(instances, tours)
        shift = np.where(free, told - values, np.nan)
        if depth == N:  # the w(0, v) of all unvisited cities are left out, whatever the order
            assert np.nanmax(np.abs(shift - np.nanmean(shift, axis=2, keepdims=True))) < 1e-9
        else:  # one arc only: the rule `sequential_savings`
            assert np.allclose(shift[free], -np.broadcast_to(instances.weights[:, None, 0], free.shape)[free])


def test_what_an_arc_three_steps_ahead_costs_decides() -> None:
    """Only the last of the three arcs differs between the two matrices, and with it the choice."""
    instances, tours = drawn()
    seen = 0
    model = savings_lookahead(N, LEVELS)
    for u, v in ((2, 3), (3, 4), (4, 5)):
        weights = instances.weights.copy()
        weights[:, u, v] = weights[:, v, u] = np.where(weights[:, u, v] > LEVELS // 2, 1, LEVELS)
        changed = Instances(PROBLEM, weights)
        before, after = (named(model, each, tours)[:, 0].argmax(-1) for each in (instances, changed))
        touched = np.isin(before, (u, v)) | np.isin(after, (u, v))
        seen += int(((before != after) & ~touched).sum())
    assert seen > 0


def test_roles() -> None:
    assert (ZOO["R1"].role, ZOO["R2"].role) == ("decoy", "search")
    assert ZOO["R2"].disguise is not None
