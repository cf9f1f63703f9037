"""Freshly drawn and labelled batches, each a function of (seed, step) alone, made by worker processes.

Because a batch depends on nothing but the config and its step, a resumed run sees the same data as one that
was never interrupted, whatever the number of workers. Workers start without torch.
"""

import dataclasses
import functools
import multiprocessing
import signal
import traceback
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.hardness import FilteredDraw, GreedyFails, draw_filtered
from mesaprobe.problems import Problem, ProblemConfig, make_problem
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import DataConfig, TrainConfig
from mesaprobe.training.curriculum import competence, pool_size, select
from mesaprobe.training.masking import masked_targets, random_masks
from mesaprobe.training.teachers import find_teacher

_TRAINING, _EVALUATION, _FIXED = 0, 1, 3


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """What one optimisation step is made of."""

    features: Float32[np.ndarray, "batch n f"]
    weights: Int32[np.ndarray, "batch n n"]
    tours: Int64[np.ndarray, "batch n"]
    targets: Float32[np.ndarray, "batch position n"]
    """What belongs at each position: of the next cities, positions 1 to n - 1; of masked ones, all n."""
    acceptance_rate: float
    """Share of drawn instances that passed the instance filter (1 without one)."""
    masked: Bool[np.ndarray, "batch n"] | None = None
    """For editing arms: the positions that are hidden from the network."""
    levels: Int64[np.ndarray, " level"] | None = None
    """With a curriculum: how many of the instances are of each level of hardness."""


def make_batch(config: TrainConfig, step: int, stage: int = 0) -> LabelledBatch:
    """The batch of one step; `stage` is how far a curriculum at the network's own pace has come."""
    rng = np.random.default_rng([config.seed, _TRAINING, step])
    problem = make_problem(config.problem)
    hard = step >= config.data.switch_at * config.steps
    kind: str = config.data.instances
    if kind == "easy_to_hard":
        kind = "greedy_fails" if hard else "greedy_suffices"
    if config.data.fixed_instances:
        pool = _fixed_instances(config.problem, kind, config.data, config.seed)
        chosen = rng.integers(len(pool.instances), size=config.batch_size)
        drawn = dataclasses.replace(pool, instances=pool.instances[chosen])
    else:
        done = rng.random() if config.curriculum.order == "fixed" else step / config.steps
        share = competence(config.curriculum, done, stage)
        drawn = draw_instances(problem, kind, config.data, pool_size(config.curriculum, config.batch_size, share), rng)
    instances, levels = drawn.instances, None
    if config.curriculum.order != "none":
        selection = select(config.curriculum, instances, config.batch_size, rng)
        instances, levels = selection.instances, selection.levels
    teacher = find_teacher(config.teacher, config.data.targets)
    sequences = teacher(instances, rng, config.data.random_prefixes)
    batch = LabelledBatch(
        instances.features,
        instances.weights,
        sequences.tours,
        sequences.targets,
        drawn.acceptance_rate,
        levels=levels,
    )
    return _with_masks(batch, config, problem.symmetric, rng) if ARMS[config.arm].edits else batch


def _with_masks(batch: LabelledBatch, config: TrainConfig, symmetric: bool, rng: np.random.Generator) -> LabelledBatch:
    """The batch as editing arms are trained on it: random positions of the teacher's tours masked."""
    masked = random_masks(len(batch.tours), batch.tours.shape[1], rng)
    exact = config.teacher == "optimal"
    targets = masked_targets(batch.weights, batch.tours, masked, exact=exact, symmetric=symmetric)
    return dataclasses.replace(batch, masked=masked, targets=targets)


def draw_instances(problem: Problem, kind: str, data: DataConfig, count: int, rng: np.random.Generator) -> FilteredDraw:
    """Instances of one kind: natural, greedy_fails, or greedy_suffices (the rest)."""
    if kind == "natural":
        return FilteredDraw(problem.draw(count, rng), count, count)
    fails = GreedyFails(data.nearest_gap, data.greedy_edge_gap)
    return draw_filtered(problem, count, rng, fails if kind == "greedy_fails" else lambda batch: ~fails(batch))


@functools.lru_cache(maxsize=2)
def _fixed_instances(problem: ProblemConfig, kind: str, data: DataConfig, seed: int) -> FilteredDraw:
    """The instances that a memoriser sees again and again."""
    rng = np.random.default_rng([seed, _FIXED, 0])
    return draw_instances(make_problem(problem), kind, data, data.fixed_instances, rng)


def evaluation_instances(config: TrainConfig, kind: str, count: int) -> FilteredDraw:
    """Held-out instances: drawn from a branch of the seed that training never uses. The kind `fixed` gives instead
    the instances (at most `count`) that a run with `data.fixed_instances` is trained on, at its end."""
    if kind == "fixed":
        trained_on = "natural" if config.data.instances == "natural" else "greedy_fails"
        pool = _fixed_instances(config.problem, trained_on, config.data, config.seed)
        return dataclasses.replace(pool, instances=pool.instances[:count])
    rng = np.random.default_rng([config.seed, _EVALUATION, {"natural": 0, "greedy_fails": 1}[kind]])
    return draw_instances(make_problem(config.problem), kind, config.data, count, rng)


def stream(config: TrainConfig, first_step: int, stage: int = 0) -> Generator[LabelledBatch, None, None]:
    """The batches of steps first_step, first_step + 1, ..., config.steps - 1, in order.

    Close the iterator (or exhaust it) to stop the workers; they also stop when this process dies.
    """
    if config.data.workers == 0:
        yield from (make_batch(config, step, stage) for step in range(first_step, config.steps))
        return
    context = multiprocessing.get_context("spawn")
    workers, receivers = [], []
    for index in range(config.data.workers):
        receiver, sender = context.Pipe(duplex=False)
        steps = range(first_step + index, config.steps, config.data.workers)
        worker = context.Process(target=_work, args=(config, steps, stage, sender), daemon=True)
        worker.start()
        sender.close()  # the worker holds the only open end, so its death reaches us as end of file
        workers.append(worker)
        receivers.append(receiver)
    try:
        for step in range(first_step, config.steps):
            yield _receive(receivers[(step - first_step) % len(workers)])
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _receive(receiver: Connection) -> LabelledBatch:
    try:
        received = receiver.recv()
    except EOFError:
        raise RuntimeError("a labelling process died; see its message above, or set data.workers to 0") from None
    if isinstance(received, UserError):
        raise received
    if isinstance(received, str):
        raise RuntimeError(f"a labelling process failed:\n{received}")
    return received


def _work(config: TrainConfig, steps: range, stage: int, sender: Connection) -> None:
    """Body of a worker: one batch waits in the pipe while the next is made; a dead reader ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process, which stops us
    try:
        for step in steps:
            try:
                sender.send(make_batch(config, step, stage))
            except UserError as error:
                sender.send(error)
                return
            except BrokenPipeError:
                raise
            except Exception:
                sender.send(traceback.format_exc())
                return
    except BrokenPipeError:
        return
