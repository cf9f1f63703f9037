"""E6: does a network hold completions, above all the one that it rejects? (method.md section 5; amendment 5)

The line's value is the net score (`findings`) of edges that only the runner-up's completion takes (`plan_targets`),
read at the decode token (one linear readout a pair of cities), at the hidden units of its MLPs, or from pairs of city
tokens (bilinear), at the site and view that the probe set chooses. The chosen side stands beside it and is context:
rules that build tours hold it, too. All is beyond what rules build after either option and what the output says.
Whether the edges that are read fit together as one path stands in the details (`joint_plans`), for both completions.

Blind spots: a network that compares whole tours inside one softmax keeps no trace of what lost (P1 at high
sharpness), and a hidden layer with one unit a tour needs more samples than units before a linear probe can read it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesaprobe.evidence.probing.findings import Arms, conclude
from mesaprobe.evidence.probing.joint_plans import joint_summary
from mesaprobe.evidence.probing.plan_targets import (
    CHOSEN,
    REJECTED,
    PlanQuestions,
    PlanStates,
    city_pairs,
    observe_plans,
    plan_questions,
)
from mesaprobe.evidence.probing.questions import SET_NAMES, Task, control_questions, residual_task
from mesaprobe.evidence.probing.readings import Reading, Tokens, best_reading, read
from mesaprobe.evidence.probing.tables import line_result, site_arrays
from mesaprobe.evidence.probing.tokens import (
    city_tokens,
    decode_tokens,
    pair_tokens,
    raw_cities,
    raw_states,
    stream_sites,
)
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.instruments.activations import mlp_sites
from mesaprobe.models.subject import Subject

ID, NAME = "E6", "plans: edges of the rejected completion beyond input, rules and output"
CONTROLS = ("control task", "objective swap")


@dataclass(frozen=True)
class PlanSettings:
    """How much the line spends, and what it calls too little."""

    calibration_instances: int
    """To fit g(Z)."""
    probe_instances: int
    """To fit probes and to choose sites."""
    test_instances: int
    """To estimate."""
    random_twins: int
    components: int = 128
    """Principal components of a site that probes see at most."""
    permutations: int = 999
    resamples: int = 2000
    largest_detectable: float = 0.05
    """A minimum detectable effect above this, without a finding, is called underpowered."""
    least_open: float = 0.1
    """Share of the variance of the rejected edges that g(Z) must leave open; below, there is no plan to look for."""


def plans(subject: Subject, settings: PlanSettings, seed: int) -> LineResult:
    """Measure E6. Needs hook points of the residual stream and at least 6 cities."""
    decode = stream_sites(subject)[0]
    if not decode or subject.problem.n < 6:
        return LineResult(
            "na", "no residual-stream hook points" if not decode else "fewer than 6 cities leave no plan to look for"
        )
    counts = (settings.calibration_instances, settings.probe_instances, settings.test_instances)
    states = {
        name: observe_plans(subject, draw_set(subject.problem, name, count, seed))
        for name, count in zip(SET_NAMES, counts, strict=True)
    }
    questions = {name: plan_questions(part, estimates=name == "test") for name, part in states.items()}
    tasks = _tasks(questions, seed)
    left_open = {name: _left_open(tasks[name]) if name in tasks else 0.0 for name in (REJECTED, CHOSEN)}
    if left_open[REJECTED] < settings.least_open:
        return LineResult(
            "na",
            f"rules and the network's own output already tell {1 - left_open[REJECTED]:.1%} of the rejected "
            "completion's edges: there is no plan beyond them to look for",
            details={"left_open": left_open},
        )
    answers = {name: task for name, task in tasks.items() if name in (REJECTED, CHOSEN)}
    own, best = _read_all(_views(subject, states, settings), tasks, seed)
    shown, twins = [best], []
    for twin in range(settings.random_twins):
        of_twin, best = _read_all(_views(subject.random_twin(seed + 1 + twin), states, settings), answers, seed)
        twins.append(of_twin)
        shown.append(best)
    raw, _ = _read_all(_raw_views(states), answers, seed)
    arms = {name: _arms(name, own, twins, raw) for name in answers}
    found = conclude(arms, REJECTED, seed, permutations=settings.permutations, resamples=settings.resamples)
    by_view = [
        Arms(part[REJECTED], _swap(part), [twin[view][REJECTED] for twin in twins]) for view, part in own.items()
    ]
    arrays = site_arrays(by_view, found, found[REJECTED], seed, settings.resamples)
    joint = {
        "rejected": _joint_rejected(questions, shown, states["test"], seed),
        "chosen": _joint_chosen(own, twins, states["test"], seed) if CHOSEN in answers else None,
    }
    details = {"left_open": left_open, "instances": settings.test_instances, "joint_consistency": joint}
    return line_result(found, REJECTED, details, arrays, settings.largest_detectable)


def _views(network: Subject, states: Mapping[str, PlanStates], settings: PlanSettings) -> Iterator[Tokens]:
    """One after the other: at budget full each takes a gigabyte."""
    problem, steps = network.problem, states["probe"].steps
    (decode, city), hidden = stream_sites(network), mlp_sites(network)
    yield decode_tokens(network, states, steps, decode, settings.components)
    if hidden:
        yield decode_tokens(network, states, steps, hidden, settings.components, view="hidden")
    pairs = city_pairs(problem.n, problem.symmetric)
    yield pair_tokens([site.hook for site in city], city_tokens(network, states, city), pairs, problem.symmetric)


def _raw_views(states: Mapping[str, PlanStates]) -> Iterator[Tokens]:
    problem = states["probe"].instances.problem
    pairs = city_pairs(problem.n, problem.symmetric)
    yield raw_states(states, states["probe"].steps)
    yield pair_tokens(["input"], raw_cities(states), pairs, problem.symmetric)


def _tasks(questions: Mapping[str, PlanQuestions], seed: int) -> dict[str, Task]:
    """Both targets, and the controls of the rejected one; those with a constant answer are left out."""
    chosen, rejected = ({part: found.asked[name] for part, found in questions.items()} for name in (CHOSEN, REJECTED))
    asked = {
        REJECTED: rejected,
        CHOSEN: chosen,
        f"control task: {REJECTED}": control_questions(rejected, seed),
        f"objective swap: {REJECTED}": {part: found.swapped for part, found in questions.items()},
    }
    found = {name: residual_task(name, question, seed) for name, question in asked.items()}
    return {name: task for name, task in found.items() if task is not None}


def _joint_rejected(
    questions: Mapping[str, PlanQuestions], shown: Sequence[Tokens], states: PlanStates, seed: int
) -> dict[str, Any] | None:
    """Of all edges of the rejected completion, shared ones included; the network is the first that is shown."""
    asked = {part: found.whole if part == "test" else found.asked[REJECTED] for part, found in questions.items()}
    task = residual_task(REJECTED, asked, seed)
    if task is None:
        return None
    views = [_read_all([tokens], {REJECTED: task}, seed)[0] for tokens in shown]
    own, *twins = [next(iter(part.values()))[REJECTED] for part in views]
    return joint_summary(own, twins, states, states.rivals, seed)


def _joint_chosen(
    own: Mapping[str, Mapping[str, Reading]],
    twins: Sequence[Mapping[str, Mapping[str, Reading]]],
    states: PlanStates,
    seed: int,
) -> dict[str, Any]:
    first, *others = [best_reading([part[CHOSEN] for part in views.values()]) for views in (own, *twins)]
    return joint_summary(first, others, states, states.tours, seed)


def _left_open(task: Task) -> float:
    """Variance of the residuals on the test set over that of the answers."""
    return float((task.test_residuals**2).mean() / task.test.answers.var())


def _read_all(
    views: Iterable[Tokens], tasks: Mapping[str, Task], seed: int
) -> tuple[dict[str, dict[str, Reading]], Tokens]:
    """Readings by view and task, and the view and site alone that tell most of the rejected completion."""
    found, shown = {}, {}
    for tokens in views:
        own = {name: task.by_slot() if tokens.view == "pair" else task for name, task in tasks.items()}
        found[tokens.view] = read(tokens, own, list(own), seed)
        shown[tokens.view] = tokens.at(found[tokens.view][REJECTED].site)
        del tokens  # before the next view is made
    return found, shown[best_reading([part[REJECTED] for part in found.values()]).view]


def _arms(
    name: str,
    own: Mapping[str, Mapping[str, Reading]],
    twins: list[dict[str, dict[str, Reading]]],
    raw: Mapping[str, Mapping[str, Reading]],
) -> Arms:
    """Every arm at its own best view and site."""

    def best(views: Mapping[str, Mapping[str, Reading]], task: str) -> Reading:
        return best_reading([part[task] for part in views.values()])

    first = next(iter(own.values()))
    controls = {kind: best(own, f"{kind}: {name}") for kind in CONTROLS if f"{kind}: {name}" in first}
    return Arms(best(own, name), {**controls, "raw input": best(raw, name)}, [best(twin, name) for twin in twins])


def _swap(own: Mapping[str, Reading]) -> dict[str, Reading]:
    name = f"objective swap: {REJECTED}"
    return {"objective swap": own[name]} if name in own else {}


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        plans,
        {
            "quick": PlanSettings(350, 500, 400, 3),
            "standard": PlanSettings(1500, 1500, 1500, 8),
            "full": PlanSettings(4000, 4000, 4000, 20),
        },
    ),
)
