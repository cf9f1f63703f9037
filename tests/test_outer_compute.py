"""Beam, resampling and the curves of the gap against outer compute."""

import dataclasses
from itertools import pairwise

import numpy as np
import torch

from mesaprobe.decoding import greedy_rollout
from mesaprobe.decoding.beam import beam_search
from mesaprobe.decoding.outer_compute import local_search_curves, network_curves, with_loops
from mesaprobe.models import GPTConfig, ModuleSubject, TourGPT, gpt_subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.solvers.exact.held_karp import held_karp

N = 6
PROBLEM = make_problem(ProblemConfig(n=N))
SHAPE = GPTConfig(d_model=16, n_layers=2, n_heads=2, d_mlp=16)
INSTANCES = PROBLEM.draw(50, np.random.default_rng(0))
FEATURES = torch.from_numpy(INSTANCES.features)


def _subject(**changes: object) -> ModuleSubject:
    network = TourGPT(dataclasses.replace(SHAPE, **changes), N, N, seed=1)  # type: ignore[arg-type]
    with torch.no_grad():
        network.unembed.weight.mul_(30)
    found = gpt_subject(network, PROBLEM, "untrained", {})
    assert isinstance(found, ModuleSubject)
    return found


def test_a_beam_of_one_is_greedy_and_a_full_beam_is_exact() -> None:
    subject = _subject()
    greedy = greedy_rollout(subject, FEATURES).tours.numpy()
    np.testing.assert_array_equal(beam_search(subject, FEATURES, INSTANCES.weights, 1).tours[:, 0], greedy)
    every = beam_search(subject, FEATURES, INSTANCES.weights, 120)
    assert every.tours.shape == (50, 120, N)
    assert len(np.unique(every.tours[0], axis=0)) == 120
    np.testing.assert_array_equal(every.best, held_karp(INSTANCES.weights).costs)


def test_curves_of_every_kind_of_network() -> None:
    for changes, methods in (
        ({}, {"beam", "resampled_ends"}),
        ({"tied": True}, {"beam", "resampled_ends", "loops"}),
        (
            {"attention": "bidirectional"},
            {"left_to_right", "resampled", "likeliest", "annealed", "annealed_from_random", "single"},
        ),
    ):
        points = network_curves(_subject(**changes), INSTANCES, 12, seed=0)
        assert {point.method for point in points} == methods
        for method in methods - {"beam"}:
            best = [p.gap for p in points if p.method == method and p.kept == "best"]
            assert all(a >= b - 1e-12 for a, b in pairwise(best)), "more compute, no worse best"
        assert all(point.low <= point.gap <= point.high for point in points)


def test_local_search_comes_to_the_optimum_with_enough_tours() -> None:
    points = local_search_curves(INSTANCES, [1, 20, 4000], seed=0)
    for method in ("simulated_annealing", "two_opt"):
        curve = [point for point in points if point.method == method]
        assert curve[0].gap > 0.1
        assert curve[-1].gap < 0.005
        assert curve[-1].evaluated_tours <= 4001


def test_loops_are_adjustable() -> None:
    subject = _subject(tied=True)
    same = with_loops(subject, 2)
    tours = torch.zeros(50, 1, dtype=torch.long)
    assert torch.equal(same.next_city_logits(FEATURES, tours), subject.next_city_logits(FEATURES, tours))
    assert not torch.equal(
        with_loops(subject, 4).next_city_logits(FEATURES, tours), subject.next_city_logits(FEATURES, tours)
    )
