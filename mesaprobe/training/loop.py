"""The training loop: fresh batches, AdamW, checkpoints that a killed run resumes from to the same weights."""

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.errors import UserError
from mesaprobe.files import make_folder, plain, remove_partial_files, write_json, write_json_lines
from mesaprobe.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_tensors, load_weights, save_tensors
from mesaprobe.models.networks import build_network, network_subject
from mesaprobe.models.subject import Subject
from mesaprobe.problems import make_problem
from mesaprobe.training.card import write_card
from mesaprobe.training.config import OptimiserConfig, TrainConfig, first_difference, read_train_config, resolved
from mesaprobe.training.curriculum import competence
from mesaprobe.training.evaluation import Metrics, evaluate, evaluation_kinds, next_stage, outer_compute
from mesaprobe.training.memory import check_memory
from mesaprobe.training.objectives import find_objective
from mesaprobe.training.stream import LabelledBatch, make_batch, stream

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.jsonl"
METRICS_FILE = "metrics.json"
OUTER_COMPUTE_FILE = "outer_compute.json"
REPORT_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Progress:
    """Where a run is; `evaluation` is set at steps that were evaluated."""

    step: int
    steps: int
    loss: float
    instances_per_second: float
    seconds_left: float
    evaluation: Metrics | None = None


@dataclass
class TrainingState:
    """What a checkpoint holds."""

    model: HookedRootModule
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def train(
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    show: Callable[[Progress], None] | None = None,
    keep: Callable[[Subject, int], None] | None = None,
) -> dict[str, Metrics]:
    """Train a network and write it to `folder`: weights, config.json, history.jsonl, metrics.json, README.md.

    With `resume`, go on from the last checkpoint in `folder` (or begin, if there is none yet) and end with the
    same weights as a run that was never interrupted on the same device; a finished run is left as it is.
    `keep` is called with the network and the step at every evaluation, before the checkpoint is written.
    Returns the metrics per set. Raises UserError for what a person can mend, before anything is written.
    """
    config = resolved(config, os.cpu_count() or 1)
    device = _device(config)
    finished = _check_folder(config, folder, resume)
    if finished is not None:
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)  # left by a run killed between its last two acts
        return finished
    check_memory(config)
    make_batch(config, 0)  # a teacher or a filter that can't work says so before anything is written
    make_folder(folder)
    remove_partial_files(folder)
    write_json(folder / CONFIG_FILE, config)
    torch.set_num_threads(config.threads)
    state = _fresh_state(config, device)
    if (folder / CHECKPOINT_FILE).exists():
        restore_checkpoint(state, folder / CHECKPOINT_FILE)
    _run(state, config, folder, device, show or (lambda _: None), keep or (lambda *_: None))
    return _finish(state, config, folder)


def learning_rate(config: "Schedule", step: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to `final_share` of it."""
    optimiser = config.optimiser
    warmup = min(optimiser.warmup_steps, config.steps // 10)
    if step < warmup:
        return optimiser.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(config.steps - warmup, 1)
    share = optimiser.final_share + (1 - optimiser.final_share) * 0.5 * (1 + math.cos(math.pi * done))
    return optimiser.learning_rate * share


class Schedule(Protocol):
    """What the learning rate and the optimiser depend on, of any kind of run."""

    @property
    def steps(self) -> int: ...
    @property
    def optimiser(self) -> OptimiserConfig: ...


def make_optimiser(model: torch.nn.Module, config: Schedule) -> torch.optim.AdamW:
    """AdamW that decays the matrices of linear layers and nothing else."""
    decayed = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear)}
    groups = [
        {
            "params": [p for p in model.parameters() if id(p) in decayed],
            "weight_decay": config.optimiser.weight_decay,
        },
        {"params": [p for p in model.parameters() if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.optimiser.learning_rate, betas=config.optimiser.betas, fused=True)


def optimisation_step(
    model: HookedRootModule, optimiser: torch.optim.Optimizer, batch: LabelledBatch, config: TrainConfig, step: int
) -> Tensor:
    """One step of gradient descent on a batch by the arm's objective; returns the loss before it (a scalar on the
    device)."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config, step)
    loss = find_objective(config.arm)(model, batch, config, step)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip_norm)
    optimiser.step()
    return loss.detach()


