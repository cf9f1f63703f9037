"""The training loop's promises (it learns, resumes to the same weights, refuses clearly) and its yardstick."""

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import FINISHED, TINY, changed, history_of, with_data
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.models import GPTConfig, Subject, load
from mesaprobe.models.checkpoint import save_tensors
from mesaprobe.problems import Problem, ProblemConfig, make_problem
from mesaprobe.solvers.constructive import nearest_neighbour
from mesaprobe.solvers.exact.held_karp import action_values, held_karp
from mesaprobe.training import loop
from mesaprobe.training.config import PRESETS, DataConfig, OptimiserConfig, TrainConfig
from mesaprobe.training.evaluation import evaluate
from mesaprobe.training.loop import METRICS_FILE, Progress, learning_rate, train
from mesaprobe.training.stream import evaluation_instances, make_batch


def test_learning_rate_warms_up_and_decays_to_its_final_share() -> None:
    config = changed(steps=1000, optimiser=OptimiserConfig(learning_rate=0.01, warmup_steps=50, final_share=0.1))
    rates = [learning_rate(config, step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01 / 50)
    assert rates[49] == rates[50] == pytest.approx(0.01)
    assert rates[525] == pytest.approx(0.01 * 0.55)
    assert rates[1000] == pytest.approx(0.001)
    assert all(a < b for a, b in itertools.pairwise(rates[:50]))
    assert all(a > b for a, b in itertools.pairwise(rates[50:]))
    short = changed(steps=5)
    assert [learning_rate(short, 0), learning_rate(short, 5)] == pytest.approx([1e-3, 1e-5])
    assert learning_rate(changed(steps=100), 9) == pytest.approx(1e-3), "warm-up takes a tenth of a run at most"


def test_a_step_lowers_the_loss_by_clipped_adamw() -> None:
    """One step against the same step written out: decay on linear layers only, gradient norm clipped."""
    config = changed(optimiser=OptimiserConfig(learning_rate=0.01, warmup_steps=0, weight_decay=1.0, clip_norm=0.05))
    state = loop._fresh_state(config, torch.device("cpu"))
    batch = make_batch(config, 0)
    before = {name: parameter.detach().clone() for name, parameter in state.model.named_parameters()}
    logits = state.model(torch.from_numpy(batch.features), torch.from_numpy(batch.tours[:, :-1]))
    targets = torch.from_numpy(batch.targets)
    expected = -(targets * logits.log_softmax(-1)).sum() / (16 * 4)
    gradients = torch.autograd.grad(expected, list(state.model.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > 0.05
    loss = loop.optimisation_step(state.model, state.optimiser, batch, config, 0)
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    for (name, parameter), gradient in zip(state.model.named_parameters(), gradients, strict=True):
        linear = name.endswith("weight") and not name.startswith(("identity", "pos")) and ".ln" not in name
        linear &= not name.startswith("ln_final")
        clipped = gradient * 0.05 / norm
        step = clipped / (clipped.abs() + 1e-8)  # the first step of Adam: both moments hold this gradient alone
        moved = before[name] * (1 - 0.01 * linear) - 0.01 * step
        assert torch.allclose(parameter, moved, atol=2e-6), name


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_tiny_run_beats_its_own_beginning_and_leaves_a_whole_folder(tmp_path: Path) -> None:
    config = changed(
        model=GPTConfig(d_model=32, n_layers=2, n_heads=2, d_mlp=64),
        steps=200,
        batch_size=64,
        evaluate_every=50,
        evaluation_instances=400,
        optimiser=OptimiserConfig(learning_rate=3e-3),
    )
    seen: list[Progress] = []
    metrics = train(config, tmp_path / "run", show=seen.append)
    frozen = loop._subject(loop._fresh_state(config, torch.device("cpu")).model, config, tmp_path)
    baseline = evaluate(frozen, config, "natural", 400)
    assert metrics["natural"].gap_mean < 0.6 * baseline.gap_mean
    assert metrics["natural"].legal_fraction > 0.9 > 0.2 > baseline.legal_fraction
    assert metrics["natural"].teacher_agreement > 0.6 > baseline.teacher_agreement
    assert {path.name for path in (tmp_path / "run").iterdir()} == FINISHED
    history = history_of(tmp_path / "run")
    assert [row["step"] for row in history] == [50, 100, 150, 200]
    assert history[-1]["loss"] < history[0]["loss"]
    assert [p.step for p in seen if p.evaluation] == [50, 100, 150, 200]
    again = evaluate(load(tmp_path / "run"), config, "natural", 400)
    assert again == metrics["natural"], "the saved weights are the trained ones"
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"{metrics['natural'].gap_mean:.2%}" in card


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        if progress.evaluation and progress.step == step:
            raise Stop

    return show


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, workers: int) -> None:
    config = with_data(workers=workers, instances="easy_to_hard")
    whole = train(with_data(config, workers=0), tmp_path / "whole")
    for step in (4, 8):
        with pytest.raises(Stop):
            train(config, tmp_path / "parts", resume=step > 4, show=stop_at(step))
        assert not (tmp_path / "parts" / METRICS_FILE).exists()
    parts = train(config, tmp_path / "parts", resume=True)
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")
    assert history_of(tmp_path / "parts") == history_of(tmp_path / "whole")
    assert parts == whole
    assert {path.name for path in (tmp_path / "parts").iterdir()} == FINISHED


@pytest.mark.parametrize("after", [False, True])
def test_a_run_cut_at_any_of_its_files_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Stop right before, or right after, the n-th file of a run appears, for every n; then resume."""
    whole, replace = train(TINY, tmp_path / "whole"), os.replace
    for cut in itertools.count(1):
        written = itertools.count(1)

        def cutting(source: Path, target: Path, written: Iterator[int] = written, cut: int = cut) -> None:
            now = next(written) == cut
            if now and not after:
                raise Stop
            replace(source, target)
            if now:
                raise Stop

        folder = tmp_path / str(cut)
        with monkeypatch.context() as patched, contextlib.suppress(Stop):
            patched.setattr(os, "replace", cutting)
            train(TINY, folder)
            break
        assert train(TINY, folder, resume=True) == whole
        assert weights_of(folder) == weights_of(tmp_path / "whole")
        assert history_of(folder) == history_of(tmp_path / "whole")
        assert {path.name for path in folder.iterdir()} == FINISHED
    assert cut > len(FINISHED) + 2 * 3, "every file was cut, and both files of every checkpoint"


def test_resuming_a_finished_run_does_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = train(TINY, tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    monkeypatch.setattr(loop, "optimisation_step", None)
    monkeypatch.setattr(loop, "evaluate", None)
    assert train(TINY, tmp_path, resume=True) == metrics
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before


def test_a_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(TINY, tmp_path, show=stop_at(4))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = changed(optimiser=OptimiserConfig(learning_rate=0.5))
    with pytest.raises(UserError, match=r"another config, optimiser\.learning_rate \(0\.001 against 0\.5\)"):
        train(other, tmp_path, resume=True)
    with pytest.raises(UserError, match="already holds a run: add --resume"):
        train(TINY, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def broken(edit: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(edit(path.read_bytes()))


def without_step(path: Path) -> None:
    save_tensors(path, load_file(path), {"seconds": "1.0", "history": "[]"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken(lambda data: data[:100]), "no readable safetensors file"),
        (without_step, "no checkpoint of this program: 'step' is missing"),
    ],
)
def test_a_damaged_checkpoint_ends_in_one_sentence(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(Stop):
        train(TINY, tmp_path, show=stop_at(4))
    damage(tmp_path / loop.CHECKPOINT_FILE)
    with pytest.raises(UserError, match=message):
        train(TINY, tmp_path, resume=True)


def test_a_folder_that_cannot_be_written_ends_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=f"cannot create the folder {folder}"):
            train(TINY, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(problem=ProblemConfig(n=100_000)), r"needs about \d+ GiB, this machine has \d+ GiB; lower problem\.n"),
        (changed(problem=ProblemConfig(n=21)), "dynamic programming takes 2 to 20 cities, got 21"),
        (with_data(instances="greedy_fails", nearest_gap=1e6), "accepts almost nothing"),
    ],
)
def test_a_run_that_cannot_work_writes_nothing(tmp_path: Path, config: TrainConfig, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_in_one_sentence_and_leaves_no_weights(tmp_path: Path) -> None:
    wild = changed(optimiser=OptimiserConfig(learning_rate=1e30, warmup_steps=0))
    with pytest.raises(UserError, match=r"the loss became (nan|inf) before step 4; lower optimiser\.learning_rate"):
        train(wild, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="unknown preset 'enormous'; known: quick, "):
        PRESETS["enormous"]
    with pytest.raises(UserError, match="steps must be at least 1, got 0"):
        changed(steps=0)
    with pytest.raises(UserError, match=r"data\.random_prefixes must lie between 0 and 1, got 1\.5"):
        DataConfig(random_prefixes=1.5)
    with pytest.raises(UserError, match="a bidirectional network sees the answer"):
        changed(model=GPTConfig(attention="bidirectional"))
    with pytest.raises(UserError, match=r"problem\.n must be at least 4"):
        make_batch(changed(problem=ProblemConfig(n=3)), 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="torch finds no CUDA device"):
        train(changed(device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- evaluation ------------------------------------------------------------------------------------------------


class Oracle(Subject):
    """A subject that answers with a score of the exact weights, which `matrix` features give back."""

    sequential = True

    def __init__(self, problem: Problem, score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.name, self.problem, self.score = "oracle", problem, score

    def logits(self, features: Tensor, tours: Tensor) -> Tensor:
        weights = np.rint(np.asarray(features) * self.problem.config.levels).astype(np.int32)
        n, given = self.problem.n, np.asarray(tours)
        rest = [[city for city in range(n) if city not in tour] for tour in given]
        whole = np.concatenate([given, np.array(rest, dtype=np.int64).reshape(len(given), -1)], axis=1)
        return torch.from_numpy(self.score(weights, whole)[:, : given.shape[1]])

    def next_city_logits(self, features: Tensor, prefixes: Tensor) -> Tensor:
        return self.logits(features, prefixes)[:, -1]


Oracle.__abstractmethods__ = frozenset()  # evaluation asks for logits only


def exact_score(weights: np.ndarray, tours: np.ndarray) -> np.ndarray:
    return -action_values(weights, tours)


def nearest_score(weights: np.ndarray, tours: np.ndarray) -> np.ndarray:
    values = action_values(weights, tours)
    return np.where(np.isinf(values), -np.inf, -np.take_along_axis(weights, tours[:, :-1, None], axis=1))


def worst_score(weights: np.ndarray, tours: np.ndarray) -> np.ndarray:
    return action_values(weights, tours)  # infinite where visited: illegal at every step without the mask


CONFIG_7 = changed(problem=ProblemConfig(n=7))


@pytest.mark.parametrize("kind", ["natural", "greedy_fails"])
def test_an_optimal_subject_has_no_gap(kind: str) -> None:
    metrics = evaluate(Oracle(make_problem(CONFIG_7.problem), exact_score), CONFIG_7, kind, 300)
    assert (metrics.gap_mean, metrics.gap_ci, metrics.optimal_fraction) == (0.0, (0.0, 0.0), 1.0)
    assert (metrics.legal_fraction, metrics.teacher_agreement, metrics.instances) == (1.0, 1.0, 300)
    assert (metrics.acceptance_rate == 1.0) == (kind == "natural")


@pytest.mark.parametrize("kind", ["natural", "greedy_fails"])
def test_nearest_neighbour_scores_as_nearest_neighbour(kind: str) -> None:
    config = changed(CONFIG_7, teacher="nearest_neighbour")
    metrics = evaluate(Oracle(make_problem(config.problem), nearest_score), config, kind, 300)
    instances = evaluation_instances(config, kind, 300).instances
    optimum = held_karp(instances.weights).costs
    cost = instances.tour_costs(nearest_neighbour(instances.weights))
    assert metrics.gap_mean == pytest.approx((cost / optimum - 1).mean())
    assert metrics.optimal_fraction == (cost == optimum).mean()
    assert (metrics.legal_fraction, metrics.teacher_agreement) == (1.0, 1.0)
    assert metrics.gap_ci[0] < metrics.gap_mean < metrics.gap_ci[1]


def test_the_worst_subject_is_illegal_and_far_from_optimal() -> None:
    metrics = evaluate(Oracle(make_problem(CONFIG_7.problem), worst_score), CONFIG_7, "natural", 300)
    assert (metrics.legal_fraction, metrics.teacher_agreement) == (0.0, 0.0)
    assert metrics.gap_mean > 0.5
    assert math.isfinite(metrics.gap_mean)
