"""The loop that teaches a course: as `loop`, with any objective; a killed run resumes to the same weights."""

import importlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens import HookedRootModule

from mesaprobe.errors import UserError
from mesaprobe.files import make_folder, remove_partial_files, write_json, write_json_lines
from mesaprobe.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_tensors, load_weights, save_tensors
from mesaprobe.models.networks import build_network
from mesaprobe.problems import make_problem
from mesaprobe.training.courses import LESSONS, Course, read_course
from mesaprobe.training.loop import (
    CHECKPOINT_FILE,
    HISTORY_FILE,
    TrainingState,
    make_optimiser,
    restore_checkpoint,
    save_checkpoint,
)

BRANCH = 4
"""Branch of the seed from which lessons draw; other training, evaluation and certificates use others."""


class Objective(nn.Module):
    """What a lesson asks of a network. Its own parameters, if any, are trained along and then thrown away."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.course = course
        self.source = make_problem(course.problem)

    def loss(self, network: HookedRootModule, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on the batch of a step, a function of the seed and the step alone, and figures to follow."""
        raise NotImplementedError


class _Pupil(HookedRootModule):
    """A network and what is trained along with it."""

    def __init__(self, network: HookedRootModule, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective


def make_objective(course: Course) -> Objective:
    """The objective of the course's lesson."""
    module, _, name = LESSONS[course.lesson.lesson].objective.partition(":")
    found: Objective = getattr(importlib.import_module(module), name)(course)
    return found


def teach(course: Course, folder: Path, show: Callable[[dict[str, Any]], None] = lambda _: None) -> HookedRootModule:
    """Train a network and write weights, config.json and history.jsonl to `folder`; goes on from a checkpoint there.

    Raises UserError if the folder holds another course, or if the loss is not finite.
    """
    if (folder / CONFIG_FILE).exists() and read_course(folder / CONFIG_FILE) != course:
        raise UserError(f"{folder} was begun with another course; choose another folder")
    make_folder(folder)
    remove_partial_files(folder)
    write_json(folder / CONFIG_FILE, course)
    torch.set_num_threads(course.threads)
    network = _first_network(course)
    if (folder / WEIGHTS_FILE).exists():
        load_weights(network, load_tensors(folder / WEIGHTS_FILE)[0], folder / WEIGHTS_FILE)
        return network.eval()
    pupil = _Pupil(network.train(), make_objective(course))
    state = TrainingState(pupil, make_optimiser(pupil, course))
    if (folder / CHECKPOINT_FILE).exists():
        restore_checkpoint(state, folder / CHECKPOINT_FILE)
    _run(state, pupil, course, folder, show)
    write_json_lines(folder / HISTORY_FILE, state.history)
    save_tensors(folder / WEIGHTS_FILE, network.state_dict())
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    return network.eval()


def _first_network(course: Course) -> HookedRootModule:
    network = build_network(course.model, make_problem(course.problem), seed=course.seed)
    if course.start is not None:
        weights = Path(course.start) / WEIGHTS_FILE
        tensors = {name: tensor.float() for name, tensor in load_tensors(weights)[0].items()}
        load_weights(network, tensors, weights)
    return network


def learning_rate(course: Course, step: int) -> float:
    """Linear warm-up to the peak, which then holds until the last `decay_share` of the steps; there a straight line
    down to `final_share` of it. What comes before the decay does not depend on the number of steps.

    >>> from mesaprobe.training.config import OptimiserConfig
    >>> from mesaprobe.training.lessons import ValueStates
    >>> course = Course(ValueStates(), optimiser=OptimiserConfig(warmup_steps=2), steps=8, decay_share=0.5)
    >>> [round(1000 * learning_rate(course, step), 2) for step in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.51, 0.26]
    """
    optimiser, decay = course.optimiser, course.decay_share * course.steps
    left = min((course.steps - step) / decay, 1.0) if decay else 1.0
    share = optimiser.final_share + (1 - optimiser.final_share) * left
    return optimiser.learning_rate * min((step + 1) / max(optimiser.warmup_steps, 1), share)


def _run(
    state: TrainingState, pupil: _Pupil, course: Course, folder: Path, show: Callable[[dict[str, Any]], None]
) -> None:
    started, totals = time.monotonic() - state.seconds, dict[str, Tensor]()
    for step in range(state.step, course.steps):
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate(course, step)
        loss, figures = pupil.objective.loss(pupil.network, step)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(pupil.parameters(), course.optimiser.clip_norm)
        state.optimiser.step()
        for name, value in {"loss": loss, **figures}.items():
            totals[name] = totals.get(name, torch.zeros(())) + value.detach()
        state.step = step + 1
        if state.step % course.evaluate_every and state.step != course.steps:
            continue
        since = (state.step - 1) % course.evaluate_every + 1
        means = {name: float(value) / since for name, value in totals.items()}
        if not math.isfinite(means["loss"]):
            raise UserError(f"the loss became {means['loss']} before step {state.step}; lower optimiser.learning_rate")
        state.seconds = time.monotonic() - started
        state.history.append({"step": state.step, "seconds": round(state.seconds, 2), **means})
        save_checkpoint(state, folder)
        show(state.history[-1])
        totals.clear()
