"""Evaluation sets: every label true, cells even, weights back to nature; and the cache that they live in."""

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaprobe.errors import UserError
from mesaprobe.labels import (
    EvaluationSet,
    EvaluationSetConfig,
    decision_steps,
    evaluation_set,
    instance_tiers,
    label_decisions,
    relative_margins,
)
from mesaprobe.labels import cache as cache_module
from mesaprobe.labels import evaluation_sets as sets_module
from mesaprobe.labels.cache import cached_arrays
from mesaprobe.labels.evaluation_sets import TOP_NEED, cell_quotas, even_shares
from mesaprobe.problems import ProblemConfig, ceil_distances
from mesaprobe.solvers.exact.held_karp import action_values, held_karp

SMALL = EvaluationSetConfig(ProblemConfig(n=8), instances=1500, states_per_need=60)
ARRAYS = ("tours", "rows", "steps", "needs", "margins", "tiers", "cells", "natural")


def same(one: EvaluationSet, other: EvaluationSet) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)
    return arrays and np.array_equal(one.instances.weights, other.instances.weights) and one.outside == other.outside


# ---- what is in a set -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["matrix", "asymmetric", "euclidean"])
def test_every_label_of_a_state_is_true(family: str) -> None:
    config = EvaluationSetConfig(ProblemConfig(family, n=8), instances=1500, states_per_need=60)
    states = evaluation_set(config)
    weights, steps = states.instances.weights, decision_steps(states.instances.problem)
    optimum = held_karp(weights).costs
    np.testing.assert_array_equal(states.instances.tour_costs(states.tours), optimum)
    values = action_values(weights, states.tours)
    labels = label_decisions(states.instances, states.tours, which=["needs"])
    np.testing.assert_array_equal(states.pick(labels.needs), states.needs)
    np.testing.assert_array_equal(
        relative_margins(weights, states.tours, values)[states.rows, states.steps], states.margins
    )
    np.testing.assert_array_equal(instance_tiers(states.instances, optimum)[states.rows], states.tiers)
    assert ((states.steps >= steps.start) & (states.steps < steps.stop)).all()
    np.testing.assert_array_equal(states.cells[:, 0], np.minimum(states.needs, TOP_NEED))
    np.testing.assert_array_equal(states.cells[:, 2], states.tiers)
    edges = np.array([*config.margin_edges, np.inf])
    low, high = edges[states.cells[:, 1]], edges[states.cells[:, 1] + 1]
    assert ((states.margins >= low) & (states.margins < high)).all()
    assert len(np.unique(states.rows * 8 + states.steps)) == len(states), "no decision is there twice"
    assert set(states.rows) == set(range(len(states.instances)))
    if family == "euclidean":
        np.testing.assert_array_equal(ceil_distances(states.instances.coordinates), weights)


def test_the_set_is_even_where_it_can_be_and_counts_everything() -> None:
    states = evaluation_set(SMALL)
    drawn = SMALL.instances * 3  # decisions of an instance with n = 8
    assert states.natural.sum() + states.outside == drawn
    assert 0 < states.outside < drawn / 5
    np.testing.assert_array_equal(states.kept, cell_quotas(states.natural, SMALL.states_per_need))
    per_need = states.kept.sum(axis=(1, 2))
    assert per_need.tolist() == np.minimum(states.natural.sum(axis=(1, 2)), 60).tolist()
    assert states.natural[0].sum() > 10 * states.natural[TOP_NEED].sum(), "naturally they are far from even"
    assert ((states.kept > 0) == (states.natural > 0)).all()
    rows = states.table()
    assert sum(row.kept for row in rows) == len(states)
    assert sum(row.natural for row in rows) == states.natural.sum()
    assert {row.need for row in rows} == {"0", "1", "2", "3", "4+"}
    assert {row.margin for row in rows} == {"0.02-0.05", "0.05-0.1", "0.1+"}


def test_the_same_seed_gives_the_same_set_and_another_seed_another() -> None:
    once = evaluation_set(SMALL)
    assert same(once, evaluation_set(SMALL))
    assert not same(once, evaluation_set(replace(SMALL, seed=1)))


@settings(max_examples=200, deadline=None)
@given(available=st.lists(st.integers(0, 40), min_size=1, max_size=6), total=st.integers(0, 120))
def test_shares_are_as_even_as_what_is_available_allows(available: list[int], total: int) -> None:
    shares = even_shares(np.array(available), total)
    assert shares.sum() == min(total, sum(available))
    assert ((shares >= 0) & (shares <= available)).all()
    for share, most in zip(shares, available, strict=True):
        assert share == most or share >= shares.max() - 1


# ---- importance weights -----------------------------------------------------------------------------------------