@dataclass
class _Since:
    """What adds up between two evaluations."""

    losses: Tensor
    acceptance: float = 0.0
    waited: float = 0.0
    """Seconds in which the network waited for a batch."""
    levels: np.ndarray | None = None

    def add(self, loss: Tensor, batch: LabelledBatch, waited: float) -> None:
        self.losses += loss
        self.acceptance += batch.acceptance_rate
        self.waited += waited
        if batch.levels is not None:
            self.levels = batch.levels if self.levels is None else self.levels + batch.levels


def _run(
    state: TrainingState,
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    show: Callable[[Progress], None],
    keep: Callable[[Subject, int], None],
) -> None:
    started, first, shown = time.monotonic() - state.seconds, state.step, 0.0
    begun = time.monotonic()
    since = _Since(torch.zeros((), device=device))
    stage = int(state.history[-1].get("stage", 0)) if state.history else 0
    batches = stream(config, first, stage)
    try:
        while state.step < config.steps:
            asked = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - asked
            since.add(optimisation_step(state.model, state.optimiser, batch, config, state.step), batch, waited)
            state.step += 1
            steps = (state.step - 1) % config.evaluate_every + 1
            speed = (state.step - first) * config.batch_size / (time.monotonic() - begun)
            left = (config.steps - state.step) * config.batch_size / speed
            if state.step % config.evaluate_every == 0 or state.step == config.steps:
                row, metrics = _evaluated(state, config, folder, since, steps, stage, started)
                state.history.append(row)
                keep(_subject(state.model, config, folder), state.step)
                state.model.train()
                save_checkpoint(state, folder)
                show(Progress(state.step, config.steps, row["loss"], speed, left, metrics))
                since = _Since(torch.zeros((), device=device))
                if row.get("stage", stage) != stage:
                    stage = row["stage"]
                    batches.close()
                    batches = stream(config, state.step, stage)
            elif time.monotonic() - shown > REPORT_EVERY_SECONDS:
                shown = time.monotonic()
                show(Progress(state.step, config.steps, float(since.losses) / steps, speed, left))
    finally:
        batches.close()


def _evaluated(
    state: TrainingState, config: TrainConfig, folder: Path, since: _Since, steps: int, stage: int, started: float
) -> tuple[dict[str, Any], Metrics]:
    """The row of history.jsonl after `steps` steps since the last one, and what it was measured from."""
    loss = float(since.losses) / steps
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} before step {state.step}; lower optimiser.learning_rate "
            f"(now {config.optimiser.learning_rate})"
        )
    subject = _subject(state.model, config, folder)
    metrics = evaluate(subject, config, evaluation_kinds(config)[0], _quick_count(config))
    if config.curriculum.order != "none" and config.curriculum.pace == "competence":
        stage = next_stage(config, stage, subject, _quick_count(config))
    state.model.train()
    state.seconds = time.monotonic() - started
    row = _history_row(state, config, loss, since.acceptance / steps, metrics)
    row["seconds_waiting"] = round(since.waited, 2)
    if since.levels is not None:
        row |= {"stage": stage, "competence": competence(config.curriculum, state.step / config.steps, stage)}
        shares = since.levels / since.levels.sum()
        row |= {f"hardness_{level}": float(share) for level, share in enumerate(shares)}
    return row, metrics


