"""E5: does a network hold values and bounds that rules, its input and its own output do not tell? (method.md section 5)

The line's value is the net score (`findings`) of the regret Q*(s, a) - V*(s) of candidate next cities, read at the
decode token or at the city's own token, at the site and view that the probe set chooses. Fixed in advance: to choose
the best of all targets would favour networks by chance. All other targets stand beside it with their nulls: V*, the
1-tree bound, the nearest-neighbour incumbent, prune indicators, and what a search would go through (d*, whether the
nearest city is a dead end, incumbents and backtracks of branch and bound). How the value's own finding falls as Z
grows, and what a non-linear probe makes of it, is `sensitivity`: in the details, and no part of the value.

A linear code of a soft minimum over completions can escape linear probes: no value is no proof of none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mesaprobe.evidence.probing.findings import Arms, conclude
from mesaprobe.evidence.probing.questions import SET_NAMES, Question, Task, control_questions, residual_task
from mesaprobe.evidence.probing.readings import Reading, Tokens, best_reading, read
from mesaprobe.evidence.probing.sanity import sanity_summary, sanity_tasks
from mesaprobe.evidence.probing.sensitivity import Condition, conditions, sensitivity
from mesaprobe.evidence.probing.states import observe
from mesaprobe.evidence.probing.tables import line_result, site_arrays
from mesaprobe.evidence.probing.tokens import (
    city_tokens,
    decode_tokens,
    raw_cities,
    raw_states,
    single_tokens,
    stream_sites,
)
from mesaprobe.evidence.probing.value_targets import REGRET, ROOT_REGRET, ValueQuestions, value_questions
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject

ID, NAME = "E5", "values: regret of candidates beyond input, rules and output"
OF_VIEW = {"decode": REGRET, "city": ROOT_REGRET}
"""What is asked in each view of the line's value."""


@dataclass(frozen=True)
class ValueSettings:
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
    largest_detectable: float = 0.1
    """A minimum detectable effect above this, without a finding, is called underpowered."""


def values(subject: Subject, settings: ValueSettings, seed: int) -> LineResult:
    """Measure E5. Needs hook points of the residual stream and at least 6 cities."""
    decode, city = stream_sites(subject)
    decisions = decision_steps(subject.problem)
    if not decode or decisions.stop <= decisions.start or subject.problem.n < 6:
        return LineResult(
            "na", "no residual-stream hook points" if not decode else "fewer than 6 cities leave no values to look for"
        )
    counts = (settings.calibration_instances, settings.probe_instances, settings.test_instances)
    states = {
        name: observe(subject, draw_set(subject.problem, name, count, seed), decisions.stop)
        for name, count in zip(SET_NAMES, counts, strict=True)
    }
    questions = {name: value_questions(part) for name, part in states.items()}
    tasks = _tasks(questions, seed)
    if REGRET not in tasks["answer"]:
        return LineResult("na", "all candidates are worth the same, so there is no regret to look for")
    sanity = sanity_tasks(states, decisions)

    def views(network: Subject) -> dict[str, Tokens]:
        cities = city_tokens(network, states, city)
        return {
            "decode": decode_tokens(network, states, decisions, decode, settings.components),
            "city": single_tokens([site.hook for site in city], cities, settings.components),
        }

    seen = views(subject)
    own = _read_all(seen, {**tasks["answer"], **_named(tasks), **sanity}, seed)
    nested = _conditions(seen, questions, tasks, own, seed)
    twins, shown = [], []
    for twin in range(settings.random_twins):
        seen_of_twin = views(subject.random_twin(seed + 1 + twin))
        twins.append(_read_all(seen_of_twin, {**tasks["answer"], **sanity}, seed))
        shown.append([condition.shown(seen_of_twin) for condition in nested])
        del seen_of_twin  # before the next one's is made
    raw_city = single_tokens(["input"], raw_cities(states), settings.components)
    raw_views = {"decode": raw_states(states, decisions), "city": raw_city}
    raw = _read_all(raw_views, tasks["answer"], seed)
    effort = {"permutations": settings.permutations, "resamples": settings.resamples}
    found = conclude(_arms(tasks, own, twins, raw), REGRET, seed, **effort)
    beside = sensitivity(nested, seen, raw_views, shown, seed, **effort)
    details = {"sanity": sanity_summary(own, twins), "instances": settings.test_instances, **beside.summary()}
    by_view = [_view_arms(name, own, twins) for name in OF_VIEW.values()]
    arrays = site_arrays(by_view, found, found[REGRET], seed, settings.resamples)
    return line_result(found, REGRET, details, arrays, settings.largest_detectable)


