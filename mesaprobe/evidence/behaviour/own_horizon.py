"""E2b: does the network choose what its own later choices will make the cheapest? (E2 for networks that search badly)

A searcher over few tours is wrong about the optimum almost as often as a rule, so E2 misses it. But it does what its
own consequences say: let Q_m(s, a) be the cost of going to a and then on as the network itself would (its greedy
completion), and call the cities of least Q_m its own best. Looked at are decisions where no nearest city is its own
best, by a clear margin. There

    value = [acc_m - acc_g] / [1 - acc_g] ,

acc_m being how often the network names its own best, acc_g how often a boosted imitator of its choices does (the better
of its chance and its favourite).
The imitator knows what a nearest-neighbour completion of every candidate costs. A one-step rule never names such a city
unless its imitator does too; an exact enumerator of any set of tours always does. Nothing is said of the optimum.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mesaprobe.errors import UserError
from mesaprobe.evidence.behaviour.horizon import HorizonSettings, balanced_set, imitator_of
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.decision_states import DecisionStates, log_chances, states_of_set
from mesaprobe.evidence.states.own_completions import completion_costs, own_completions
from mesaprobe.labels import EvaluationSet
from mesaprobe.labels.evaluation_sets import TOP_NEED
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.solvers.bounds.lower_bounds import prefix_costs
from mesaprobe.statistics import bootstrap_of_sums, instance_sums, minimum_detectable_effect, sign_flip_p

ID, NAME = "E2b", "look-ahead by the network's own completions, beyond local imitation"


@dataclass(frozen=True)
class OwnHorizonSettings:
    """How many states."""

    sets: HorizonSettings
    """The balanced sets: those of E2."""
    states_per_need: int
    """Decisions of the test set whose every candidate the network completes, for each d* (of the optimum)."""
    least_margin: float = 0.02
    """Of the own best over the next, as a fraction of the tour."""
    fewest_states: int = 20
    powered_states: int = 60
    most_of_imitator: float = 0.95
    resamples: int = 2000
    sign_flips: int = 999


def own_horizon(subject: Subject, settings: OwnHorizonSettings, seed: int) -> LineResult:
    """Run the line on a subject."""
    problem = subject.problem
    steps = decision_steps(problem)
    if steps.stop - steps.start < 1 or problem.n < 6:
        return LineResult("na", f"{problem.n} cities leave no decisions that need a look-ahead")
    try:
        calibration, test = (balanced_set(problem, name, settings.sets, seed) for name in ("calibration", "test"))
    except UserError as error:
        return LineResult("na", str(error))
    rng = np.random.default_rng([seed, 835])
    states = states_of_set(test)[_some_of_each(test, settings.states_per_need, rng)]
    imitator = imitator_of(subject, states_of_set(calibration), seed)
    values = own_values(subject, states)
    best, clear = _own_best(states, values, settings.least_margin)
    looked = clear & ~(best & _nearest(states)).any(axis=1)
    if looked.sum() < settings.fewest_states:
        return LineResult(
            "na",
            f"only in {int(looked.sum())} of {len(states)} decisions is the own best another than the nearest "
            f"city; {settings.fewest_states} are needed",
        )
    rows = np.arange(len(states))
    named = best[rows, log_chances(subject, states).argmax(axis=1)][looked]
    imitated = imitator.chance_of(states, best)[looked]
    favourite = imitator.favours(states, best)[looked].astype(np.float64)
    imitated = max(imitated, favourite, key=lambda each: float(each.mean()))
    return _result(named, imitated, states[np.flatnonzero(looked)], len(states), settings, rng)


def own_values(subject: Subject, states: DecisionStates) -> Float64[np.ndarray, "state n"]:
    """Q_m(s, a): what it costs to go to a and on as the network does; infinite for visited cities."""
    at = np.argwhere(states.free)
    forced = states[at[:, 0]]
    found = np.full(states.free.shape, np.inf)
    found[at[:, 0], at[:, 1]] = completion_costs(forced, own_completions(subject, forced, at[:, 1]))
    return found


def _own_best(
    states: DecisionStates, values: Float64[np.ndarray, "state n"], least_margin: float
) -> tuple[Bool[np.ndarray, "state n"], Bool[np.ndarray, " state"]]:
    """The cities of least own value, and whether the next ones cost clearly more."""
    best = values == values.min(axis=1, keepdims=True)
    least, second = values.min(axis=1), np.where(best, np.inf, values).min(axis=1)
    spent = prefix_costs(states.weights, states.tours)[np.arange(len(states)), states.steps]
    return best, np.isfinite(second) & (second - least >= least_margin * (spent + least))


def _nearest(states: DecisionStates) -> Bool[np.ndarray, "state n"]:
    near = np.where(states.free, states.weights[np.arange(len(states)), states.current], np.inf)
    return np.asarray(near == near.min(axis=1, keepdims=True))


def _some_of_each(test: EvaluationSet, count: int, rng: np.random.Generator) -> Int64[np.ndarray, " state"]:
    needs = test.cells[:, 0]
    picked = [rng.permutation(np.flatnonzero(needs == need))[:count] for need in range(TOP_NEED + 1)]
    return np.sort(np.concatenate(picked))


def _result(
    named: Bool[np.ndarray, " state"],
    imitated: Float64[np.ndarray, " state"],
    states: DecisionStates,
    tried: int,
    settings: OwnHorizonSettings,
    rng: np.random.Generator,
) -> LineResult:
    least = 1.0 - settings.most_of_imitator

    def statistic(sums: Float64[np.ndarray, "draw three"]) -> Float64[np.ndarray, " draw"]:
        own, local = sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]
        return np.asarray((own - local) / np.maximum(1.0 - local, least))

    terms = instance_sums(np.stack([named, imitated, np.ones(len(named))]), states.groups)
    found = bootstrap_of_sums(statistic, terms, rng, resamples=settings.resamples)
    detectable = minimum_detectable_effect(float(found.error))
    few = len(named) < settings.powered_states
    return LineResult(
        "underpowered" if few else "ok",
        f"only {len(named)} decisions qualify; an effect of {detectable:.3f} could be seen" if few else None,
        found[()].value,
        found[()].ci,
        sign_flip_p(terms[0] - terms[1], rng, flips=settings.sign_flips),
        null={"local imitator (0)": 0.0},
        details={
            "names_own_best": float(named.mean()),
            "imitator_names_own_best": float(imitated.mean()),
            "states": len(named),
            "tried": tried,
            "detectable": detectable,
        },
    )


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        own_horizon,
        {
            "quick": OwnHorizonSettings(HorizonSettings(30_000, 300, 1500, 150, 200), 70),
            "standard": OwnHorizonSettings(HorizonSettings(60_000, 1000, 5000, 500, 600), 300),
            "full": OwnHorizonSettings(HorizonSettings(120_000, 2000, 15_000, 1500, 1500), 1000),
        },
    ),
)
