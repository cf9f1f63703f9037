"""Batches and teachers against exact facts: the same data whoever makes it, and targets that say what they should."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import TINY, changed, with_data

from mesaprobe.errors import UserError
from mesaprobe.labels import GreedyFails
from mesaprobe.problems import Instances, ProblemConfig, make_problem, tour_costs
from mesaprobe.solvers.constructive import greedy_edge, nearest_neighbour
from mesaprobe.solvers.exact.held_karp import action_values, held_karp
from mesaprobe.training.loop import train
from mesaprobe.training.stream import LabelledBatch, evaluation_instances, make_batch, stream
from mesaprobe.training.teachers import (
    TEACHERS,
    NearestTeacher,
    OptimalTeacher,
    TourTeacher,
    find_teacher,
    random_prefixes_for,
)


def equal_batches(a: LabelledBatch, b: LabelledBatch) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(LabelledBatch))


def draw(family: str, n: int, count: int, levels: int = 64) -> Instances:
    return make_problem(ProblemConfig(family=family, n=n, levels=levels)).draw(count, np.random.default_rng(0))


@pytest.mark.parametrize("teacher", list(TEACHERS))
def test_a_batch_is_a_function_of_config_and_step(teacher: str) -> None:
    config = changed(teacher=teacher, problem=ProblemConfig(family="euclidean", n=5))  # some rules need points
    first = make_batch(config, 3)
    make_batch(config, 4)
    np.random.seed(1)  # noqa: NPY002
    assert equal_batches(first, make_batch(config, 3))
    assert not np.array_equal(first.features, make_batch(config, 4).features)
    assert not np.array_equal(first.features, make_batch(changed(config, seed=1), 3).features)


def test_any_number_of_workers_gives_the_same_stream_from_any_step() -> None:
    expected = [make_batch(TINY, step) for step in range(12)]
    for workers, first in ((0, 7), (1, 5), (2, 3)):
        batches = list(stream(with_data(workers=workers), first))
        assert len(batches) == 12 - first
        assert all(equal_batches(a, b) for a, b in zip(batches, expected[first:], strict=True))


def test_held_out_instances_are_never_trained_on() -> None:
    held_out = evaluation_instances(TINY, "natural", 500).instances.features
    trained = np.concatenate([make_batch(TINY, step).features for step in range(30)])
    assert not {row.tobytes() for row in held_out} & {row.tobytes() for row in trained}
    np.testing.assert_array_equal(held_out, evaluation_instances(TINY, "natural", 500).instances.features)


@pytest.mark.parametrize("share", [0.0, 0.15, 1.0])
def test_random_prefixes_make_up_their_share(share: float) -> None:
    prefixes, lengths = random_prefixes_for(20_000, 6, share, np.random.default_rng(0))
    assert (lengths > 1).mean() == pytest.approx(share, abs=0.01)
    np.testing.assert_array_equal(np.sort(prefixes, axis=1), np.broadcast_to(np.arange(6), prefixes.shape))
    assert not prefixes[:, 0].any()
    if share:
        used, counts = np.unique(lengths[lengths > 1], return_counts=True)
        assert used.tolist() == [2, 3, 4, 5]
        assert counts / counts.sum() == pytest.approx([0.25] * 4, abs=0.03)


def test_the_share_of_random_prefixes_reaches_the_sequences() -> None:
    """Without them every tour of the optimal teacher is optimal; with a share of 1 many are not."""
    for share, low, high in ((0.0, 1.0, 1.0), (1.0, 0.05, 0.6)):
        config = with_data(changed(problem=ProblemConfig(n=7), batch_size=400), random_prefixes=share)
        batch = make_batch(config, 0)
        weights = np.rint(batch.features * 64).astype(np.int32)
        assert low <= (tour_costs(weights, batch.tours) == held_karp(weights).costs).mean() <= high


def test_the_instance_filter_reports_its_acceptance_and_switches_stages() -> None:
    config = with_data(changed(problem=ProblemConfig(n=7), batch_size=300), instances="easy_to_hard", switch_at=0.5)
    problem = make_problem(config.problem)
    keep = GreedyFails(config.data.nearest_gap, config.data.greedy_edge_gap)
    natural = keep(problem.draw(5000, np.random.default_rng(1))).mean()
    for step, hard in ((0, False), (5, False), (6, True), (11, True)):
        batch = make_batch(config, step)
        weights = np.rint(batch.features * 64).astype(np.int32)
        assert (keep(Instances(problem, weights)) == hard).all()
        assert batch.acceptance_rate == pytest.approx(natural if hard else 1 - natural, abs=0.06)
    assert make_batch(with_data(config, instances="natural"), 0).acceptance_rate == 1.0
    same = make_batch(with_data(config, instances="greedy_fails"), 6)
    assert equal_batches(same, make_batch(config, 6))


# ---- teachers --------------------------------------------------------------------------------------------------


def best_completion(weights: np.ndarray, prefix: Sequence[int]) -> int:
    """Cost of the best way on from a prefix and home, by trying all of them."""
    free = [city for city in range(len(weights)) if city not in prefix]
    routes = ([prefix[-1], *rest, 0] for rest in itertools.permutations(free))
    return min(sum(int(weights[u, v]) for u, v in itertools.pairwise(route)) for route in routes)


@pytest.mark.parametrize(("family", "levels"), [("matrix", 64), ("matrix", 3), ("asymmetric", 3), ("euclidean", 64)])
def test_optimal_targets_are_uniform_over_the_optimal_cities(family: str, levels: int) -> None:
    instances = draw(family, 6, 30, levels)
    sequences = OptimalTeacher()(instances, np.random.default_rng(1), random_prefixes=0.5)
    for weights, tour, targets in zip(instances.weights, sequences.tours, sequences.targets, strict=True):
        for t in range(5):
            prefix = tour[: t + 1].tolist()
            free = [city for city in range(6) if city not in prefix]
            value = {a: int(weights[prefix[-1], a]) + best_completion(weights, [*prefix, a]) for a in free}
            best = [a for a in free if value[a] == min(value.values())]
            expected = np.zeros(6, dtype=np.float32)
            expected[best] = np.float32(1 / len(best))
            np.testing.assert_allclose(targets[t], expected, rtol=1e-6)


def test_one_optimal_tour_is_taught_in_both_directions_and_exactly_inside_prefixes() -> None:
    instances = draw("matrix", 6, 2000)
    sequences = OptimalTeacher("random_tour")(instances, np.random.default_rng(1), random_prefixes=0.0)
    np.testing.assert_array_equal(sequences.targets.argmax(axis=2), sequences.tours[:, 1:])
    assert (sequences.targets.max(axis=2) == 1).all()
    np.testing.assert_array_equal(instances.tour_costs(sequences.tours), held_karp(instances.weights).costs)
    assert (sequences.tours[:, 1] < sequences.tours[:, -1]).mean() == pytest.approx(0.5, abs=0.04)
    forced = OptimalTeacher("random_tour")(instances, np.random.default_rng(1), random_prefixes=1.0)
    values = action_values(instances.weights, forced.tours)
    optimal = values == values.min(axis=2, keepdims=True)
    assert optimal[forced.targets > 0].all(), "a step inside a random prefix is no label"


@pytest.mark.parametrize("levels", [2, 64])
def test_the_nearest_teacher_names_every_nearest_city(levels: int) -> None:
    instances = draw("matrix", 6, 100, levels)
    sequences = NearestTeacher()(instances, np.random.default_rng(1), random_prefixes=0.0)
    ties = 0
    for weights, tour, targets in zip(instances.weights, sequences.tours, sequences.targets, strict=True):
        for t in range(5):
            free = [city for city in range(6) if city not in tour[: t + 1]]
            nearest = [c for c in free if weights[tour[t], c] == min(weights[tour[t], f] for f in free)]
            assert np.flatnonzero(targets[t]).tolist() == nearest
            assert targets[t].sum() == pytest.approx(1.0)
            assert tour[t + 1] in nearest
            ties += len(nearest) > 1
    assert ties > 100 or levels == 64


def test_the_nearest_teacher_answers_any_state() -> None:
    instances = draw("matrix", 6, 500)
    sequences = NearestTeacher()(instances, np.random.default_rng(1), random_prefixes=1.0)
    assert not np.array_equal(sequences.tours, nearest_neighbour(instances.weights))
    distances = np.take_along_axis(instances.weights, sequences.tours[:, :-1, None], axis=1)
    named = np.where(sequences.targets > 0, distances, 0).max(axis=2)
    visited = np.stack([(sequences.tours[:, : t + 1, None] == np.arange(6)).any(axis=1) for t in range(5)], axis=1)
    np.testing.assert_array_equal(named, np.where(visited, 10_000, distances).min(axis=2))


def test_assembled_tours_are_taught_in_both_directions() -> None:
    instances = draw("matrix", 6, 2000, levels=10**6)  # (almost) no ties
    own = greedy_edge(instances.weights)
    sequences = find_teacher("greedy_edge")(instances, np.random.default_rng(1), random_prefixes=0.0)
    backward = np.concatenate([own[:, :1], own[:, :0:-1]], axis=1)
    forward_taken = (sequences.tours == own).all(axis=1)
    assert (forward_taken | (sequences.tours == backward).all(axis=1)).all()
    assert forward_taken.mean() == pytest.approx(0.5, abs=0.04)
    for city in (own[:, 1], own[:, -1]):
        np.testing.assert_array_equal(sequences.targets[np.arange(2000), 0, city], np.float32(0.5))
    np.testing.assert_array_equal(sequences.targets[:, 1:].argmax(axis=2), sequences.tours[:, 2:])
    assert (sequences.targets[:, 1:].max(axis=2) == 1).all()


def test_asymmetric_tours_keep_their_direction() -> None:
    problem = make_problem(ProblemConfig("asymmetric", 6, levels=10**6))  # no ties
    instances = problem.draw(200, np.random.default_rng(0))
    sequences = find_teacher("greedy_edge")(instances, np.random.default_rng(1), random_prefixes=0.0)
    np.testing.assert_array_equal(sequences.tours, greedy_edge(instances.weights))
    np.testing.assert_array_equal(sequences.targets.argmax(axis=2), sequences.tours[:, 1:])
    assert (sequences.targets.max(axis=2) == 1).all()


def test_a_users_tours_may_start_anywhere() -> None:
    instances = draw("asymmetric", 5, 20)
    optimal = held_karp(instances.weights).tours
    teacher = TourTeacher(lambda weights, seed: np.roll(optimal, 2, axis=1), "rolled")  # noqa: ARG005
    np.testing.assert_array_equal(teacher(instances, np.random.default_rng(0), 0.0).tours, optimal)


USER_MODULE = """
import os
import numpy as np
def worst(weights, seed):
    assert weights.dtype == np.int32 and isinstance(seed, int)
    return np.tile(np.arange(weights.shape[1]), (len(weights), 1))
