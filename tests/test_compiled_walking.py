"""Compiled walking rules name what the library's rule names, at any state, in both shapes."""

import numpy as np
import pytest
import torch

from mesaprobe.problems import ProblemConfig, make_problem, random_tours
from mesaprobe.zoo.compiled import exhaustive_enumerator
from mesaprobe.zoo.compiled.truncated import lookahead_network
from mesaprobe.zoo.compiled.value_iteration import value_iteration_network
from mesaprobe.zoo.compiled.walking import KEYS, NEAREST, Key, walking_rule_network
from mesaprobe.zoo.reference import rule

N, LEVELS = 6, 64


@pytest.mark.parametrize("shell", [False, True])
@pytest.mark.parametrize("name", KEYS)
def test_the_most_likely_city_is_the_rules(name: str, shell: bool) -> None:
    instances = make_problem(ProblemConfig(n=N)).draw(300, np.random.default_rng(0))
    tours = random_tours(300, N, np.random.default_rng(1))
    model = walking_rule_network(N, LEVELS, KEYS[name], enumerator_shell=shell)
    with torch.no_grad():
        named = model(torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])).argmax(-1).numpy()
    allowed = rule(name)(instances, tours, np.random.default_rng(2))
    assert np.take_along_axis(allowed, named[..., None], axis=2).all()


def test_another_key_is_another_rule() -> None:
    instances = make_problem(ProblemConfig(n=N)).draw(300, np.random.default_rng(0))
    tours = random_tours(300, N, np.random.default_rng(1))
    model = walking_rule_network(N, LEVELS, Key(own=1.0))
    with torch.no_grad():
        named = model(torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])).argmax(-1).numpy()
    allowed = rule("remotest_neighbour")(instances, tours, np.random.default_rng(2))
    assert 0.5 < np.take_along_axis(allowed, named[..., None], axis=2).mean() < 0.97


@pytest.mark.parametrize("name", ["nearest_neighbour", *KEYS])
def test_the_shells_of_searchers_walk_by_a_rule(name: str) -> None:
    instances = make_problem(ProblemConfig(n=N)).draw(200, np.random.default_rng(0))
    tours = random_tours(200, N, np.random.default_rng(1))
    allowed = rule(name)(instances, tours, np.random.default_rng(2))
    key = KEYS.get(name, NEAREST)
    searchers = (lookahead_network(N, LEVELS, 2), value_iteration_network(N, LEVELS, 2))
    walkers = (lookahead_network(N, LEVELS, 2, rule=key), value_iteration_network(N, LEVELS, 2, rule=key))
    for searcher, walker in zip(searchers, walkers, strict=True):
        assert searcher.config == walker.config
        with torch.no_grad():
            named = walker(torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])).argmax(-1).numpy()
        assert np.take_along_axis(allowed, named[..., None], axis=2).all()


def test_the_shell_is_the_enumerators() -> None:
    ours = walking_rule_network(N, LEVELS, KEYS["radial_order"], enumerator_shell=True)
    theirs = exhaustive_enumerator(N, LEVELS)
    assert ours.config == theirs.config
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