def _quick_count(config: TrainConfig) -> int:
    return max(config.evaluation_instances // 4, 1)


def _history_row(
    state: TrainingState, config: TrainConfig, loss: float, acceptance: float, metrics: Metrics
) -> dict[str, Any]:
    return {
        "step": state.step,
        "instances_seen": state.step * config.batch_size,
        "seconds": round(state.seconds, 2),
        "loss": loss,
        "learning_rate": learning_rate(config, state.step - 1),
        "acceptance_rate": acceptance,
        "gap_mean": metrics.gap_mean,
        "optimal_fraction": metrics.optimal_fraction,
        "legal_fraction": metrics.legal_fraction,
        "teacher_agreement": metrics.teacher_agreement,
    }


def _finish(state: TrainingState, config: TrainConfig, folder: Path) -> dict[str, Metrics]:
    """Write all that stays, metrics last, so that their presence means: complete; then drop the checkpoint."""
    write_json_lines(folder / HISTORY_FILE, state.history)  # a run killed right after its last checkpoint lacks a row
    save_tensors(folder / WEIGHTS_FILE, state.model.state_dict())
    subject = _subject(state.model, config, folder)
    sets = {kind: evaluate(subject, config, kind, config.evaluation_instances) for kind in evaluation_kinds(config)}
    outer = outer_compute(subject, config)
    write_json(folder / OUTER_COMPUTE_FILE, outer)
    write_card(folder, config, sets, outer, state.seconds)
    write_json(folder / METRICS_FILE, sets)
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    return sets


def _subject(model: HookedRootModule, config: TrainConfig, folder: Path) -> Subject:
    return network_subject(model, make_problem(config.problem), folder.name)


def _fresh_state(config: TrainConfig, device: torch.device) -> TrainingState:
    model = build_network(config.model, make_problem(config.problem), seed=config.seed).to(device)
    model.train()
    return TrainingState(model, make_optimiser(model, config))


def save_checkpoint(state: TrainingState, folder: Path) -> None:
    """One file with everything, then the readable history."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        moments = state.optimiser.state[parameter]
        tensors[f"first_moment.{name}"] = moments["exp_avg"]
        tensors[f"second_moment.{name}"] = moments["exp_avg_sq"]
    metadata = {
        "step": str(state.step),
        "seconds": repr(state.seconds),
        "history": json.dumps(plain(state.history)),
    }
    save_tensors(folder / CHECKPOINT_FILE, tensors, metadata)
    write_json_lines(folder / HISTORY_FILE, state.history)


def restore_checkpoint(state: TrainingState, source: Path) -> None:
    """Go on from a file that `save_checkpoint` wrote."""
    tensors, metadata = load_tensors(source)
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    load_weights(state.model, weights, source)
    try:
        state.step, state.seconds = int(metadata["step"]), float(metadata["seconds"])
        state.history = json.loads(metadata["history"])
        for name, parameter in state.model.named_parameters():
            state.optimiser.state[parameter] = {
                "step": torch.tensor(float(state.step), device=parameter.device),
                "exp_avg": tensors[f"first_moment.{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"second_moment.{name}"].to(parameter.device),
            }
    except (KeyError, ValueError) as error:
        raise UserError(f"{source} is no checkpoint of this program: {error} is missing or wrong") from error


def _check_folder(config: TrainConfig, folder: Path, resume: bool) -> dict[str, Metrics] | None:
    """Refuse to mix two runs in one folder; return the metrics if the run is already complete."""
    if not (folder / CONFIG_FILE).exists():
        return None
    if not resume:
        raise UserError(f"{folder} already holds a run: add --resume to go on with it, or choose another --out")
    difference = first_difference(read_train_config(folder / CONFIG_FILE), config)
    if difference:
        raise UserError(f"{folder} was begun with another config, {difference}; choose another --out")
    return read_metrics(folder) if (folder / METRICS_FILE).exists() else None


def read_metrics(folder: Path) -> dict[str, Metrics]:
    """The metrics that a finished run wrote."""
    from mesaprobe.configs import parse_config
    from mesaprobe.files import read_json

    path = folder / METRICS_FILE
    return {kind: parse_config(Metrics, value, f"{path}, {kind}") for kind, value in read_json(path).items()}


def _device(config: TrainConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but torch finds no CUDA device here")
    wanted = "cuda" if config.device == "auto" and torch.cuda.is_available() else config.device
    return torch.device("cpu" if wanted == "auto" else wanted)
