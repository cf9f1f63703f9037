"""The command line: what works, and what a person gets wrong, in one sentence with exit code 2."""

import dataclasses
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from known_subjects import optimal_subject

from mesaprobe.analysis import load_evidence, load_figures, load_report
from mesaprobe.analysis.store import validate_report
from mesaprobe.cli import main
from mesaprobe.errors import UserError
from mesaprobe.evidence import BUDGETS, LINES
from mesaprobe.evidence.protocol import Budget
from mesaprobe.models import Subject
from mesaprobe.problems.tsplib import write_tsplib

TINY = ["--problem.n", "6", "--model.d-model", "16", "--model.n-layers", "2", "--model.n-heads", "2"]
TINY += ["--model.d-mlp", "32", "--steps", "60", "--batch-size", "64", "--evaluate-every", "30"]
TINY += ["--evaluation-instances", "100", "--threads", "1", "--data.workers", "0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network trained through the command line."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    main(["train", *TINY, "--out", str(folder)])
    return folder


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few instances and three of the lines."""
    monkeypatch.setitem(BUDGETS._members, "quick", Budget("quick", 120))
    monkeypatch.setattr(LINES, "_members", {line: LINES[line] for line in ("E4", "E9", "E10c")})


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence on stderr of a command that ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("mesaprobe: ")
    assert "Traceback" not in printed.err
    return printed.err


def test_a_run_leaves_what_the_design_names(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "model.safetensors",
        "config.json",
        "metrics.json",
        "history.jsonl",
        "outer_compute.json",
        "README.md",
    }
    metrics = json.loads((trained / "metrics.json").read_text())
    assert set(metrics) == {"natural", "greedy_fails"}
    wanted = {"instances", "gap_mean", "gap_ci", "optimal_fraction", "legal_fraction", "teacher_agreement", "seed"}
    assert wanted <= set(metrics["natural"])
    assert len((trained / "history.jsonl").read_text().splitlines()) == 2


def test_config_json_repeats_the_run_bit_by_bit(trained: Path, tmp_path: Path) -> None:
    main(["train", "--config", str(trained / "config.json"), "--out", str(tmp_path / "again")])
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (trained / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("small_budget")
def test_analyze_stores_a_valid_report_and_draws_it(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "analysis"
    main(["analyze", str(trained), "--out", str(out)])
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    report = load_report(out)
    assert report["verdict"]["label"] == "INCONCLUSIVE"
    assert report["verdict"]["reason"] in ("NO_ZOO", "OUT_OF_ZOO")  # six cities
    assert [line["id"] for line in report["lines"]] == ["E4", "E9", "E10c"]
    assert [gate["id"] for gate in report["gates"]] == [f"G{i}" for i in range(1, 8)]
    assert {"instances", "training", "gaps", "dstar", "E4", "attention"} <= set(load_figures(out))
    evidence = load_evidence(out)
    assert {"line", "quantity", "arm", "value"} <= set(evidence.columns)
    assert set(evidence["line"]) >= {"E4", "E9", "E10c"}
    stored = (out / "report.json").stat().st_mtime_ns
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    main(["report", str(out)])
    assert (out / "report.html").read_bytes() == page
    main(["analyze", str(trained), "--out", str(out), "--reuse"])
    assert (out / "report.json").stat().st_mtime_ns == stored, "--reuse must do no work twice"
    main(["analyze", str(trained), "--out", str(out), "--reuse", "--seed", "1"])
    assert load_report(out)["protocol"]["seed"] == 1


@pytest.mark.usefixtures("small_budget")
def test_same_seed_same_report(trained: Path, tmp_path: Path) -> None:
    reports = []
    for name in ("a", "b"):
        main(["analyze", str(trained), "--out", str(tmp_path / name)])
        report = load_report(tmp_path / name)
        report.pop("seconds")
        for line in report["lines"]:
            line.pop("seconds")
        reports.append(report)
    assert reports[0] == reports[1]


def own_subject() -> Subject:
    return optimal_subject(planted=True, n=6)


def not_a_subject() -> int:
    return 3


@pytest.mark.usefixtures("small_budget")
def test_a_users_own_subject_is_analysed_by_name(tmp_path: Path) -> None:
    main(["analyze", "test_cli:own_subject", "--out", str(tmp_path / "own")])
    report = load_report(tmp_path / "own")
    assert report["subject"]["layers"] is None
    assert report["behaviour"]["gap_mean"] == 0
    assert report["behaviour"]["optimal_fraction"] == 1
    assert set(load_figures(tmp_path / "own")) >= {"instances", "gaps", "dstar"}
    assert (tmp_path / "own" / "report.html").is_file()


def test_a_report_with_a_made_up_field_is_refused(trained: Path) -> None:
    del trained
    with pytest.raises(UserError, match="no report of schema version 1"):
        validate_report({"schema": 1}, "this")


def test_solve_prints_one_object_per_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = np.array([[0, 1, 9, 9], [9, 0, 1, 9], [9, 9, 0, 1], [1, 9, 9, 0]], dtype=np.int32)
    write_tsplib(tmp_path / "four.atsp", "four", weights)
    main(["solve", str(tmp_path / "four.atsp"), "--json"])
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["name"], row["cost"], row["optimal"], row["tour"]) == ("four", 4, True, [0, 1, 2, 3])
    main(["solve", str(tmp_path / "four.atsp"), "--method", "nearest_neighbour"])
    assert "no claim" in capsys.readouterr().out


def test_wrong_words_end_in_one_sentence(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "new")]
    assert "unknown command 'trane'; known: train" in refused(["trane"], capsys)
    assert "unknown preset 'nope'; known: quick" in refused(["train", "--preset", "nope"], capsys)
    assert "--out" in refused(["train", "--steps", "5"], capsys)
    assert "needs about" in refused(["train", *out, "--problem.n", "20", "--batch-size", "100000000"], capsys)
    assert "unknown problem family 'torus'" in refused(["train", *out, "--problem.family", "torus"], capsys)
    assert "unknown teacher 'oracle'" in refused(["train", *out, "--teacher", "oracle"], capsys)
    assert "once in each tour" in refused(["train", *TINY, *out, "--teacher", "test_cli:no_tours"], capsys)
    assert "is not a folder with a saved model" in refused(["analyze", str(tmp_path / "absent"), *out], capsys)
    assert "unknown line of evidence 'E99'" in refused(["analyze", str(trained), *out, "--lines", "E99"], capsys)
    assert "must be a function that returns" in refused(["analyze", "test_cli:not_a_subject", *out], capsys)
    assert "cannot be imported" in refused(["analyze", "no_such_module:x", *out], capsys)
    assert "holds no finished analysis" in refused(["report", str(tmp_path)], capsys)
    assert "must end in .tsp" in refused(["solve", str(trained / "config.json")], capsys)
    assert not (tmp_path / "new").exists(), "nothing may be left half-written"


def no_tours(weights: np.ndarray, seed: int) -> np.ndarray:  # noqa: ARG001
    return np.zeros(weights.shape[:2], dtype=np.int64)


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    below = str(tmp_path / "file" / "run")
    assert "cannot create the folder" in refused(["train", *TINY, "--out", below], capsys)
    assert "cannot create the folder" in refused(["analyze", str(trained), "--out", below], capsys)


def test_damaged_models_are_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def copy(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for part in ("model.safetensors", "config.json"):
            (folder / part).write_bytes((trained / part).read_bytes())
        return folder

    cut = copy("cut")
    (cut / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:-100])
    assert "no readable safetensors file" in refused(["analyze", str(cut)], capsys)
    unknown = copy("unknown")
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"model": config["model"] | {"wings": 2}}))
    assert "unknown key 'wings'" in refused(["analyze", str(unknown)], capsys)
    assert "unknown key 'wings'" in refused(["train", "--config", str(unknown / "config.json")], capsys)
    broken = copy("broken")
    (broken / "config.json").write_text("{")
    assert "is not valid JSON" in refused(["analyze", str(broken)], capsys)


def test_nan_in_features_is_refused(trained: Path) -> None:
    import mesaprobe

    subject = mesaprobe.load(trained)
    features = torch.full((1, 6, 6), float("nan"))
    with pytest.raises(UserError, match="NaN or infinite"):
        subject.next_city_logits(features, torch.zeros(1, 1, dtype=torch.long))


def test_options_override_presets() -> None:
    from mesaprobe.cli.train import TrainArguments, _base_config
    from mesaprobe.cli.words import parsed

    words = ["--preset", "quick", "--steps", "7", "--problem.n", "9"]
    given: TrainArguments = parsed(TrainArguments, "train", words, TrainArguments(run=_base_config(words)))
    assert given.run == dataclasses.replace(
        _base_config(words), steps=7, problem=dataclasses.replace(given.run.problem, n=9)
    )


def test_help_starts_without_torch() -> None:
    """The reason that --help is quick: heavy imports wait inside the verbs."""
    code = (
        "import sys\nfrom mesaprobe.cli import main\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformer_lens', 'numba', 'pandas', 'sklearn', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--problem.family" in done.stdout


def test_tensorboard_events_hold_the_history_once_also_after_a_resumed_run(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    folder = tmp_path / "run"
    for _ in range(2):  # the second finds the run finished and writes its events again
        main(["train", *TINY, "--out", str(folder), "--resume", "--tensorboard"])
        (events,) = (folder / "events").iterdir()
        data, at, found = events.read_bytes(), 0, []
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)  # then a checksum, the event, a checksum
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            at += 16 + length
        rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        expected = [(row["step"], tag, value) for row in rows for tag, value in row.items() if tag != "step"]
        assert sorted(found) == sorted((step, tag, pytest.approx(value, rel=1e-6)) for step, tag, value in expected)
        assert len(found) == len(rows) * (len(rows[0]) - 1) > 0
