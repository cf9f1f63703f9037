"""Beam, resampling or look-ahead at use time only: a wrapper can't change frozen weights, so no figure of single
forward passes moves (method.md section 8, controls), while the tours of the whole system do."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mesaprobe.decoding import greedy_rollout
from mesaprobe.decoding.beam import beam_search
from mesaprobe.decoding.look_ahead import look_ahead_rollout
from mesaprobe.decoding.resampling import resample_ends
from mesaprobe.evidence import BUDGETS, LINES, Budget, LineResult
from mesaprobe.files import read_json
from mesaprobe.models import ModuleSubject, load
from mesaprobe.problems import Instances
from mesaprobe.studies import inner_evidence
from mesaprobe.verdict.calibration import Calibration
from mesaprobe.verdict.store import Shipped
from mesaprobe.zoo.records import read_records, records_folder

PLAIN = Path(__file__).parents[1] / "trained_models" / "matrix8-arm-a0"
CHEAP = ("E4", "E9")
"""Lines that take a second or two on this network and see something in it."""

Decoded = tuple[np.ndarray, np.ndarray]
"""Tours that the system holds, and the cost of the cheapest that it met, an instance each."""


def _beam(subject: ModuleSubject, instances: Instances) -> Decoded:
    run = beam_search(subject, torch.from_numpy(instances.features), instances.weights, 8)
    return run.tours[:, 0], run.best


def _resampling(subject: ModuleSubject, instances: Instances) -> Decoded:
    features, generator = torch.from_numpy(instances.features), torch.Generator().manual_seed(0)
    first = greedy_rollout(subject, features).tours
    run = resample_ends(subject, features, instances.weights, first, 8, generator)
    return run.tours, run.best[:, -1]


def _look_ahead(subject: ModuleSubject, instances: Instances) -> Decoded:
    tours = look_ahead_rollout(subject, torch.from_numpy(instances.features)).tours.numpy()
    return tours, np.minimum(instances.tour_costs(tours), _greedy_costs(subject, instances))


WRAPPERS = {"beam": _beam, "resampling": _resampling, "look-ahead": _look_ahead}


def _greedy(subject: ModuleSubject, instances: Instances) -> np.ndarray:
    return greedy_rollout(subject, torch.from_numpy(instances.features)).tours.numpy()


def _greedy_costs(subject: ModuleSubject, instances: Instances) -> np.ndarray:
    return instances.tour_costs(_greedy(subject, instances))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """Every number that lines of evidence and the score say of a subject, by name. The score is fitted to the zoo's
    records as they are stored, also where a line has changed since: what is asked is whether it moves."""
    monkeypatch.setitem(BUDGETS._members, "quick", Budget("quick", 300))
    alike = tuple(r for r in read_records(records_folder(), "quick") if (r.problem, r.n) == ("matrix", 8))
    zoo = Shipped("quick", alike, Calibration.fit(alike))
    monkeypatch.setattr(inner_evidence, "shipped_zoo", lambda *_: zoo)
    results: dict[str, LineResult] = {}
    for name in CHEAP:
        line = LINES[name]

        def measure(subject: Any, settings: Any, seed: int, line: Any = line) -> LineResult:
            results[line.id] = line.measure(subject, settings, seed)
            return results[line.id]

        monkeypatch.setitem(LINES._members, name, dataclasses.replace(line, measure=measure))

    def all_of(subject: ModuleSubject, lines: tuple[str, ...] = CHEAP) -> dict[str, float]:
        results.clear()
        inner = inner_evidence.measure_inner(subject, lines, "quick", seed=0)
        found = dict(_numbers("inner", dataclasses.asdict(inner)))
        for name, result in results.items():
            found |= dict(_numbers(name, {key: value for key, value in vars(result).items() if key != "seconds"}))
        return found

    return all_of


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers in a nested thing; what is neither a number nor holds any is left out."""
    if isinstance(value, bool | int | float | np.number):
        yield name, float(value)
    elif isinstance(value, pd.DataFrame):
        for column in value.select_dtypes("number"):
            yield from _numbers(f"{name}.{column}", value[column].to_numpy())
    elif isinstance(value, np.ndarray):
        if np.issubdtype(value.dtype, np.number) or value.dtype == bool:
            yield from ((f"{name}[{index}]", float(number)) for index, number in enumerate(value.ravel()))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _numbers(f"{name}.{index}", inner)


def _largest_move(before: dict[str, float], after: dict[str, float]) -> float:
    assert before.keys() == after.keys()
    pairs = np.array([(before[name], after[name]) for name in before])
    assert (np.isnan(pairs[:, 0]) == np.isnan(pairs[:, 1])).all()
    return float(np.nanmax(np.abs(pairs[:, 0] - pairs[:, 1])))


def test_wrappers_at_use_move_tours_and_no_figure_of_single_passes(
    figures: Callable[..., dict[str, float]],
) -> None:
    subject = load(PLAIN)
    assert isinstance(subject, ModuleSubject)
    before = figures(subject)
    assert before["inner.score"] != 0
    assert all(before[f"{line}.value"] > 0.1 for line in CHEAP), "there is something that could move"
    assert len(before) > 200

    instances = subject.problem.draw(150, np.random.default_rng(1))
    alone, alone_costs = _greedy(subject, instances), _greedy_costs(subject, instances)
    for name, wrapper in WRAPPERS.items():
        tours, best = wrapper(subject, instances)
        assert (tours != alone).any(axis=1).mean() > 0.02, f"{name} changes tours"
        assert best.mean() < alone_costs.mean(), f"{name} finds cheaper ones"

    assert _largest_move(before, figures(subject)) == 0
    np.testing.assert_array_equal(_greedy(subject, instances), alone)


def test_the_figures_would_have_moved_with_the_weights(figures: Callable[..., dict[str, float]]) -> None:
    """The negative check can fail: a loop that lets one gradient step through shows in the same figures, and so does
    one that leaves a hook behind."""
    subject = load(PLAIN)
    assert isinstance(subject, ModuleSubject)
    before = figures(subject, ("E9",))

    trained = copy.deepcopy(subject.module).requires_grad_(True)
    instances = subject.problem.draw(64, np.random.default_rng(2))
    features, tours = torch.from_numpy(instances.features), torch.from_numpy(_greedy(subject, instances))
    logits = trained(features, tours[:, :-1])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tours[:, 1:].flatten()).backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter -= 0.01 * parameter.grad  # type: ignore[operator]
    changed = ModuleSubject(trained, subject.problem, name=subject.name, description=subject.description)
    assert _largest_move(before, figures(changed, ("E9",))) > 1e-6

    def louder(activation: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        return activation * 1.001

    subject.module.add_hook("blocks.1.hook_resid_post", louder)
    assert _largest_move(before, figures(subject, ("E9",))) > 1e-6
    subject.module.reset_hooks()
    assert _largest_move(before, figures(subject, ("E9",))) == 0


def test_what_the_wrappers_buy_ships_with_the_plain_arm() -> None:
    """outer_compute.json of A0, drawn by the report: beam and resampling, each from one pass alone on."""
    points = read_json(PLAIN / "outer_compute.json")
    curves = {
        method: [point for point in points if (point["method"], point["kept"]) == (method, "best")]
        for method in ("beam", "resampled_ends")
    }
    assert [point["setting"] for point in curves["beam"]] == [1, 2, 4, 8, 16]
    assert curves["beam"][0]["gap"] == curves["resampled_ends"][0]["gap"], "both begin with the greedy tour"
    for curve in curves.values():
        assert curve[-1]["high"] < curve[0]["low"]
