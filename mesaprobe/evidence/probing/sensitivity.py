"""How much of E5 hangs on what it is conditioned on, and on its probes being linear (method.md section 5, failures).

Two questions beside the line's value, which they do not enter:

    nuisance sets   the same target given local distances alone, then what rules complete and choose as well, then the
                    network's output as well (the line's Z). What falls from one set to the next is what a probe reads
                    of the regret because rules, or the output, tell it; `left_open` says how much there was to read.
    nonlinear       one hidden layer of 32 units (`mlp_probe`) in the place of the ridge probe, given all of Z: a code
                    that is not linear shows here and not there. It may compute what it decodes, hence the controls.

View and site are chosen anew for each set, by the network's own probes on the probe set; there all arms are read
(network, control task, objective swap, raw input, random twins). The line lets each arm choose for itself, so that its
own nulls are a little stricter. As with the line's other targets the network is residualised and the nulls are in the
direct form. p-values are adjusted for all of these findings together.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from mesaprobe.evidence.probing.findings import Arms, Finding, conclude
from mesaprobe.evidence.probing.questions import Question, Task, residual_task
from mesaprobe.evidence.probing.readings import PARTS, Reading, Tokens, best_reading, read
from mesaprobe.evidence.probing.states import nested_columns
from mesaprobe.instruments.probes import mlp_probe

ANSWER, SWAP, NONLINEAR = "answer", "objective swap", "nonlinear probe"
WEIGHT_DECAY = 10.0
"""Of the non-linear probe. With the 1e-3 of its default, some 2,000 samples of 128 columns are learnt by heart."""

Kinds = Mapping[str, Mapping[str, Question]]
"""A target and its controls by kind (answer, control task, objective swap), then by instance set."""


@dataclass(frozen=True, eq=False)
class Condition:
    """One nuisance set, with the view and the site at which the network tells most given it."""

    name: str
    view: str
    site: int
    tasks: Mapping[str, Task]
    """By kind; those of constant answer are missing."""

    def shown(self, views: Mapping[str, Tokens]) -> Tokens:
        """That site of a network, or of its twin."""
        return views[self.view].at(self.site)

    @property
    def left_open(self) -> float:
        """Variance of the answer's residuals on the test set over that of the answers."""
        task = self.tasks[ANSWER]
        return float(np.square(task.test_residuals).mean() / task.test.answers.var())


def conditions(
    views: Mapping[str, Tokens],
    targets: Mapping[str, Kinds],
    tasks: Mapping[str, Mapping[str, Task]],
    readings: Mapping[str, Reading],
    seed: int,
) -> list[Condition]:
    """The nuisance sets, smallest first. `targets`, `tasks` and `readings` are by view: what the view asks, and what
    was asked and read of the network given all of Z."""
    width = next(iter(targets.values()))[ANSWER]["probe"].z.shape[1]
    found = []
    for name, columns in nested_columns(width).items():
        if len(columns) == width:
            best, given = best_reading(list(readings.values())), tasks
        else:
            given = {view: _narrower({ANSWER: kinds[ANSWER]}, columns, width, seed) for view, kinds in targets.items()}
            alone = [read(views[view], part, list(part), seed)[ANSWER] for view, part in given.items()]
            best = best_reading(alone)
            controls = {kind: asked for kind, asked in targets[best.view].items() if kind != ANSWER}
            given = {best.view: {**given[best.view], **_narrower(controls, columns, width, seed)}}
        found.append(Condition(name, best.view, best.site, given[best.view]))
    return found


def _narrower(kinds: Kinds, columns: Int64[np.ndarray, " k"], width: int, seed: int) -> dict[str, Task]:
    """The tasks when only these columns of Z are known; a swapped one knows them under either objective."""
    both = np.concatenate([columns, [width], width + 1 + columns])  # laid out by `questions.swapped_question`
    found = {}
    for kind, asked in kinds.items():
        own = both if kind == SWAP else columns
        task = residual_task(
            kind, {part: replace(question, z=question.z[:, own]) for part, question in asked.items()}, seed
        )
        if task is not None:
            found[kind] = task
    return found


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What the line's target gives under other conditions."""

    findings: dict[str, Finding]
    """By nuisance set, smallest first, and of the non-linear probe given all of Z."""
    left_open: dict[str, float]
    """By nuisance set."""

    def summary(self) -> dict[str, Any]:
        """JSON values for a line's details."""
        sets = {name: {"left_open": share, **_summary(self.findings[name])} for name, share in self.left_open.items()}
        return {"nuisance_sets": sets, "nonlinear_probe": _summary(self.findings[NONLINEAR])}


def sensitivity(
    given: Sequence[Condition],
    own: Mapping[str, Tokens],
    raw: Mapping[str, Tokens],
    twins: Sequence[Sequence[Tokens]],
    seed: int,
    *,
    permutations: int,
    resamples: int,
) -> Sensitivity:
    """Read all arms given each of `conditions`: the network's views, the raw input's, each twin's `Condition.shown`."""

    def linear(tokens: Tokens, task: Task) -> Reading:
        return read(tokens, {task.name: task}, [task.name], seed)[task.name]

    def nonlinear(tokens: Tokens, task: Task) -> Reading:
        return read_nonlinearly(tokens, task, seed)

    def arms(place: int, reader: Callable[[Tokens, Task], Reading]) -> Arms:
        condition = given[place]
        seen, answer = condition.shown(own), condition.tasks[ANSWER]
        controls = {kind: reader(seen, task) for kind, task in condition.tasks.items() if kind != ANSWER}
        controls["raw input"] = reader(raw[condition.view], answer)
        return Arms(reader(seen, answer), controls, [reader(shown[place], answer) for shown in twins])

    asked = {condition.name: arms(place, linear) for place, condition in enumerate(given)}
    asked[NONLINEAR] = arms(len(given) - 1, nonlinear)
    findings = conclude(asked, "", seed, permutations=permutations, resamples=resamples)
    return Sensitivity(findings, {condition.name: condition.left_open for condition in given})


def _summary(finding: Finding) -> dict[str, Any]:
    keys = ("site", "net", "ci", "information", "information_ci", "direct_information", "nulls", "p")
    whole = finding.summary()
    return {key: whole[key] for key in keys}


def read_nonlinearly(tokens: Tokens, task: Task, seed: int) -> Reading:
    """As `read` with the task alone, at a view's only site: activations and g(Z) of the slots, by `mlp_probe`."""
    known = [task.known(part) for part in PARTS]
    sides = zip((tokens.probe, tokens.test), known, strict=True)
    inputs = [np.concatenate([side[0], beside], axis=1) for side, beside in sides]
    scale = max(float(task.probe_residuals.std()), 1e-12)
    target = task.probe.table(task.probe_residuals) / scale
    target = target[:, 0] if target.shape[1] == 1 else target
    probe = mlp_probe("values", seed=seed, weight_decay=WEIGHT_DECAY)
    # Sums over threads round as the threads come: one thread, so that the same seed gives the same probe.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred passes are the probe's measure
        guesses = probe.fit(inputs[0], target).predict(inputs[1]).reshape(len(inputs[1]), -1) * scale
    return Reading(task, tokens.view, tokens.sites, np.zeros(1), guesses[task.test.asked].astype(np.float32)[None])
