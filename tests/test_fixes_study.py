"""The fixes study: pairing, matching, the words, and that it goes on where it stopped."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mesaprobe.cli import main
from mesaprobe.errors import UserError
from mesaprobe.models import GPTConfig, TourGPT, gpt_subject
from mesaprobe.models.subject import Subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.studies import cells, fixes, retention
from mesaprobe.studies.contrasts import contrasts, exact_sign_flip, mean_over_seeds
from mesaprobe.studies.design import FixesDesign, RetentionDesign
from mesaprobe.studies.inner_evidence import InnerEvidence
from mesaprobe.studies.page import write_page
from mesaprobe.studies.whole_system import discordant_states, single_pass_accuracy, system_accuracy
from mesaprobe.training.config import EditingConfig

TINY = FixesDesign(
    seeds=(0, 1),
    model=GPTConfig(d_model=16, n_layers=1, n_heads=2, d_mlp=16),
    steps=4,
    evaluate_every=2,
    batch_size=8,
    discordant_instances=400,
    editing=EditingConfig(edits_per_city=1),
    retention=RetentionDesign(searchers=("lookahead-2",), steps=(0, 2), batch_size=4),
)


def _evidence(subject: Subject, *_: object, **__: object) -> InnerEvidence:
    """A made-up score that depends on the weights alone."""
    value = int(subject.weights_hash[:4], 16) / 65536
    return InnerEvidence(value, value, 0.1, 0.4, value, value - 0.1, value + 0.1, "INCONCLUSIVE", None, None, 0.2)


def test_a_study_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "measure_inner", _evidence)
    monkeypatch.setattr(retention, "measure_inner", _evidence)

    def stop(stage: str) -> None:
        if stage == "training A2, seed 1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fixes.run_fixes(TINY, tmp_path / "cut", tmp_path, stop)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("model.safetensors")}
    assert len(done) == 6
    cut = fixes.run_fixes(TINY, tmp_path / "cut", tmp_path)
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())
    whole = fixes.run_fixes(TINY, tmp_path / "whole", tmp_path)
    assert cut == whole
    assert [cell["arm"] for cell in whole.cells] == ["A0", "A1", "A2", "A4"] * 2
    assert all(cell["system"] >= whole.level for cell in whole.cells)
    assert {contrast.word for contrast in whole.contrasts} == {"not shown"}, "two pairs can show nothing"
    rows = fixes.table_rows(whole)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    page = write_page(whole, tmp_path / "whole").read_text()
    assert "no inner search to prevent at this scale" in page
    assert "nan" not in page.split("<script")[0].lower()
    with pytest.raises(UserError, match="another design"):
        fixes.run_fixes(dataclasses.replace(TINY, steps=6), tmp_path / "cut", tmp_path)


def test_words_follow_the_method_and_nothing_else() -> None:
    plain, low, powered = [2.0, 2.2, 1.9, 2.1, 2.0, 2.3], [-3.0, -3.1, -2.9, -3.2, -2.8, -3.0], {"A1": True}

    def word(arm: list[float], negatives: float | None = 0.0, power: bool | None = True) -> str:
        return contrasts(plain, {"A1": arm}, negatives, {"A1": power})[0].word

    assert contrasts(plain, {"A1": low}, 0.0, powered)[0].p == pytest.approx(1 / 64)
    assert word(low) == "prevents"
    assert word(low, negatives=-4.0) == "reduced", "not below the zoo's heuristics"
    assert word(low, power=None) == "reduced", "no power"
    assert word(low, negatives=None) == "reduced"
    assert word([5.0] * 6) == "not shown"
    assert contrasts(plain[:4], {"A1": low[:4]}, 0.0, powered)[0].word == "not shown", "4 pairs: p is 1/16 at best"
    both = contrasts(plain, {"A1": low, "A2": plain}, 0.0, {})
    assert both[0].p_holm == pytest.approx(2 / 64)


def test_the_exact_test_is_uniform_under_its_null() -> None:
    rng = np.random.default_rng(0)
    p = np.array([exact_sign_flip(rng.standard_normal(6).tolist()) for _ in range(2000)])
    for level in (1 / 16, 1 / 4, 1 / 2):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.03)


def test_means_carry_students_interval() -> None:
    found = mean_over_seeds([1.0, 2.0, 3.0, None])
    assert found.value == 2.0
    assert found.high == pytest.approx(2 + 4.303 * 1 / np.sqrt(3), abs=1e-2)
    assert mean_over_seeds([None]).value is None


def test_accuracy_is_that_of_discordant_states() -> None:
    problem = make_problem(ProblemConfig(n=8))
    states = discordant_states(problem, 3000)
    assert 20 < len(states.steps) < 1000
    rows = np.arange(len(states.steps))
    taken = states.tours[rows, states.steps + 1]
    assert states.optimal[rows, taken].all(), "the states lie on optimal tours"
    nearest = np.where(
        np.array([[c not in t[: s + 1] for c in range(8)] for t, s in zip(states.tours, states.steps, strict=True)]),
        states.instances.weights[rows, states.tours[rows, states.steps]],
        10**6,
    ).argmin(axis=1)
    assert not states.optimal[rows, nearest].any(), "every rule is wrong there, nearest neighbour too"


def test_the_system_of_an_editing_arm_is_more_than_its_single_pass() -> None:
    """Weights that know nothing: single passes are at chance, annealed edits on the true cost are not."""
    problem = make_problem(ProblemConfig(n=8))
    shape = GPTConfig(d_model=8, n_layers=1, n_heads=1, d_mlp=8, attention="bidirectional")
    subject = gpt_subject(TourGPT(shape, 8, 8), problem, "untrained", {})
    states = discordant_states(problem, 3000)
    settings = EditingConfig(edits_per_city=40)
    torch.manual_seed(0)
    single = single_pass_accuracy(subject, states).mean()
    annealed = system_accuracy(subject, "A2", states, settings).mean()
    resampled = system_accuracy(subject, "A1", states, settings).mean()
    assert annealed > 0.7
    assert max(single, resampled) < 0.45


def test_the_system_of_arm_a3_looks_ahead() -> None:
    """Scores that know one arc: alone they name the nearest city, which is wrong in every discordant state."""
    problem = make_problem(ProblemConfig(n=8))
    states = discordant_states(problem, 3000)

    def minus_arcs(features: torch.Tensor, prefixes: torch.Tensor) -> torch.Tensor:
        return -500.0 * features[torch.arange(len(features)), prefixes[:, -1]]

    subject: Subject = SimpleNamespace(next_city_logits=minus_arcs)  # type: ignore[assignment]
    assert single_pass_accuracy(subject, states).mean() == 0
    assert system_accuracy(subject, "A0", states, EditingConfig()).mean() == 0
    assert system_accuracy(subject, "A3", states, EditingConfig()).mean() > 0.05


def test_the_command_asks_for_the_pilot(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["study", "fixes"])
    assert "--pilot" in capsys.readouterr().err
