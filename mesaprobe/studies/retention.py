"""Retention: what training under an arm does to a network that is known to search (method.md section 8).

A certified searcher of the zoo is trained further on optimal tours, and E7 and the score S are measured over the
steps. The area under the curve of E7, as a share of its first value, says how much of the search is retained.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mesaprobe.configs import parse_config
from mesaprobe.errors import UserError
from mesaprobe.files import make_folder, read_json, write_json
from mesaprobe.models.gpt import TourGPT
from mesaprobe.models.subject import ModuleSubject, gpt_subject
from mesaprobe.problems import make_problem
from mesaprobe.studies.design import FixesDesign
from mesaprobe.studies.inner_evidence import InnerEvidence, measure_inner
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import DataConfig, OptimiserConfig, TrainConfig
from mesaprobe.training.loop import make_optimiser, optimisation_step
from mesaprobe.training.stream import make_batch
from mesaprobe.zoo.catalogue import select
from mesaprobe.zoo.members import Compiled
from mesaprobe.zoo.store import load_member


@dataclass(frozen=True)
class RetentionPoint:
    """One searcher, arm and seed after a number of further steps."""

    searcher: str
    arm: str
    seed: int
    step: int
    inner: InnerEvidence


def retention_course(
    design: FixesDesign, searcher: str, arm: str, seed: int, folder: Path, zoo: Path
) -> list[RetentionPoint]:
    """Train on and measure, at all steps of the design; a finished course is read, an unfinished one begun anew."""
    path = make_folder(folder / "retention") / f"{searcher}-{arm}-seed{seed}.json"
    if path.is_file():
        return [parse_config(RetentionPoint, row, str(path)) for row in read_json(path)]
    network = _searcher(searcher, zoo)
    config = _training(design, network, arm, seed)
    optimiser, found = make_optimiser(network, config), []
    torch.set_num_threads(config.threads)
    for step in range(config.steps + 1):
        if step in design.retention.steps:
            subject = gpt_subject(network.eval(), make_problem(design.problem), f"{searcher}, {step} steps on", {})
            inner = measure_inner(subject, design.lines, design.budget, seed=0)
            found.append(RetentionPoint(searcher, arm, seed, step, inner))
            network.train()
        if step < config.steps:
            optimisation_step(network, optimiser, make_batch(config, step), config, step)
    write_json(path, found)
    return found


def retained(points: list[RetentionPoint]) -> float | None:
    """Area under E7 over steps (trapezoids), divided by that of the first value kept to the end."""
    values = [point.inner.e7 for point in points]
    if any(value is None for value in values) or not values[0]:
        return None
    steps = [point.step for point in points]
    return float(np.trapezoid(np.array(values, dtype=np.float64), steps) / (values[0] * (steps[-1] - steps[0])))


def _searcher(name: str, zoo: Path) -> TourGPT:
    member = select([name])[0]
    if isinstance(member.recipe, Compiled):
        network = member.recipe.build()
    else:
        subject = load_member(zoo, member)
        assert isinstance(subject, ModuleSubject)
        network = subject.module  # type: ignore[assignment]
    if not isinstance(network, TourGPT) or not member.role == "search":
        raise UserError(f"{name} is no searcher of GPT shape; retention needs one")
    return network.float()


def _training(design: FixesDesign, network: TourGPT, arm: str, seed: int) -> TrainConfig:
    if ARMS[arm].edits or ARMS[arm].tied:
        raise UserError(f"arm {arm} cannot take the weights of a searcher with {network.config.attention} attention")
    settings = design.retention
    return TrainConfig(
        problem=design.problem,
        model=network.config,
        arm=arm,  # type: ignore[arg-type]
        data=DataConfig(workers=0),
        optimiser=OptimiserConfig(learning_rate=settings.learning_rate, warmup_steps=20, final_share=1.0),
        steps=max(settings.steps),
        batch_size=settings.batch_size,
        seed=seed,
        threads=1,
        device="cpu",
    )


def retention_row(point: RetentionPoint) -> dict[str, object]:
    """A flat row for tables and `--json`."""
    data = dataclasses.asdict(point)
    inner: dict[str, object] = data.pop("inner")
    return data | inner