def _conditions(
    seen: Mapping[str, Tokens],
    questions: Mapping[str, ValueQuestions],
    tasks: Mapping[str, Mapping[str, Task]],
    own: Mapping[str, Reading],
    seed: int,
) -> list[Condition]:
    asked = {view: _by_kind(questions, name, seed) for view, name in OF_VIEW.items()}
    given = {view: {kind: part[name] for kind, part in tasks.items() if name in part} for view, name in OF_VIEW.items()}
    return conditions(seen, asked, given, {view: own[name] for view, name in OF_VIEW.items()}, seed)


def _view_arms(name: str, own: Mapping[str, Reading], twins: list[dict[str, Reading]]) -> Arms:
    swap = own.get(f"objective swap: {name}")
    return Arms(own[name], {} if swap is None else {"objective swap": swap}, [twin[name] for twin in twins])


def _tasks(questions: Mapping[str, ValueQuestions], seed: int) -> dict[str, dict[str, Task]]:
    """Residual tasks by kind (answer, control task, objective swap) and name, without those of constant answer."""
    found: dict[str, dict[str, Task]] = {"answer": {}, "control task": {}, "objective swap": {}}
    for name in questions["probe"].asked:
        for kind, question in _by_kind(questions, name, seed).items():
            task = residual_task(name, question, seed)
            if task is not None:
                found[kind][name] = task
    return found


def _by_kind(questions: Mapping[str, ValueQuestions], name: str, seed: int) -> dict[str, dict[str, Question]]:
    """One target and its controls, by kind and then by instance set."""
    asked = {part: question.asked[name] for part, question in questions.items()}
    if name not in questions["probe"].swapped:
        return {"answer": asked}
    swapped = {part: question.swapped[name] for part, question in questions.items()}
    return {"answer": asked, "control task": control_questions(asked, seed), "objective swap": swapped}


def _named(tasks: Mapping[str, Mapping[str, Task]]) -> dict[str, Task]:
    """Controls under names of their own."""
    return {f"{kind}: {name}": task for kind, part in tasks.items() if kind != "answer" for name, task in part.items()}


def _read_all(views: Mapping[str, Tokens], tasks: Mapping[str, Task], seed: int) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    alone = [name for name in tasks if name.endswith((REGRET, ROOT_REGRET))]
    for view, tokens in views.items():
        own = {name: task for name, task in tasks.items() if (ROOT_REGRET in name) == (view == "city")}
        found.update(read(tokens, own, alone, seed))
    return found


def _arms(
    tasks: Mapping[str, Mapping[str, Task]],
    own: Mapping[str, Reading],
    twins: list[dict[str, Reading]],
    raw: Mapping[str, Reading],
) -> dict[str, Arms]:
    """For every target the network, its controls and its twins; the regret is read in both views, by each arm in
    the one that tells it more."""
    found: dict[str, Arms] = {}
    for name in tasks["answer"]:
        if name == ROOT_REGRET:
            continue
        both = [name, ROOT_REGRET] if name == REGRET else [name]
        controls = {
            kind: best_reading([own[f"{kind}: {part}"] for part in both if part in tasks[kind]])
            for kind in ("control task", "objective swap")
            if name in tasks[kind]
        }
        controls["raw input"] = best_reading([raw[part] for part in both])
        found[name] = Arms(
            best_reading([own[part] for part in both]),
            controls,
            [best_reading([twin[part] for part in both]) for twin in twins],
        )
    return found


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        values,
        {
            "quick": ValueSettings(500, 600, 600, 4),
            "standard": ValueSettings(1500, 1500, 1500, 8),
            "full": ValueSettings(4000, 4000, 4000, 20),
        },
    ),
)
