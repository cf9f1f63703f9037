"""Compiled searchers: they choose as their algorithm does at every state, by the quantities they are said to hold."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import permutations

import numpy as np
import pytest
import torch
from hostile_weights import random_tours

from mesaprobe.errors import UserError
from mesaprobe.models import TourGPT
from mesaprobe.models.subject import gpt_subject
from mesaprobe.problems import Instances, ProblemConfig, make_problem, tour_costs
from mesaprobe.solvers.constructive.states import city_zero
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.fixed_horizon import (
    horizon_beam_completions,
    horizon_beam_values,
    horizon_completions,
    horizon_values,
    walk_completions,
    walk_values,
)
from mesaprobe.solvers.lookahead import UNREACHABLE
from mesaprobe.zoo.compiled.beam_search import beam_program
from mesaprobe.zoo.compiled.program import Program
from mesaprobe.zoo.compiled.truncated import lookahead_program
from mesaprobe.zoo.compiled.value_iteration import value_iteration_program


@dataclass(frozen=True)
class Case:
    """A network and its algorithm: values along tours, completions of prefixes."""

    program: Callable[[int, int], Program]
    values: Callable[..., np.ndarray]
    completions: Callable[..., np.ndarray]
    gap: float
    """Mean gap to the optimum on `matrix`, n = 8, 64 levels."""


def walks(iterations: int, two_cycles: bool, gap: float) -> Case:
    options = {"iterations": iterations, "two_cycles": two_cycles}
    return Case(
        partial(value_iteration_program, **options),
        partial(walk_values, **options),
        partial(walk_completions, **options),
        gap,
    )


def lookahead(depth: int, gap: float) -> Case:
    ahead = (partial(rule, arcs=depth) for rule in (horizon_values, horizon_completions))
    return Case(partial(lookahead_program, depth=depth), *ahead, gap)


def beam(arcs: int, gap: float) -> Case:
    options = {"width": 4, "arcs": arcs}
    rules = (partial(rule, **options) for rule in (horizon_beam_values, horizon_beam_completions))
    return Case(partial(beam_program, **options), *rules, gap)


CASES = {
    "look-ahead 2": lookahead(2, 0.33),
    "look-ahead 3": lookahead(3, 0.20),
    "beam, 3 arcs": beam(3, 0.20),
    "beam, 4 arcs": beam(4, 0.136),
    "value iteration": walks(3, True, 0.40),
    "value iteration without two-cycles": walks(3, False, 0.195),
}


@cache
def compiled(name: str, n: int, levels: int) -> tuple[Program, TourGPT]:
    program = CASES[name].program(n, levels)
    return program, program.network()


def draw(n: int, levels: int, count: int, seed: int) -> Instances:
    return make_problem(ProblemConfig(n=n, levels=levels)).draw(count, np.random.default_rng(seed))


def answers(model: TourGPT, features: np.ndarray, tours: np.ndarray) -> np.ndarray:
    """The city named after each prefix of the tours that leaves a choice or a last city, [batch, n - 1]."""
    with torch.no_grad():
        return model(torch.from_numpy(features), torch.from_numpy(tours[:, :-1])).argmax(-1).numpy()


def own_rollouts(model: TourGPT, case: Case, instances: Instances) -> np.ndarray:
    """The network's tours. Those of its algorithm are offered and corrected where it departs from them (at ties);
    an illegal city raises UserError."""
    tours = case.completions(instances.weights, *city_zero(instances.weights))
    while True:
        named = answers(model, instances.features, tours)
        departs = named != tours[:, 1:]
        if not departs.any():
            return tours
        rows = np.flatnonzero(departs.any(1))
        at = departs[rows].argmax(1)
        tours[rows, at + 1] = named[rows, at]
        tours[rows] = case.completions(instances.weights[rows], tours[rows], at + 2)


def agreement(model: TourGPT, case: Case, instances: Instances, tours: np.ndarray) -> float:
    """Fraction of the states along the tours at which the network names a city of least value."""
    values = case.values(instances.weights, tours)
    chosen = np.take_along_axis(values, answers(model, instances.features, tours)[:, :, None], axis=2)[:, :, 0]
    return float((chosen == values.min(2)).mean())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("n", "levels"), [(8, 64), (6, 16), (7, 10)])
def test_names_a_city_of_least_value_at_every_state(name: str, n: int, levels: int) -> None:
    case, (_, model), instances = CASES[name], compiled(name, n, levels), draw(n, levels, 30, seed=11)
    assert agreement(model, case, instances, own_rollouts(model, case, instances)) == 1.0
    assert agreement(model, case, instances, random_tours(30, n, seed=12)) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_certificate_on_400_matrices(name: str) -> None:
    """5,600 states, half of them along the network's own rollouts; and how far its tours are from optimal."""
    case, (_, model), instances = CASES[name], compiled(name, 8, 64), draw(8, 64, 400, seed=5)
    tours = own_rollouts(model, case, instances)
    assert agreement(model, case, instances, tours) >= 0.999
    assert agreement(model, case, instances, random_tours(400, 8, seed=1)) >= 0.999
    gaps = tour_costs(instances.weights, tours) / held_karp(instances.weights).costs - 1
    assert abs(gaps.mean() - case.gap) < 4 * gaps.std() / np.sqrt(len(gaps))


