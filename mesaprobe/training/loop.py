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

import torch
import torch.nn.functional as F
from jaxtyping import Float
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
from mesaprobe.training.evaluation import Metrics, evaluate, evaluation_kinds
from mesaprobe.training.memory import check_memory
from mesaprobe.training.stream import LabelledBatch, make_batch, stream

CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.jsonl"
METRICS_FILE = "metrics.json"
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
) -> dict[str, Metrics]:
    """Train a network and write it to `folder`: weights, config.json, history.jsonl, metrics.json, README.md.

    With `resume`, go on from the last checkpoint in `folder` (or begin, if there is none yet) and end with the
    same weights as a run that was never interrupted on the same device; a finished run is left as it is.
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
    _run(state, config, folder, device, show or (lambda _: None))
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


def next_city_loss(
    logits: Float[Tensor, "batch decision n"], targets: Float[Tensor, "batch decision n"]
) -> Float[Tensor, ""]:
    """Cross-entropy against the teacher's distribution, unmasked: the network must keep track of visited cities."""
    return -(targets * F.log_softmax(logits, dim=-1)).sum(-1).mean()


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
    model: HookedRootModule, optimiser: torch.optim.Optimizer, batch: LabelledBatch, rate: float, clip_norm: float
) -> Tensor:
    """One step of gradient descent on a batch; returns the loss before it (a scalar on the device)."""
    device = next(model.parameters()).device
    features, tours, targets = (torch.from_numpy(x).to(device) for x in (batch.features, batch.tours, batch.targets))
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss = next_city_loss(model(features, tours[:, :-1]), targets)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimiser.step()
    return loss.detach()


def _run(
    state: TrainingState, config: TrainConfig, folder: Path, device: torch.device, show: Callable[[Progress], None]
) -> None:
    started, first, shown = time.monotonic() - state.seconds, state.step, 0.0
    begun = time.monotonic()
    losses, acceptance = torch.zeros((), device=device), 0.0
    batches = stream(config, first)
    try:
        for batch in batches:
            rate = learning_rate(config, state.step)
            losses += optimisation_step(state.model, state.optimiser, batch, rate, config.optimiser.clip_norm)
            acceptance += batch.acceptance_rate
            state.step += 1
            since = (state.step - 1) % config.evaluate_every + 1
            speed = (state.step - first) * config.batch_size / (time.monotonic() - begun)
            left = (config.steps - state.step) * config.batch_size / speed
            if state.step % config.evaluate_every == 0 or state.step == config.steps:
                loss = float(losses) / since
                if not math.isfinite(loss):
                    raise UserError(
                        f"the loss became {loss} before step {state.step}; lower optimiser.learning_rate "
                        f"(now {config.optimiser.learning_rate})"
                    )
                subject = _subject(state.model, config, folder)
                metrics = evaluate(subject, config, evaluation_kinds(config)[0], _quick_count(config))
                state.model.train()
                state.seconds = time.monotonic() - started
                state.history.append(_history_row(state, config, loss, rate, acceptance / since, metrics))
                save_checkpoint(state, folder)
                show(Progress(state.step, config.steps, loss, speed, left, metrics))
                losses.zero_()
                acceptance = 0.0
            elif time.monotonic() - shown > REPORT_EVERY_SECONDS:
                shown = time.monotonic()
                show(Progress(state.step, config.steps, float(losses) / since, speed, left))
    finally:
        batches.close()  # type: ignore[attr-defined]


def _quick_count(config: TrainConfig) -> int:
    return max(config.evaluation_instances // 4, 1)


def _history_row(
    state: TrainingState, config: TrainConfig, loss: float, rate: float, acceptance: float, metrics: Metrics
) -> dict[str, Any]:
    return {
        "step": state.step,
        "instances_seen": state.step * config.batch_size,
        "seconds": round(state.seconds, 2),
        "loss": loss,
        "learning_rate": rate,
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
    write_card(folder, config, sets, state.seconds)
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
