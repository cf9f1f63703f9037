"""The curriculum study: pairing, tiers, differences, and that it trains nothing twice."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import TINY

from mesaprobe.cli import main
from mesaprobe.errors import UserError
from mesaprobe.labels.tiers import TIERS
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.studies import curriculum
from mesaprobe.studies.curriculum import CurriculumDesign, CurriculumResults, run_curriculum, table_rows
from mesaprobe.studies.whole_system import discordant_states_of

DESIGN = CurriculumDesign(
    dataclasses.replace(TINY, problem=ProblemConfig(n=8), steps=4, evaluate_every=4, batch_size=8),
    seeds=(0, 1, 2),
    held_out=600,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CurriculumResults]:
    folder = tmp_path_factory.mktemp("curriculum")
    return folder, run_curriculum(DESIGN, folder)


def test_tiers_make_up_the_whole_and_differences_are_paired(study: tuple[Path, CurriculumResults]) -> None:
    for measure in ("gap", "discordant accuracy"):
        rows = {row.tier: row for row in study[1].comparisons if row.measure == measure}
        weight = {tier: row.instances if row.decisions is None else row.decisions for tier, row in rows.items()}
        tiers = [tier for tier in TIERS if tier in rows]
        assert sum(weight[tier] for tier in tiers) == weight["all"]
        mean = sum(weight[tier] * rows[tier].orders["none"].value for tier in tiers) / weight["all"]
        assert mean == pytest.approx(rows["all"].orders["none"].value)
        for row in rows.values():
            plain, ordered = ([each.value for each in row.networks[order]] for order in ("none", "easy_to_hard"))
            assert [pair.value for pair in row.pairs] == pytest.approx(np.subtract(ordered, plain))
            assert row.difference.value == pytest.approx(row.orders["easy_to_hard"].value - row.orders["none"].value)
            assert row.difference.low <= row.difference.value <= row.difference.high
            assert row.p >= study[1].smallest_p == 0.25
    assert "none can reach p < .05" in study[1].note
    assert study[1].instances_trained_on == 32


def test_trains_nothing_twice_and_gives_the_same_numbers(
    study: tuple[Path, CurriculumResults], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, first = study
    written = (folder / "results.json").read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    assert len(before) == 6
    monkeypatch.setattr(curriculum, "CurriculumDesign", lambda: DESIGN)
    main(["study", "curriculum", "--out", str(folder), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == json.loads(json.dumps(table_rows(first)))
    assert (folder / "results.json").read_text() == written
    assert {path: path.stat().st_mtime_ns for path in before} == before
    main(["study", "curriculum", "--out", str(folder)])
    assert "easy to hard" in capsys.readouterr().out
    with pytest.raises(UserError):
        run_curriculum(dataclasses.replace(DESIGN, run=dataclasses.replace(DESIGN.run, steps=5)), folder)


def test_discordant_states_name_their_instance() -> None:
    rng = np.random.default_rng(0)
    instances = make_problem(ProblemConfig(n=8)).draw(300, rng)
    states = discordant_states_of(instances, rng)
    assert len(states.origin) > 0
    assert np.array_equal(states.instances.weights, instances.weights[states.origin])