def natural_and_balanced(seed: int, instances: int, per_need: int) -> tuple[EvaluationSet, EvaluationSet]:
    """All decisions of one draw that belong to a cell, and the set balanced from it."""
    config = EvaluationSetConfig(ProblemConfig(n=7), instances, states_per_need=per_need, seed=seed)
    return evaluation_set(replace(config, states_per_need=10 * instances)), evaluation_set(config)


def measurements(states: EvaluationSet) -> dict[str, np.ndarray]:
    """Numbers that vary within a cell."""
    weights = states.instances.weights
    return {
        "step": states.steps.astype(float),
        "margin": states.margins,
        "first weight": weights[states.rows, 0, 1].astype(float),
        "tour length": states.instances.tour_costs(states.tours)[states.rows].astype(float),
    }


def deviation(everything: EvaluationSet, states: EvaluationSet, name: str) -> float:
    """How many standard errors (states drawn within cells, without replacement) the weighted mean is off."""
    full, values = measurements(everything)[name], measurements(states)[name]
    variance = 0.0
    for cell in np.argwhere(states.natural):
        inside = full[(everything.cells == cell).all(axis=1)]
        natural, kept = states.natural[tuple(cell)], states.kept[tuple(cell)]
        if kept < natural:
            share = natural / states.natural.sum()
            variance += share**2 * inside.var(ddof=1) / kept * (1 - kept / natural)
    return float((values @ states.weights - full.mean()) / np.sqrt(variance))


def test_weights_give_every_cell_its_natural_share() -> None:
    states = evaluation_set(SMALL)
    totals = np.zeros_like(states.natural, dtype=float)
    np.add.at(totals, tuple(states.cells.T), states.weights)
    np.testing.assert_allclose(totals, states.natural / states.natural.sum(), rtol=1e-12)


def test_a_set_that_holds_everything_weighs_everything_alike() -> None:
    everything, _ = natural_and_balanced(0, 300, 60)
    np.testing.assert_array_equal(everything.kept, everything.natural)
    np.testing.assert_allclose(everything.weights, 1 / len(everything))


def test_weighted_means_are_natural_means_within_sampling_error() -> None:
    pairs = [natural_and_balanced(seed, 400, 30) for seed in range(40)]
    for name in measurements(pairs[0][1]):
        off = np.array([deviation(*pair, name) for pair in pairs])
        assert abs(off.mean()) < 3.5 / np.sqrt(40), f"{name}: the weighted mean is biased"
        assert 0.6 < off.std() < 1.5, f"{name}: the deviations are not those of sampling"
    bare = [np.mean(balanced.margins) - np.mean(everything.margins) for everything, balanced in pairs]
    assert abs(np.mean(bare)) > 10 * np.std(bare) / np.sqrt(40), "without weights the means differ"


# ---- the cache --------------------------------------------------------------------------------------------------


def refuse() -> dict[str, np.ndarray]:
    raise AssertionError("the cache was not used")


def test_a_set_comes_back_from_the_cache_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, problem=ProblemConfig("euclidean", n=7), instances=300)
    drawn = evaluation_set(config, tmp_path / "new" / "folder")
    assert same(drawn, evaluation_set(config))
    monkeypatch.setattr(sets_module, "_draw", lambda _: refuse())
    read = evaluation_set(config, tmp_path / "new" / "folder")
    assert same(drawn, read)
    np.testing.assert_array_equal(read.instances.coordinates, drawn.instances.coordinates)
    np.testing.assert_array_equal(read.weights, drawn.weights)
    with pytest.raises(AssertionError, match="was not used"):
        evaluation_set(replace(config, seed=1), tmp_path / "new" / "folder")


def entry(folder: Path) -> tuple[Path, Path]:
    """The pointer and the array file of the only entry."""
    (pointer,), (data,) = folder.glob("*.json"), folder.glob("*.npz")
    return pointer, data


def ask(folder: Path, value: int, request: str = "r") -> int:
    arrays = cached_arrays(folder, {"request": request}, lambda: {"a": np.full(1000, value), "b": np.array(value)})
    assert (arrays["a"] == arrays["b"]).all()
    return int(arrays["b"])


