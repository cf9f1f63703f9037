"""The exact solvers agree with each other, with exhaustive search and with published optima; limits hold."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hostile_weights import KINDS as HOSTILE_KINDS
from hostile_weights import draw_batch

from mesaprobe.errors import UserError
from mesaprobe.problems.tsplib import read_instance_file, read_tsplib, write_tsplib
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.bounds.potentials import reduce_weights
from mesaprobe.solvers.exact.cp_sat import solve_cp_sat
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.exact.highs import MAX_TOTAL, fits_highs, solve_highs
from mesaprobe.solvers.methods import EXACT_ALGORITHM_CITIES, EXACT_CITIES, METHODS, solve
from mesaprobe.solvers.solution import Solution, tour_cost
from mesaprobe.solvers.tables import solved_instances, tour_row

KINDS = ("symmetric", "asymmetric", "ties", "asymmetric ties", "steep", "euclidean", "duplicates", "constant")
EXACT = ("auto", "held_karp", "cp_sat", "highs", "branch_and_bound", "reduced_cost_search")


def exact_methods(weights: np.ndarray) -> list[str]:
    """Those that take the instance."""
    symmetric = bool((weights == weights.T).all())
    return [name for name in EXACT if name not in ALGORITHMS or symmetric or not ALGORITHMS[name].symmetric_only]


def draw(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """One instance [n, n]; `steep` weights span five orders of magnitude and are far from metric."""
    weights = rng.integers(0, 4 if "ties" in kind else 65, size=(n, n))
    if kind == "steep":
        weights = np.floor(10 ** rng.uniform(0, 5, size=(n, n))).astype(np.int64)
    if kind == "constant":
        weights[:] = 7
    if kind in ("euclidean", "duplicates"):
        points = rng.integers(0, 10_001, size=(n, 2))
        points = points[rng.integers(0, (n + 1) // 2, size=n)] if kind == "duplicates" else points
        weights = np.ceil(np.linalg.norm(points[:, None] - points, axis=2)).astype(np.int64)
    if not kind.startswith("asymmetric"):
        weights = np.triu(weights, 1) + np.triu(weights, 1).T
    np.fill_diagonal(weights, 0)
    return weights.astype(np.int32)


def check_legal(weights: np.ndarray, solution: Solution) -> None:
    assert sorted(solution.tour) == list(range(len(weights)))
    assert solution.tour[0] == 0
    pairs = zip(solution.tour, solution.tour[1:] + solution.tour[:1], strict=True)
    assert solution.cost == sum(int(weights[u, v]) for u, v in pairs if u != v)
    assert solution.seconds >= 0


def exhaustive_cost(weights: np.ndarray) -> int:
    return min(tour_cost(weights, (0, *rest)) for rest in itertools.permutations(range(1, len(weights))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_every_exact_method_matches_exhaustive_search(kind: str, n: int) -> None:
    weights = draw(kind, n, np.random.default_rng(n))
    expected = exhaustive_cost(weights)
    for method in exact_methods(weights):
        solution = solve(weights, method)
        check_legal(weights, solution)
        assert (solution.cost, solution.optimal) == (expected, True), method


@pytest.mark.parametrize("kind", KINDS)
def test_dynamic_and_integer_programming_agree(kind: str) -> None:
    rng = np.random.default_rng(1)
    for n in range(4, 14):
        batch = np.stack([draw(kind, n, rng) for _ in range(4)])
        costs = held_karp(batch).costs
        for weights, cost in zip(batch, costs.tolist(), strict=True):
            solution = solve_highs(weights)
            check_legal(weights, solution)
            assert (solution.cost, solution.optimal) == (cost, True)
        solution = solve_cp_sat(batch[0], workers=1)
        check_legal(batch[0], solution)
        assert (solution.cost, solution.optimal) == (costs[0], True)


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "ties", "asymmetric ties", "duplicates"])
def test_highs_and_cp_sat_agree_beyond_dynamic_programming(kind: str) -> None:
    weights = draw(kind, 24, np.random.default_rng(2))
    first, second = solve_highs(weights), solve_cp_sat(weights, workers=2)
    check_legal(weights, first)
    check_legal(weights, second)
    assert first.optimal
    assert second.optimal
    assert first.cost == second.cost


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "euclidean"])
def test_planted_tour_is_found_and_proven(kind: str) -> None:
    """A tour of weight-0 edges among positive ones is the unique optimum, whatever the other weights."""
    rng = np.random.default_rng(3)
    weights = draw(kind, 40, rng) + 1
    order = rng.permutation(40)
    weights[order, np.roll(order, -1)] = 0
    if kind != "asymmetric":
        weights[np.roll(order, -1), order] = 0
    for method in ("auto", "highs", "cp_sat"):
        solution = solve(weights, method)
        assert (solution.cost, solution.optimal) == (0, True)


@pytest.mark.parametrize("method", ["auto", "cp_sat", "highs"])
def test_time_limit_returns_a_legal_tour_without_a_claim(method: str) -> None:
    weights = draw("euclidean", 150, np.random.default_rng(4))
    solve(weights[:20, :20], method)  # compile and import first
    started = time.monotonic()
    solution = solve(weights, method, time_limit=0.2)
    assert time.monotonic() - started < 1.7
    check_legal(weights, solution)
    assert solution.optimal is None


@pytest.mark.parametrize("kind", KINDS)
def test_reduced_weights_shift_every_tour_alike(kind: str) -> None:
    rng = np.random.default_rng(11)
    weights = draw(kind, 9, rng) + np.int32(2**30)
    reduced = reduce_weights(weights)
    tours = [rng.permutation(9) for _ in range(20)]
    shifts = {tour_cost(weights, tour) - tour_cost(reduced, tour) for tour in tours}
    assert len(shifts) == 1
    assert reduced.min() == 0
    assert (reduced == reduced.T).all() == (weights == weights.T).all()


@pytest.mark.parametrize("method", ["auto", "highs", "cp_sat"])
def test_a_large_constant_in_all_weights_changes_nothing(method: str) -> None:
    weights = draw("asymmetric", 16, np.random.default_rng(5))
    shifted = weights + np.int32(2**31 - 100)
    expected = solve(weights, "held_karp").cost + 16 * (2**31 - 100)
    solution = solve(shifted, method)
    assert (solution.cost, solution.optimal) == (expected, True)


def test_weights_that_doubles_cannot_prove_go_to_cp_sat() -> None:
    weights = np.random.default_rng(5).integers(0, 2**31, size=(16, 16)).astype(np.int32)
    with pytest.raises(UserError, match=str(MAX_TOTAL)):
        solve(weights, "highs")
    solution = solve(weights)
    check_legal(weights, solution)
    assert (solution.method, solution.optimal) == ("cp_sat", True)
    assert solution.cost == held_karp(weights[None]).costs[0]


def test_a_proof_does_not_depend_on_the_size_of_the_weights() -> None:
    """Optima that differ by one unit are told apart next to weights as large as HiGHS accepts."""
    rng = np.random.default_rng(6)
    for _ in range(20):
        weights = draw("ties", 12, rng) + np.int32(MAX_TOTAL // 12 // 8) * (draw("ties", 12, rng) + 1)
        np.fill_diagonal(weights, 0)
        solution = solve_highs(weights)
        assert (solution.cost, solution.optimal) == (int(held_karp(weights[None]).costs[0]), True)


def test_heuristics_make_no_claim_and_never_beat_the_optimum() -> None:
    rng = np.random.default_rng(7)
    for kind in KINDS:
        weights = draw(kind, 12, rng)
        optimum = solve(weights).cost
        for method in set(METHODS) - set(EXACT):
            if kind.startswith("asymmetric") and ALGORITHMS[method].symmetric_only:
                continue
            solution = solve(weights, method, coordinates=rng.random((12, 2)))
            check_legal(weights, solution)
            assert (solution.optimal, solution.method) == (False, method)
            assert solution.cost >= optimum


@pytest.mark.parametrize("method", [*EXACT, "nearest_neighbour", "sweep"])
def test_no_method_takes_what_are_no_weights(method: str) -> None:
    good = draw("symmetric", 5, np.random.default_rng(8))
    for wrong, sentence in (
        (good[:4], r"shape \(n, n\)"),
        (good[None], r"shape \(n, n\)"),
        (good[:0, :0], r"shape \(n, n\)"),
        (good - 1, "whole numbers from 0 to 2147483647, got int32 from -1"),
        (good.astype(np.int64) << 31, "whole numbers from 0"),
        (good / 2, "whole numbers from 0"),
        (np.full((5, 5), np.nan), "got float64 from nan"),
    ):
        with pytest.raises(UserError, match=sentence):
            solve(wrong, method, coordinates=np.zeros((5, 2)))


def test_unusable_requests_end_in_one_sentence() -> None:
    weights = draw("symmetric", 16, np.random.default_rng(9))
    large = draw("symmetric", EXACT_CITIES + 1, np.random.default_rng(9))
    with pytest.raises(UserError, match="unknown solver 'magic'; known: auto"):
        solve(weights, "magic")
    for limit in (0, -1, float("nan")):
        with pytest.raises(UserError, match="positive number of seconds"):
            solve(weights, time_limit=limit)
    for method in EXACT:
        with pytest.raises(UserError, match="cities, got 201"):
            solve(large, method)
    assert solve(large, "greedy_edge").optimal is False
    with pytest.raises(UserError, match="sweep needs the coordinates"):
        solve(weights, "sweep")
    with pytest.raises(UserError, match="lookahead_3 takes at most 50 cities, got 201"):
        solve(large, "lookahead_3")


def rows_of(path: Path, method: str = "auto") -> list[dict]:
    return [tour_row(solved) for solved in solved_instances(read_instance_file(path), method)]


def test_a_file_gives_one_row_per_instance(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    batch = np.stack([draw("asymmetric", 6, rng) for _ in range(3)])
    np.savez(tmp_path / "three.npz", weights=batch)
    rows = rows_of(tmp_path / "three.npz")
    assert [row["name"] for row in rows] == ["three[0]", "three[1]", "three[2]"]
    assert [row["cost"] for row in rows] == held_karp(batch).costs.tolist()
    assert set(rows[0]) == {"name", "n", "method", "cost", "optimal", "tour", "seconds"}
    write_tsplib(tmp_path / "one.atsp", "one", batch[0])
    (row,) = rows_of(tmp_path / "one.atsp", "highs")
    assert (row["name"], row["n"], row["cost"], row["method"]) == ("one", 6, rows[0]["cost"], "highs")
    assert json.loads(json.dumps(row)) == row
    with pytest.raises(UserError, match="unknown solver"):
        solved_instances([], "magic")


def test_methods_are_the_exact_ones_and_the_library() -> None:
    assert set(METHODS) == {*EXACT, *ALGORITHMS}
    assert {name for name in ALGORITHMS if ALGORITHMS[name].exact} == set(EXACT) - {"auto", "cp_sat", "highs"}


def test_coordinates_of_a_file_reach_the_planar_rules(tmp_path: Path) -> None:
    points = np.array([[0, 0], [4, 4], [4, 0], [0, 4], [2, 1]], dtype=float)
    weights = np.ceil(np.linalg.norm(points[:, None] - points, axis=2)).astype(np.int32)
    np.savez(tmp_path / "square.npz", weights=weights, coordinates=points)
    (row,) = rows_of(tmp_path / "square.npz", "sweep")
    assert row["tour"] == [0, 4, 2, 1, 3]


def test_routing_uses_its_time_limit() -> None:
    weights = draw("symmetric", 40, np.random.default_rng(12))
    plain, longer = solve(weights, "routing"), solve(weights, "routing", time_limit=0.3)
    check_legal(weights, longer)
    assert longer.cost <= plain.cost
    assert longer.seconds >= 0.29


def test_what_other_packages_leave_in_builtins_does_not_stop_compilation(tmp_path: Path) -> None:
    """OR-Tools leaves something there that cannot be pickled; a first call with an empty cache follows."""
    code = (
        "import builtins, numpy as np\nbuiltins.left_behind = (i for i in ())\n"
        "from mesaprobe.solvers.exact.held_karp import held_karp\n"
        "print(held_karp(np.ones((1, 5, 5), dtype=np.int32)).costs[0])\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip() == "5", done.stderr[-500:]
    assert list(tmp_path.rglob("*fill_8*.nbc"))


TSPLIB = os.environ.get("MESAPROBE_TSPLIB", "")


@pytest.mark.skipif(not TSPLIB, reason="MESAPROBE_TSPLIB names no folder with *.tsp and optima.json")
def test_published_optima_are_proven() -> None:
    """By every exact method within its size; CP-SAT takes minutes beyond 30 cities."""
    optima = json.loads((Path(TSPLIB) / "optima.json").read_text())
    assert optima
    largest = {**EXACT_ALGORITHM_CITIES, "cp_sat": 30}
    for name, optimum in optima.items():
        weights = read_tsplib(Path(TSPLIB) / f"{name}.tsp").weights
        for method in exact_methods(weights):
            if len(weights) <= largest.get(method, len(weights)):
                solution = solve(weights, method, time_limit=120)
                assert (name, method, solution.cost, solution.optimal) == (name, method, optimum, True)


@pytest.mark.parametrize("kind", HOSTILE_KINDS)
def test_every_exact_method_agrees_on_hostile_weights(kind: str) -> None:
    for weights in draw_batch(kind, 9, 2, seed=1):
        methods = [name for name in exact_methods(weights) if name != "highs" or fits_highs(weights)]
        found = {name: solve(weights, name) for name in methods}
        assert {(solution.cost, solution.optimal) for solution in found.values()} == {
            (int(held_karp(weights[None]).costs[0]), True)
        }
        for solution in found.values():
            check_legal(weights, solution)
