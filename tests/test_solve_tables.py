"""`mesaprobe solve`: every table for files and drawn instances, the page, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from hostile_weights import KINDS, draw_batch
from test_cli import refused

from mesaprobe.cli import main
from mesaprobe.errors import UserError
from mesaprobe.labels.command import COLUMNS
from mesaprobe.labels.reference_tables import REFERENCE_PROBLEMS, gap_table, heuristic_gaps
from mesaprobe.labels.state_table import state_rows
from mesaprobe.problems import ProblemConfig
from mesaprobe.problems.npz import NamedInstance
from mesaprobe.problems.tsplib import write_tsplib
from mesaprobe.report.solve_page import gap_curves, render_solutions, tree_places
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound_totals, branch_and_bound_trace
from mesaprobe.solvers.exact.held_karp import action_values, held_karp
from mesaprobe.solvers.exact.search_trace import NO_INCUMBENT, SearchTrace
from mesaprobe.solvers.tables import bound_row, drawn_instances, search_row, solved_instances, trace_rows

DRAWN = ["solve", "--problem.family", "matrix", "--problem.n", "8", "--count", "3", "--seed", "5"]


def named(weights: np.ndarray, name: str = "one") -> NamedInstance:
    return NamedInstance(name, weights)


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict]:
    capsys.readouterr()
    main([*arguments, "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_drawn_instances_are_solved_from_their_seed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = printed(DRAWN, capsys)
    assert [row["name"] for row in rows] == ["matrix8[0]", "matrix8[1]", "matrix8[2]"]
    assert set(rows[0]) == {"name", "n", "method", "cost", "optimal", "tour", "seconds"}
    again = printed(DRAWN, capsys)
    assert [row["tour"] for row in again] == [row["tour"] for row in rows]
    assert [row["cost"] for row in printed([*DRAWN, "--seed", "6"], capsys)] != [row["cost"] for row in rows]
    for method in ("branch_and_bound", "reduced_cost_search", "cp_sat", "highs"):
        found = printed([*DRAWN, "--method", method], capsys)
        assert [(row["cost"], row["optimal"]) for row in found] == [(row["cost"], True) for row in rows]
    heuristic = printed([*DRAWN, "--method", "beam_4"], capsys)
    assert all(one["cost"] >= row["cost"] and one["optimal"] is False for one, row in zip(heuristic, rows, strict=True))


@pytest.mark.parametrize("table", COLUMNS)
def test_every_table_has_its_columns_in_json_and_on_the_screen(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = draw_batch("asymmetric", 6, 1, seed=0)[0]
    write_tsplib(tmp_path / "six.atsp", "six", weights)
    for arguments in (["solve", str(tmp_path / "six.atsp")], DRAWN):
        rows = printed([*arguments, "--table", table], capsys)
        assert all(set(COLUMNS[table]) <= set(row) for row in rows)  # type: ignore[index]
        main([*arguments, "--table", table])
        assert all(word in capsys.readouterr().out for word in {row["name"] for row in rows[:1]})


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_lie_below_the_optimum_and_its_heuristics_above(kind: str) -> None:
    for weights in draw_batch(kind, 9, 3, seed=1):
        (exact,) = solved_instances([named(weights)])
        row = bound_row(exact)
        assert max(row["mst"], row["one_tree"], row["ascent"], row["assignment"]) <= row["cost"]
        assert row["mst"] <= row["one_tree"] <= row["ascent"]
        assert row["gap"] is None or row["gap"] >= 0
        (rule,) = solved_instances([named(weights)], "greedy_edge")
        assert bound_row(rule)["cost"] >= row["cost"]


@pytest.mark.parametrize("kind", KINDS)
def test_proven_bounds_rise_to_the_optimum(kind: str) -> None:
    """Against the definition: the least bound of all nodes that could still be visited."""
    for weights in draw_batch(kind, 6, 4, seed=2):
        trace = branch_and_bound_trace(weights)
        proven = trace.proven_bounds()
        assert (np.diff(proven) >= 0).all()
        assert proven[-1] == trace.cost == held_karp(weights[None]).costs[0]
        for node in range(len(trace)):
            assert proven[node] == least_open_bound(trace, node)
        points, incumbents, lower = gap_curves(trace)
        assert (points[-1], incumbents[-1], lower[-1]) == (len(trace), trace.cost, trace.cost)
        assert (lower <= np.minimum(incumbents, trace.cost)).all()
        assert (np.diff(incumbents) <= 0).all()


def least_open_bound(trace: SearchTrace, node: int) -> int:
    """The incumbent after `node`, and the parents of all nodes that the whole search could still reach: every expanded
    node of which some child has not been visited."""
    n = len(trace.weights)
    seen = np.bincount(trace.parents[1 : node + 1], minlength=node + 1)
    left = [int(trace.bounds[i]) for i in range(node + 1) if trace.events[i] == 0 and seen[i] < n - trace.depths[i]]
    tours = [int(trace.bounds[i]) for i in range(node + 1) if trace.events[i] == 2]
    return min([*left, *tours, NO_INCUMBENT])


def test_totals_and_trace_are_those_of_the_same_search() -> None:
    instance = drawn_instances(ProblemConfig("asymmetric", 7), 1, seed=3)[0]
    totals, rows = search_row(instance), list(trace_rows(instance))
    assert totals["nodes"] == len(rows)
    assert totals["finding_nodes"] == sum(row["phase"] == "finding" for row in rows)
    assert totals["incumbents"] == sum(row["event"] == "incumbent" for row in rows)
    assert (totals["cost"], totals["optimal"]) == (rows[-1]["proven_bound"], True)
    assert rows[0]["incumbent"] is None
    assert totals["backtracks"] == branch_and_bound_totals(instance.weights[None]).backtracks[0]


@pytest.mark.parametrize("kind", ["random", "ties", "zeros", "asymmetric", "asymmetric ties"])
def test_rows_of_states_hold_what_dynamic_programming_says(kind: str) -> None:
    weights = draw_batch(kind, 7, 1, seed=4)
    tour = held_karp(weights).tours
    values = action_values(weights, tour)[0]
    for row in state_rows(named(weights[0])):
        at = values[row["step"]]
        assert row["prefix"] == tour[0, : row["step"] + 1].tolist()
        assert row["value"] == at.min()
        assert row["optimal_cities"] == np.flatnonzero(at == at.min()).tolist()
        assert {action["city"]: action["value"] for action in row["actions"]} == {
            int(city): at[city] for city in np.flatnonzero(np.isfinite(at))
        }
        for action in row["actions"]:
            assert action["regret"] == action["value"] - row["value"]
            assert action["mst"] <= action["value"] <= action["longest_value"]
            shares = sum(share for u, v, share in action["edges"])
            assert shares == pytest.approx(7 - row["step"])
        assert row["best_tours"][0]["cost"] == row["prefix_cost"] + row["value"]
        json.dumps(row, allow_nan=False)


def test_the_page_draws_the_tour_the_gap_and_the_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "solved.html"
    main([*DRAWN, "--plot", str(page)])
    assert capsys.readouterr().err.strip() == str(page)
    text = page.read_text()
    for index in range(3):
        for name in ("tour", "gap", "tree"):
            assert f'data-plot="plot-{name}-{index}"' in text
    assert "http://" not in text.split("<script>")[0]
    for kind, n in (("random", 2), ("asymmetric", 3), ("zeros", 5), ("random", 24)):
        (solved,) = solved_instances([named(draw_batch(kind, n, 1, seed=0)[0], "<b>")])
        text = render_solutions([solved], page).read_text()
        assert "<b>" not in text.split("<script>")[0]
        assert ("plot-tree-0" in text) == (n <= 20)


def test_a_tree_is_drawn_with_its_leaves_in_the_order_of_visits() -> None:
    trace = branch_and_bound_trace(draw_batch("random", 7, 1, seed=6)[0])
    places = tree_places(trace.parents)
    leaves = np.setdiff1d(np.arange(len(trace)), trace.parents)
    assert places[leaves].tolist() == list(range(len(leaves)))
    for node in np.unique(trace.parents[1:]):
        children = places[np.flatnonzero(trace.parents == node)]
        assert places[node] == (children[0] + children[-1]) / 2


def test_unusable_requests_end_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in (1, 2, 3, 24):
        weights = draw_batch("asymmetric", n, 1, seed=0)[0] if n > 1 else np.zeros((1, 1), dtype=np.int32)
        write_tsplib(tmp_path / f"{n}.atsp", str(n), weights)
    one, three = str(tmp_path / "1.atsp"), str(tmp_path / "3.atsp")
    assert "name a file, or draw instances with" in refused(["solve"], capsys)
    assert "not both" in refused(["solve", three, "--problem.n", "8"], capsys)
    assert "not both" in refused(["solve", three, "--count", "2"], capsys)
    assert "at least 1, got 0" in refused(["solve", "--count", "0"], capsys)
    assert "about drawn instances; leave out" in refused(["solve", three, "--table", "ties"], capsys)
    assert "leave it out with --table gaps" in refused(["solve", "--table", "gaps", "--plot", "x.html"], capsys)
    assert "at least 2 instances, got 1" in refused(["solve", "--table", "gaps", "--count", "1"], capsys)
    assert "problem.n must be at least 4" in refused(["solve", "--problem.n", "3"], capsys)
    assert "takes 2 to 200 cities, got 1" in refused(["solve", one, "--plot", str(tmp_path / "x.html")], capsys)
    assert "unknown solver 'magic'" in refused([*DRAWN, "--method", "magic"], capsys)
    for table in ("bounds", "search", "trace"):
        assert "n >= 2" in refused(["solve", one, "--table", table], capsys)
    for n in (1, 2, 3, 24):
        assert f"has n = {n}; labels of states need" in refused(
            ["solve", str(tmp_path / f"{n}.atsp"), "--table", "states"], capsys
        )
    for method, sentence in (
        ("branch_and_bound", "branch_and_bound takes at most 20 cities, got 24"),
        ("beam_16", None),
        ("walk_values_4", None),
    ):
        arguments = ["solve", str(tmp_path / "24.atsp"), "--method", method]
        if sentence:
            assert sentence in refused(arguments, capsys)
        else:
            assert len(printed(arguments, capsys)[0]["tour"]) == 24
    assert "takes symmetric weights only" in refused([*arguments[:-1], "reduced_cost_search"], capsys)


# ---- reference tables -------------------------------------------------------------------------------------------


def test_gaps_and_ties_are_printed_as_markdown_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    cell = ["solve", "--problem.family", "asymmetric", "--problem.n", "6", "--count", "50"]
    rows = printed([*cell, "--table", "gaps"], capsys)
    assert {row["heuristic"] for row in rows} == {
        name for name, rule in ALGORITHMS_BY_NAME.items() if not (rule.exact or rule.planar or rule.symmetric_only)
    }
    main([*cell, "--table", "gaps"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| heuristic | degree | asymmetric 6 |"
    assert len(lines) == 2 + len(rows)
    (row,) = printed([*cell, "--table", "ties"], capsys)
    assert (row["family"], row["n"], row["instances"]) == ("asymmetric", 6, 50)
    main([*cell, "--table", "ties"])
    assert capsys.readouterr().out.splitlines()[2].startswith("| asymmetric 6 | 50 | 100 |")


ALGORITHMS_BY_NAME = {name: ALGORITHMS[name] for name in ALGORITHMS}
README = Path(__file__).parents[1] / "mesaprobe" / "solvers" / "README.md"
DRAWS_OR_DEPENDS_ON_A_PACKAGE = ("annealing", "routing")


def readme_cells() -> dict[str, list[str]]:
    """Lines of the table of gaps: name -> cells after the degree."""
    lines = [line.strip("| \n").split(" | ") for line in README.read_text().splitlines() if line.startswith("| ")]
    start = lines.index(next(line for line in lines if line[0] == "heuristic"))
    table = lines[start:]
    return {line[0]: line[2:] for line in table if line[0] in ALGORITHMS_BY_NAME or line[0] == "heuristic"}


@pytest.mark.parametrize("config", [REFERENCE_PROBLEMS[0], REFERENCE_PROBLEMS[3], REFERENCE_PROBLEMS[6]], ids=str)
def test_the_reference_table_is_what_its_command_prints(config: ProblemConfig) -> None:
    cells = readme_cells()
    assert cells["heuristic"] == [f"{problem.family} {problem.n}" for problem in REFERENCE_PROBLEMS]
    column = REFERENCE_PROBLEMS.index(config)
    names = [name for name in ALGORITHMS if name not in DRAWS_OR_DEPENDS_ON_A_PACKAGE]
    for row in heuristic_gaps(config, names=names):
        expected = gap_table([row]).splitlines()[2].strip("| ").split(" | ")[2]
        assert cells[row.heuristic][column] == expected, row.heuristic
    with pytest.raises(UserError, match="at least 2 instances"):
        next(heuristic_gaps(config, 1))