def flipped(content: bytes) -> bytes:
    """One bit in the middle is wrong."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def other_arrays(_: bytes) -> bytes:
    """A whole array file that is not the one pointed to."""
    buffer = io.BytesIO()
    np.savez(buffer, a=np.full(1000, 9), b=np.array(9))
    return buffer.getvalue()


def other_request(content: bytes) -> bytes:
    return content.replace(b'"request": "r"', b'"request": "s"')


@pytest.mark.parametrize(
    "damage", [flipped, other_arrays, lambda content: content[:-40], lambda _: b"", lambda _: None]
)
def test_damaged_arrays_are_computed_anew_and_mended(damage: Callable[[bytes], bytes | None], tmp_path: Path) -> None:
    assert ask(tmp_path, 1) == 1
    assert ask(tmp_path, 2) == 1, "an entry that is whole is used"
    overwrite(entry(tmp_path)[1], damage)
    assert ask(tmp_path, 3) == 3
    assert ask(tmp_path, 4) == 3


@pytest.mark.parametrize(
    "damage",
    [other_request, lambda content: content[:-9], *(lambda _, new=new: new for new in (b"", b"[1]", b"{}", b"\xff"))],
)
def test_damaged_pointers_are_computed_anew_and_mended(damage: Callable[[bytes], bytes | None], tmp_path: Path) -> None:
    assert ask(tmp_path, 1) == 1
    overwrite(entry(tmp_path)[0], damage)
    assert ask(tmp_path, 3) == 3
    assert ask(tmp_path, 4) == 3


def overwrite(file: Path, damage: Callable[[bytes], bytes | None]) -> None:
    """Replace the content by what the damage makes of it; None deletes the file."""
    before = file.read_bytes()
    after = damage(before)
    assert after != before
    if after is None:
        file.unlink()
    else:
        file.write_bytes(after)


def test_requests_and_code_have_entries_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(tmp_path, 1, "one") == 1
    assert ask(tmp_path, 2, "two") == 2
    monkeypatch.setattr(cache_module, "_code_hash", lambda: "other code")
    assert ask(tmp_path, 3, "one") == 3
    monkeypatch.undo()
    assert ask(tmp_path, 4, "one") == 1
    assert cached_arrays(None, {}, lambda: {"a": np.zeros(1)}).keys() == {"a"}


def test_files_hold_plain_arrays_and_say_what_was_asked(tmp_path: Path) -> None:
    evaluation_set(replace(SMALL, instances=200), tmp_path)
    pointer, data = entry(tmp_path)
    content = json.loads(pointer.read_text())
    assert content["request"]["evaluation_set"]["problem"]["family"] == "matrix"
    assert content["request"]["evaluation_set"]["margin_edges"] == [0.02, 0.05, 0.1]
    assert content["data"] == data.stem
    with np.load(data, allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} <= {"i", "f"}


def test_writers_at_once_leave_one_whole_answer(tmp_path: Path) -> None:
    """Sixteen threads meet in the middle of the same question, each with an answer of its own."""
    barrier, answers = threading.Barrier(16), []

    def write(value: int) -> None:
        def compute() -> dict[str, np.ndarray]:
            barrier.wait()
            return {"a": np.full(1000, value), "b": np.array(value)}

        answers.append(int(cached_arrays(tmp_path, {}, compute)["b"]))

    threads = [threading.Thread(target=write, args=(value,)) for value in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(16)), "everyone returns what it computed"
    arrays = cached_arrays(tmp_path, {}, refuse)
    assert (arrays["a"] == arrays["b"]).all()
    assert len(list(tmp_path.glob("*.json"))) == 1
    assert not list(tmp_path.glob("*.partial"))


def test_processes_share_a_folder(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mesaprobe.problems import ProblemConfig\n"
        "from mesaprobe.labels import EvaluationSetConfig, evaluation_set\n"
        "config = EvaluationSetConfig(ProblemConfig(n=8), instances=1500, states_per_need=60)\n"
        "states = evaluation_set(config, Path(sys.argv[1])); print(len(states), float(states.weights @ states.margins))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    ours = evaluation_set(SMALL, tmp_path)
    assert printed == {f"{len(ours)} {float(ours.weights @ ours.margins)}\n"}
    entry(tmp_path)


# ---- what cannot be done ----------------------------------------------------------------------------------------


def test_impossible_sets_end_in_one_sentence(tmp_path: Path) -> None:
    problem = ProblemConfig(n=8)
    with pytest.raises(UserError, match=r"must be fractions that increase from 0 or more, got \(0.1, 0.05\)"):
        EvaluationSetConfig(problem, margin_edges=(0.1, 0.05))
    with pytest.raises(UserError, match="states_per_need must be at least 15, one for every margin and tier, got 14"):
        EvaluationSetConfig(problem, states_per_need=14)
    with pytest.raises(UserError, match="instances must be at least 1, got 0"):
        EvaluationSetConfig(problem, instances=0)
    with pytest.raises(UserError, match="matrix with n = 5 has no decisions; take more cities"):
        EvaluationSetConfig(ProblemConfig(n=5))
    hopeless = EvaluationSetConfig(problem, instances=50, margin_edges=(20.0,))
    with pytest.raises(
        UserError, match=r"none of 150 decisions of matrix, n = 8, has a margin of at least 20.0; lower"
    ):
        evaluation_set(hopeless)
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(UserError, match="cannot create the folder"):
        evaluation_set(SMALL, occupied)