def repeats(weights, seed):
    return np.zeros(weights.shape[:2], dtype=int)
def floats(weights, seed):
    return worst(weights, seed) * 1.0
def short(weights, seed):
    return worst(weights, seed)[:, 1:]
def dies(weights, seed):
    os._exit(3)
def fails(weights, seed):
    raise ZeroDivisionError("my own mistake")
number = 3
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "teachers_of_mine.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "teachers_of_mine"


def test_a_users_function_is_a_teacher_here_and_in_worker_processes(user_module: str) -> None:
    config = changed(teacher=f"{user_module}:worst", problem=ProblemConfig(family="asymmetric", n=5))
    assert (make_batch(config, 0).tours == np.arange(5)).all()
    for batch in stream(with_data(config, workers=1), 10):
        assert (batch.tours == np.arange(5)).all()


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("teachers_of_mine:repeats", r"must name every city 0\.\.4 once in each tour, got \[0, 0, 0, 0, 0\]"),
        ("teachers_of_mine:floats", r"integer tours of shape \(16, 5\), got float64"),
        ("teachers_of_mine:short", r"integer tours of shape \(16, 5\), got int64 of shape \(16, 4\)"),
        ("teachers_of_mine:absent", "cannot be imported: .*absent"),
        ("teachers_of_mine:number", "is not a function"),
        ("no_such_module:function", "cannot be imported: No module named 'no_such_module'"),
        (":function", "cannot be imported"),
        ("brilliant", "unknown teacher 'brilliant'; known: optimal, nearest_neighbour, "),
    ],
)
def test_a_teacher_that_cannot_teach_ends_in_one_sentence_and_writes_nothing(
    tmp_path: Path, user_module: str, teacher: str, message: str
) -> None:
    assert user_module
    with pytest.raises(UserError, match=message) as caught:
        train(changed(teacher=teacher), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_goes_wrong_in_a_worker_is_told_here(user_module: str) -> None:
    for function, kind, message in (
        ("repeats", UserError, "must name every city"),
        ("fails", RuntimeError, "my own mistake"),
        ("dies", RuntimeError, "a labelling process died"),
    ):
        with pytest.raises(kind, match=message):
            next(stream(with_data(changed(teacher=f"{user_module}:{function}"), workers=1), 0))
