"""An analysis that is cut off goes on where it stopped, and ends with the same numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_networks import network

from mesaprobe.analysis.analysis import analyze
from mesaprobe.analysis.estimate import estimate_words, expected_seconds
from mesaprobe.analysis.unfinished import FinishedLines
from mesaprobe.evidence import BUDGETS, LINES, Budget, Line, LineResult
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.registry import Registry

MEASURED: list[str] = []


def counted(name: str, *, stops: bool = False) -> Line:
    def measure(subject: Subject, settings: object, seed: int) -> LineResult:  # noqa: ARG001
        MEASURED.append(name)
        if stops and MEASURED.count(name) == 1:
            raise KeyboardInterrupt
        rng = np.random.default_rng(seed)
        value = float(rng.normal())
        table = pd.DataFrame([{"quantity": "x", "value": value}])
        return LineResult("ok", None, value, (value - 1, value + 1), 0.5, table=table, arrays={"a": rng.random(3)})

    return Line(name, name, measure, {"quick": None})


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    MEASURED.clear()
    lines = Registry[Line]("line of evidence")
    for line in (counted("E3"), counted("E9", stops=True)):
        lines.add(line.id, line)
    monkeypatch.setattr(LINES, "_members", lines._members)
    monkeypatch.setattr(BUDGETS, "_members", {"quick": Budget("quick", 60)})
    return ModuleSubject(network(), make_problem(ProblemConfig(n=6)))


def test_lines_that_were_done_are_not_measured_again_and_give_the_same(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        analyze(subject, finished=FinishedLines(tmp_path, subject, "quick", 3), seed=3)
    resumed = analyze(subject, finished=FinishedLines(tmp_path, subject, "quick", 3), seed=3)
    assert MEASURED == ["E3", "E9", "E9"]
    whole = analyze(subject, seed=3)
    for again, line in zip(resumed.lines, whole.lines, strict=True):
        assert (again.value, again.ci, again.p, again.id) == (line.value, line.ci, line.p, line.id)
        np.testing.assert_array_equal(again.arrays["a"], line.arrays["a"])
        assert again.table is not None
        assert again.table.equals(line.table)


def test_kept_lines_are_only_for_the_same_weights_and_seed(subject: Subject, tmp_path: Path) -> None:
    kept = FinishedLines(tmp_path, subject, "quick", 3)
    kept.write(LINES["E3"](subject, "quick", 3))
    assert kept.read("E3") is not None
    assert kept.read("E9") is None
    assert FinishedLines(tmp_path, subject, "quick", 4).read("E3") is None
    assert FinishedLines(tmp_path, subject.random_twin(1), "quick", 3).read("E3") is None
    kept.clear()
    assert kept.read("E3") is None
    assert not list(tmp_path.iterdir())


def test_an_estimate_is_never_invented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mesaprobe.analysis.estimate.records_folder", lambda: tmp_path)
    assert expected_seconds(800_000, "quick", ["E3"]) is None
    assert "no record" in estimate_words(800_000, "quick", ["E3"])
