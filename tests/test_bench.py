"""The arithmetic of the performance table; no test here depends on how fast anything is."""

import importlib.util
import itertools
import json

import numpy as np
import pytest

from mesaprobe.bench import BENCHES, BenchRow, bench_row, interleaved, peers, rows, table
from mesaprobe.bench.training_step import STEP_GOAL, _plain_gpt
from mesaprobe.errors import UserError
from mesaprobe.files import plain
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.solvers.exact.held_karp import held_karp


@pytest.mark.parametrize(
    ("lower_is_better", "value", "peer_value", "ratio"),
    [(True, 50.0, 100.0, 2.0), (True, 200.0, 100.0, 0.5), (False, 50.0, 100.0, 0.5), (False, 200.0, 100.0, 2.0)],
)
def test_a_ratio_above_one_is_better_than_the_peer(
    lower_is_better: bool, value: float, peer_value: float, ratio: float
) -> None:
    row = bench_row("row", value, "unit", "peer", peer_value, lower_is_better=lower_is_better)
    assert (row.ratio, row.goal, row.met) == (ratio, None, None)


@pytest.mark.parametrize(("value", "met"), [(109.0, True), (110.0, True), (111.0, False)])
def test_the_goal_is_met_at_ten_per_cent_over_the_peer(value: float, met: bool) -> None:
    row = bench_row("step", value, "ms", "plain", 100.0, lower_is_better=True, goal=STEP_GOAL)
    assert row.met is met


def test_an_absent_peer_leaves_nulls() -> None:
    row = bench_row("solver", 9.0, "instances/s", "absent", None, goal=2.0)
    assert (row.peer_value, row.ratio, row.goal, row.met) == (None, None, 2.0, None)
    assert json.loads(json.dumps(plain(row))) == {
        "name": "solver",
        "value": 9.0,
        "unit": "instances/s",
        "peer": "absent",
        "peer_value": None,
        "ratio": None,
        "goal": 2.0,
        "met": None,
    }


def test_a_missing_package_is_an_absent_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # noqa: ARG005
    assert peers.python_tsp() is None
    assert peers.fast_tsp() is None


def test_the_first_budget_is_the_shortest_that_solves_every_instance() -> None:
    """A stand-in whose tours cost more than the optimum by the seconds that it lacks, 0.02 or 0.05 by instance."""
    instances = make_problem(ProblemConfig(n=6)).draw(4, np.random.default_rng(0))
    optimum, needed = np.array([10, 20, 30, 40]), np.array([0.02, 0.02, 0.05, 0.02])

    def within(budget: float) -> peers.Peer:
        return lambda _: optimum + (budget < needed)

    assert peers.first_always_optimal(within, instances, optimum) == 0.05
    assert peers.first_always_optimal(within, instances, optimum - 1) is None


def test_cp_sat_as_a_peer_gives_optimal_costs() -> None:
    instances = make_problem(ProblemConfig(n=7)).draw(5, np.random.default_rng(1))
    assert (peers.cp_sat(instances) == held_karp(instances.weights).costs).all()


def test_rounds_take_turns_and_the_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    costs = {"ours": iter([100.0, 1.0, 5.0, 3.0]), "peer": iter([200.0, 8.0, 2.0, 6.0])}
    order: list[str] = []

    def side(name: str) -> None:
        order.append(name)
        clock[0] += next(costs[name])

    monkeypatch.setattr(table.time, "perf_counter", lambda: clock[0])
    assert interleaved(lambda: side("ours"), lambda: side("peer"), rounds=3) == (3.0, 6.0)
    assert order == ["ours", "peer"] * 4
    costs["ours"] = itertools.repeat(2.0)
    assert interleaved(lambda: side("ours"), None, rounds=3) == (2.0, None)


def test_rows_are_measured_by_name_and_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"training_step", "held_karp_n12", "probe_sweep", "patch_sweep"} <= set(BENCHES)
    ran: list[str] = []

    def measure(name: str) -> BenchRow:
        ran.append(name)
        return bench_row(name, 1.0, "s", "peer", 1.0)

    for name in BENCHES:
        monkeypatch.setitem(BENCHES._members, name, lambda name=name: measure(name))
    first = next(measured := rows(["held_karp_n12", "training_step"]))
    assert (first.name, ran) == ("held_karp_n12", ["held_karp_n12"])
    assert [row.name for row in measured] == ["training_step"]
    assert [row.name for row in rows()] == list(BENCHES)
    with pytest.raises(UserError, match="unknown bench row 'lightning'; known: held_karp_n10"):
        rows(["lightning"])


def test_the_plain_gpt_has_the_shape_of_ours() -> None:
    from mesaprobe.models import GPTConfig, TourGPT

    shape = GPTConfig(d_model=32, n_layers=2, n_heads=2, d_mlp=64)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (_plain_gpt(8, shape), TourGPT(shape, 8, 8))]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
