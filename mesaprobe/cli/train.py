"""`mesaprobe train`."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from mesaprobe.cli.words import parsed
from mesaprobe.errors import UserError
from mesaprobe.training.config import PRESETS, TrainConfig, read_train_config


@dataclass(frozen=True)
class TrainArguments:
    """Options of `mesaprobe train`."""

    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    preset: str | None = None
    """Start from a named config (quick, matrix8-optimal, matrix8-arm-a1, asymmetric8-optimal, ...); options below
    override it."""
    config: Path | None = None
    """Start from a config.json that an earlier run wrote."""
    out: Path | None = None
    """Folder of the run; default trained_models/PRESET."""
    resume: bool = False
    """Go on from the last checkpoint in the folder; a finished run is left as it is."""
    tensorboard: bool = False
    """Also write history.jsonl as TensorBoard event files, to the run's folder `events`, as it grows."""


def train(words: list[str]) -> None:
    base = _base_config(words)
    given: TrainArguments = parsed(TrainArguments, "train", words, TrainArguments(run=base))
    if given.out is None and given.preset is None:
        raise UserError("name a folder for the run with --out, or a --preset")
    out = given.out or Path("trained_models") / str(given.preset)
    from mesaprobe.training.loop import train

    with _progress() as show, _events(out if given.tensorboard else None) as written:

        def follow(progress: Any) -> None:
            show(progress)
            if progress.evaluation is not None:
                written()

        sets = train(given.run, out, resume=given.resume, show=follow)
    natural = sets["natural"]
    print(
        f"{out}: mean gap {natural.gap_mean:.2%}, {natural.optimal_fraction:.1%} of the tours optimal, "
        f"{natural.legal_fraction:.2%} legal without the mask ({natural.instances} held-out instances)"
    )


@contextlib.contextmanager
def _events(run: Path | None) -> Iterator[Callable[[], None]]:
    """What is to be called after every evaluation; nothing without a folder. The rest is written at the end."""
    if run is None:
        yield lambda: None
        return
    from mesaprobe.training.events import EventLog

    log: EventLog | None = None

    def update() -> None:
        nonlocal log
        log = log or EventLog(run)
        log.update()

    yield update
    update()
    assert log is not None
    log.close()


def _base_config(words: list[str]) -> TrainConfig:
    """What --preset or --config names, read before the rest, because the other options override it."""
    found = {name: _option(words, name) for name in ("--preset", "--config")}
    if found["--preset"] and found["--config"]:
        raise UserError("give --preset or --config, not both")
    if found["--config"]:
        return read_train_config(Path(found["--config"]))
    return PRESETS[found["--preset"]] if found["--preset"] else TrainConfig()


def _option(words: list[str], name: str) -> str | None:
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


class _progress:
    """A bar with rate and remaining time on a terminal; a line per evaluation otherwise."""

    def __enter__(self) -> Callable[[Any], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console)
            self.task = self.bar.add_task("training", total=None, note="")
            self.bar.start()
        return self.show

    def show(self, progress: Any) -> None:
        """Called by the training loop (mesaprobe.training.loop.Progress)."""
        speed = f"{progress.instances_per_second:,.0f} instances/s"
        note = f"loss {progress.loss:.3f}, {speed}"
        if progress.evaluation is not None:
            note += f", gap {progress.evaluation.gap_mean:.2%}, optimal {progress.evaluation.optimal_fraction:.1%}"
        if self.bar is not None:
            self.bar.update(self.task, total=progress.steps, completed=progress.step, note=note)
        elif progress.evaluation is not None:
            left = progress.seconds_left
            self.console.print(f"step {progress.step}/{progress.steps}: {note}, {left:.0f} s left", soft_wrap=True)

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()
