"""Evidence of members is measured once per weights and protocol, stored line by line, and goes on after a break."""

import dataclasses
from pathlib import Path

import pytest

from mesaprobe.evidence import LINES, Line, LineResult
from mesaprobe.models.subject import Subject
from mesaprobe.problems import ProblemConfig
from mesaprobe.registry import Registry
from mesaprobe.zoo import calibrate as calibrate_module
from mesaprobe.zoo.build import build, certify_members
from mesaprobe.zoo.calibrate import SEED, calibrate
from mesaprobe.zoo.compiled.nearest import nearest_neighbour_network
from mesaprobe.zoo.members import ZOO, Compiled, Member
from mesaprobe.zoo.records import read_records
from mesaprobe.zoo.reference import optimal, rule

PROBLEM = ProblemConfig(n=5)
WALKER = Member(
    "walker",
    "nearest_neighbour",
    "heuristic",
    1,
    "nearest",
    Compiled(lambda: nearest_neighbour_network(PROBLEM.n, PROBLEM.levels)),
    rule("nearest_neighbour"),
    PROBLEM,
)
LIAR = dataclasses.replace(WALKER, name="liar", role="search", degree=5, family="enumeration", reference=optimal)
MEASURED: list[tuple[str, int]] = []


def counted(name: str) -> Line:
    def measure(subject: Subject, settings: object, seed: int) -> LineResult:  # noqa: ARG001
        MEASURED.append((name, seed))
        if name == "E9" and MEASURED.count((name, seed)) == 1:
            raise RuntimeError("a bug")
        return LineResult("ok", None, 0.25, (0.2, 0.3), 0.04)

    return Line(name, name, measure, {"quick": None})


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    MEASURED.clear()
    lines = Registry[Line]("line of evidence")
    for name in ("E3", "E9"):
        lines.add(name, counted(name))
    monkeypatch.setattr(LINES, "_members", lines._members)
    monkeypatch.setattr(ZOO, "_members", {**ZOO._members, "walker": WALKER, "liar": LIAR})
    monkeypatch.setattr(calibrate_module, "INSTANCES", 50)
    members = [WALKER, LIAR]
    assert not [o for o in build(tmp_path, members, 1) if o.failed]
    list(certify_members(tmp_path, members, 1))
    return tmp_path


def test_only_certified_members_only_new_lines(zoo: Path) -> None:
    records = zoo / "records"

    def run() -> dict[str, str]:
        outcomes = calibrate(zoo, [WALKER, LIAR], 1, budget="quick", lines=["E3", "E9"], folder=records)
        return {o.name: o.text for o in outcomes}

    first = run()
    assert "line E9 broke: RuntimeError: a bug" in first["walker"]
    assert "no passed certificate" in first["liar"]
    (record,) = read_records(records, "quick")
    assert set(record.lines) == set(record.unaided) == {"E3"}
    assert run()["walker"] == "2 figures measured, the others already there"
    assert run()["walker"] == "0 figures measured, the others already there"
    assert [name for name, _ in MEASURED] == ["E3", "E3", "E9", "E9", "E9"]
    assert {seed for _, seed in MEASURED} == {SEED}
    (record,) = read_records(records, "quick")
    assert (record.name, record.role, record.family, record.n) == ("walker", "heuristic", "nearest_neighbour", 5)
    assert record.lines["E9"].value == 0.25
    assert record.performance.legal_fraction == 1.0
    assert 0 < record.performance.gap[1] < record.performance.gap[0] < record.performance.random_gap[0]


def test_a_line_that_changed_is_measured_again(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = zoo / "records"
    arguments = {"budget": "quick", "lines": ["E3"], "folder": records}
    list(calibrate(zoo, [WALKER], 1, **arguments))  # type: ignore[arg-type]
    changed = {**LINES._members, "E3": dataclasses.replace(LINES["E3"], version=2)}
    monkeypatch.setattr(LINES, "_members", changed)
    (outcome,) = calibrate(zoo, [WALKER], 1, **arguments)  # type: ignore[arg-type]
    assert outcome.text == "2 figures measured, the others already there"