@pytest.mark.parametrize("name", CASES)
def test_is_a_subject_like_any_other(name: str) -> None:
    """Hooked and plain passes agree, and the subject's dry run finds no leak from later cities."""
    _, model = compiled(name, 6, 16)
    subject = gpt_subject(model, make_problem(ProblemConfig(n=6, levels=16)), name, {})
    features, tours = torch.from_numpy(draw(6, 16, 5, seed=3).features), torch.from_numpy(random_tours(5, 6, seed=4))
    plain = subject.logits(features, tours)
    hooked, cache = model.run_with_cache(features, tours)
    torch.testing.assert_close(hooked, plain)
    assert set(cache) == set(model.hook_dict)
    assert sum(p.numel() for p in compiled(name, 8, 64)[1].parameters()) * 4 < 30e6


def held(name: str, slot: str, instances: Instances, prefixes: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
    """What the network holds at a place after the prefixes, by label, each [batch]."""
    program, model = compiled(name, 8, 64)
    place = program.places()[slot]
    _, cache = model.run_with_cache(
        torch.from_numpy(instances.features), torch.from_numpy(prefixes), names_filter=place.hook
    )
    found = cache[place.hook][:, -1, place.coordinates].numpy()
    return {label: found[:, i] for i, label in enumerate(place.labels)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("length", [1, 4, 6, 7])
def test_values_of_all_options_stand_where_the_program_says(name: str, length: int) -> None:
    instances, tours = draw(8, 64, 20, seed=6), random_tours(20, 8, seed=7)
    expected = CASES[name].values(instances.weights, tours)[:, length - 1]
    program, _ = compiled(name, 8, 64)
    for (city,), found in held(name, "value", instances, tours[:, :length]).items():
        seen = expected[:, city] != UNREACHABLE
        np.testing.assert_allclose(found[seen] * 64, expected[seen, city], atol=1e-3)
        assert (found[~seen] >= program.ruled_out - 1e-3).all()


def test_plans_of_the_look_ahead_are_the_cheapest_ways_on_for_every_option() -> None:
    instances, tours = draw(8, 64, 20, seed=8), random_tours(20, 8, seed=9)
    rest, plan = (held("look-ahead 3", slot, instances, tours[:, :3]) for slot in ("rest_1", "plan_1"))
    for row, weights in enumerate(instances.weights):
        free = tours[row, 3:].tolist()
        for a in free:
            others = [city for city in free if city != a]
            costs = {path: weights[a, path[0]] + weights[path] for path in permutations(others, 2)}
            assert rest[a,][row] * 64 == pytest.approx(min(costs.values()), abs=1e-3)
            (planned,) = [city for city in range(8) if city != a and plan[a, city][row] > 0.5]
            assert min(cost for path, cost in costs.items() if path[0] == planned) == min(costs.values())


def test_the_beam_holds_the_cheapest_partial_paths_in_order() -> None:
    instances, tours = draw(8, 64, 20, seed=10), random_tours(20, 8, seed=11)
    cost, first, last = (
        held("beam, 4 arcs", slot, instances, tours[:, :2]) for slot in ("cost_2", "first_2", "last_2")
    )
    for row, weights in enumerate(instances.weights):
        current, free = tours[row, 1], tours[row, 2:].tolist()
        kept = sorted(sorted(free), key=lambda a: weights[current, a])[:4]
        paths = sorted(
            ((weights[current, a] + weights[a, b], a, b) for a in kept for b in sorted(free) if b != a),
            key=lambda path: path[0],
        )
        for t, (total, a, b) in enumerate(paths[:4]):
            assert cost[t,][row] * 64 == pytest.approx(total, abs=1e-3)
            assert first[t, a][row] == pytest.approx(1.0)
            assert last[t, b][row] == pytest.approx(1.0)


def test_value_iteration_holds_its_iterates_layer_by_layer() -> None:
    instances, tours = draw(8, 64, 20, seed=12), random_tours(20, 8, seed=13)
    free = tours[:, 3:]
    values = instances.weights[:, :, 0].astype(np.float64)
    for k in (1, 2, 3):
        found = held("value iteration", f"rest_{k}", instances, tours[:, :3])
        following = np.full(values.shape, np.inf)
        np.put_along_axis(following, free, np.take_along_axis(values, free, 1), 1)
        arcs = instances.weights + np.where(np.eye(8, dtype=bool), np.inf, 0.0)
        values = (arcs + following[:, None, :]).min(2)
        for i in range(1, 8):
            np.testing.assert_allclose(found[0, i] * 64, values[:, i], atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_the_choice_follows_an_edited_value_and_only_that_option_moves(name: str) -> None:
    """Let the runner-up cost nothing (a beam may hold no path to it, so that its value is a penalty): it is taken."""
    program, model = compiled(name, 8, 64)
    instances, tours = draw(8, 64, 20, seed=14), random_tours(20, 8, seed=15)
    features, prefixes = torch.from_numpy(instances.features), torch.from_numpy(tours[:, :3])
    place = program.places()["value"]
    with torch.no_grad():
        before = model(features, prefixes)[:, -1]
    second = before.topk(2).indices[:, 1]
    coordinates = torch.from_numpy(place.coordinates)[second - 1]

    def favour(activation: torch.Tensor, hook: object) -> torch.Tensor:  # noqa: ARG001
        activation[torch.arange(20), -1, coordinates] = 0.0
        return activation

    with torch.no_grad():
        after = model.run_with_hooks(features, prefixes, fwd_hooks=[(place.hook, favour)])[:, -1]
    assert (after.argmax(1) == second).all()
    others = torch.ones_like(after, dtype=torch.bool).scatter(1, second[:, None], False)
    torch.testing.assert_close(after[others], before[others])


def test_a_value_follows_the_plan_it_is_read_from() -> None:
    """Exchange the plan of one option for another city: its value becomes the cost of that way, no other moves."""
    program, model = compiled("look-ahead 2", 8, 64)
    instances, tours = draw(8, 64, 20, seed=16), random_tours(20, 8, seed=17)
    places, option, city = program.places(), tours[:, 3], tours[:, 5]
    label = {
        label: int(place) for label, place in zip(places["plan_1"].labels, places["plan_1"].coordinates, strict=True)
    }

    def replan(activation: torch.Tensor, hook: object) -> torch.Tensor:  # noqa: ARG001
        for row, (a, b) in enumerate(zip(option.tolist(), city.tolist(), strict=True)):
            for (start, onward), place in label.items():
                if start == a:
                    activation[row, -1, place] = float(onward == b)
        return activation

    features, prefixes = torch.from_numpy(instances.features), torch.from_numpy(tours[:, :3])
    with torch.no_grad():
        before = model(features, prefixes)[:, -1].numpy()
        after = model.run_with_hooks(features, prefixes, fwd_hooks=[(places["plan_1"].hook, replan)])[:, -1].numpy()
    rows = np.arange(20)
    cost = instances.weights[rows, tours[:, 2], option] + instances.weights[rows, option, city]
    np.testing.assert_allclose(after[rows, option], -cost, atol=1e-3)
    after[rows, option] = before[rows, option]
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_shapes_that_cannot_be_compiled_are_refused() -> None:
    with pytest.raises(UserError, match="depth 2 or 3"):
        lookahead_program(8, 64, 4)
    with pytest.raises(UserError, match="width and arcs from 2 to n - 1 = 3"):
        beam_program(4, 64)
    with pytest.raises(UserError, match="1 iteration or more"):
        value_iteration_program(8, 64, 0)
    with pytest.raises(UserError, match="levels"):
        lookahead_program(8, 10**6, 2)
