"""E2: does the network stay right where a state needs looking further ahead than any rule does?

acc(k) is the share of right decisions among states with look-ahead need d* = k, and acc_g(k) that of a boosted
imitator of the network's choices on local features (the better of its chance and its favourite), on the same states;
margins are matched by averaging over the same bins of margin for every k. The line's value is

    mean over k >= 2 of [acc(k) - acc_g(k)] / [1 - acc_g(k)] ,

0 for a network that its local imitator explains, 1 for one that is always right. An amortised map of values scores
high, too: the line says what is computed, not how. Beside it: slopes of the log odds of being right on d* and on the
size of a branch-and-bound tree, the same value on instances that are drawn otherwise, and whether a state reached by
another road is answered alike (context, no evidence).
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from mesaprobe.errors import UserError
from mesaprobe.evidence.behaviour.imitator import Imitator, fit_imitator
from mesaprobe.evidence.behaviour.noise_model import NoiseModel, fit_noise
from mesaprobe.evidence.behaviour.same_state import path_dependence
from mesaprobe.evidence.behaviour.shifted import shifts
from mesaprobe.evidence.behaviour.slopes import logit_slopes
from mesaprobe.evidence.protocol import SETS
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.decision_states import (
    DecisionStates,
    is_right,
    log_chances,
    states_along_optimal_tours,
    states_of_set,
)
from mesaprobe.evidence.states.pairs import label_cache
from mesaprobe.labels import EvaluationSet, EvaluationSetConfig, evaluation_set, lookahead_needs
from mesaprobe.labels.evaluation_sets import TOP_NEED
from mesaprobe.labels.values import decision_steps, relative_margins
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Problem
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound_totals
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.statistics import (
    Estimate,
    Estimates,
    bootstrap_of_sums,
    instance_sums,
    minimum_detectable_effect,
    sign_flip_p,
)

ID, NAME = "E2", "look-ahead horizon beyond local imitation"
DEEP = 2
"""Least d* that counts: at 1 a nearest-neighbour completion of every candidate is enough, and the imitator has that."""


@dataclass(frozen=True)
class HorizonSettings:
    """How many states."""

    pool: int
    """Natural instances per set, in which balanced states are looked for (labels, kept on disk)."""
    states_per_need: int
    """Decisions for each d* in 0, 1, 2, 3, 4+, in either set, spread over margins and tiers."""
    shifted_pool: int
    """Instances of each shift."""
    shifted_states: int
    """Deep decisions kept of each shift."""
    repeated_states: int
    """States that are also reached by another road."""
    margin_edges: tuple[float, ...] = (0.02, 0.05, 0.10)
    fewest_in_cell: int = 5
    fewest_deep: int = 30
    powered_deep: int = 100
    local_null: str = "the better of the imitator's chance and its favourite"
    most_of_imitator: float = 0.95
    """1 - acc_g counts as at least 1 - this."""
    resamples: int = 2000
    sign_flips: int = 999


@dataclass(frozen=True, eq=False)
class Answers:
    """Who is right at the states of a set, and the cell of each."""

    right: Bool[np.ndarray, " state"]
    imitated: Float64[np.ndarray, " state"]
    """Chance that the imitator is right."""
    favourite: Bool[np.ndarray, " state"]
    """Whether its most likely city is."""
    needs: Int64[np.ndarray, " state"]
    margins: Int64[np.ndarray, " state"]
    """Bin of the margin."""
    groups: Int64[np.ndarray, " state"]


def lookahead_horizon(subject: Subject, settings: HorizonSettings, seed: int) -> LineResult:
    """Run the line on a subject."""
    problem = subject.problem
    steps = decision_steps(problem)
    if steps.stop - steps.start < 1 or problem.n < 6:
        return LineResult("na", f"{problem.n} cities leave no decisions that need a look-ahead")
    try:
        calibration, test = (balanced_set(problem, name, settings, seed) for name in ("calibration", "test"))
    except UserError as error:
        return LineResult("na", str(error))
    states = states_of_set(test)
    deep = int((test.cells[:, 0] >= DEEP).sum())
    if deep < settings.fewest_deep:
        return LineResult("na", f"only {deep} decisions with d* of at least {DEEP} in {settings.pool} instances")
    imitator = imitator_of(subject, states_of_set(calibration), seed)
    answers = _answers(subject, imitator, states, test.cells)
    rng = np.random.default_rng([seed, 831])
    shifted = _shifted(subject, imitator, settings, seed, rng)
    repeated = path_dependence(subject, states[np.flatnonzero(states.steps >= 3)[: settings.repeated_states]], rng)
    return _result(answers, test, states, deep, shifted, repeated, settings, rng)


def balanced_set(problem: Problem, name: str, settings: HorizonSettings, seed: int) -> EvaluationSet:
    """Decisions balanced over d* and margin, of instances of their own; UserError if there are none."""
    own_seed = int(np.random.default_rng([seed, 1000 + SETS.index(name), 832]).integers(2**31))
    config = EvaluationSetConfig(
        problem.config, settings.pool, settings.states_per_need, settings.margin_edges, own_seed
    )
    return evaluation_set(config, label_cache())


@dataclass(frozen=True, eq=False)
class CalibratedImitator:
    """The local imitator with the noise that makes its chances those of the network's choices, given what it sees.

    Its most likely city alone would be no null: where rules are wrong by selection, as on all deep states, a rule's
    favourite is wrong, too, and a network that errs at random beats it. What such a network reaches is the chance,
    given Z, that it names a right city. The chance alone is too little for a network that follows local features more
    closely than trees can learn. The null is the better of both.
    """

    trees: Imitator
    noise: NoiseModel

    def chance_of(self, states: DecisionStates, cities: Bool[np.ndarray, "state n"]) -> Float64[np.ndarray, " state"]:
        """Chance that the network, as far as the imitator knows it, names one of these cities."""
        free = states.free
        costs = np.where(free, -self.trees.scores(states.nuisance(), free), 0.0)
        return np.asarray(np.where(cities, np.exp(self.noise.log_p(costs, free)), 0.0).sum(axis=1))

    def favours(self, states: DecisionStates, cities: Bool[np.ndarray, "state n"]) -> Bool[np.ndarray, " state"]:
        """Whether its most likely city is one of these."""
        return is_right(self.trees.scores(states.nuisance(), states.free), cities)


def imitator_of(subject: Subject, states: DecisionStates, seed: int) -> CalibratedImitator:
    """Trees fitted to the network's answers on three quarters of the instances; noise fitted to its choices on the
    rest."""
    log_p, nuisance, free = log_chances(subject, states), states.nuisance(), states.free
    shown = states.groups % 4 != 0
    choices = np.eye(free.shape[1])[log_p.argmax(axis=1)]
    with np.errstate(divide="ignore"):
        trees = fit_imitator(states[shown], nuisance[shown], np.log(choices[shown]), seed)
    costs = np.where(free, -trees.scores(nuisance, free), 0.0)[~shown]
    return CalibratedImitator(trees, fit_noise(costs, free[~shown], choices[~shown])[0])


def _answers(
    subject: Subject, imitator: CalibratedImitator, states: DecisionStates, cells: Int64[np.ndarray, "state 3"]
) -> Answers:
    optimal = states.optimal()
    right = is_right(log_chances(subject, states), optimal)
    chance, favourite = imitator.chance_of(states, optimal), imitator.favours(states, optimal)
    return Answers(right, chance, favourite, cells[:, 0], cells[:, 1], states.groups)


def horizon_curve(answers: Answers, settings: HorizonSettings, rng: np.random.Generator) -> Estimates:
    """The value, then acc(k), then acc_g(k), for k = 0 .. TOP_NEED; nan where no cell has states enough."""
    bins = len(settings.margin_edges)
    cell = answers.needs * bins + answers.margins
    inside = cell[None] == np.arange((TOP_NEED + 1) * bins)[:, None]
    used = (inside.sum(axis=1) >= settings.fewest_in_cell).reshape(TOP_NEED + 1, bins)
    terms = np.stack([inside * answers.right, inside * answers.imitated, inside * answers.favourite, inside])

    def statistic(sums: Float64[np.ndarray, "draw four cell"]) -> Float64[np.ndarray, "draw result"]:
        counts = np.maximum(sums[:, 3], 1e-9)
        rates = (sums[:, :3] / counts[:, None]).reshape(len(sums), 3, TOP_NEED + 1, bins)
        curves = (rates * used).sum(axis=3) / np.where(used.any(axis=1), used.sum(axis=1), np.nan)
        own, local = curves[:, 0], np.maximum(curves[:, 1], curves[:, 2])
        beyond = (own - local) / np.maximum(1.0 - local, 1.0 - settings.most_of_imitator)
        return np.concatenate([np.nanmean(beyond[:, DEEP:], axis=1, keepdims=True), own, local], axis=1)

    return bootstrap_of_sums(statistic, instance_sums(terms, answers.groups), rng, resamples=settings.resamples)


def _gains(answers: Answers, settings: HorizonSettings) -> Float64[np.ndarray, " instance"]:
    """What each instance adds to the value, up to a factor: right answers beyond the imitator's on deep states, each
    weighted so that every cell counts the same."""
    cell = answers.needs * len(settings.margin_edges) + answers.margins
    counts = np.bincount(cell)[cell]
    deep = (answers.needs >= DEEP) & (counts >= settings.fewest_in_cell)
    local = max((answers.imitated, answers.favourite), key=lambda each: float((each * deep / counts).sum()))
    return instance_sums(np.where(deep, (answers.right - local.astype(np.float64)) / counts, 0.0), answers.groups)


def _shifted(
    subject: Subject, imitator: CalibratedImitator, settings: HorizonSettings, seed: int, rng: np.random.Generator
) -> dict[str, dict[str, object]]:
    """Right answers beyond the imitator's on deep decisions of instances drawn otherwise, margins not matched."""
    found: dict[str, dict[str, object]] = {}
    for number, (name, draw) in enumerate(shifts(subject.problem).items()):
        source = np.random.default_rng([seed, 833, number])
        states = states_along_optimal_tours(draw(subject.problem, settings.shifted_pool, source), source)
        needs = _deep_needs(states, settings)
        kept = np.flatnonzero(needs >= DEEP)[: settings.shifted_states]
        if len(kept) < settings.fewest_deep:
            found[name] = {"value": None, "ci": None, "states": len(kept)}
            continue
        cells = np.stack([needs[kept], np.zeros(len(kept), dtype=np.int64), np.zeros(len(kept), dtype=np.int64)], 1)
        answers = _answers(subject, imitator, states[kept], cells)
        estimate = _pooled(answers, settings, rng)
        found[name] = {"value": estimate.value, "ci": list(estimate.ci), "states": len(kept)} | _rates(answers)
    return found


def _deep_needs(states: DecisionStates, settings: HorizonSettings) -> Int64[np.ndarray, " state"]:
    """d* of every state of whole instances in order; -1 where the margin is below the first edge."""
    steps = decision_steps(states.instances.problem)
    first = np.flatnonzero(states.steps == steps.start)
    weights, tours = states.weights[first], states.tours[first]
    values = action_values(weights, tours)
    margins = relative_margins(weights, tours, values)[:, steps]
    clear = (margins >= settings.margin_edges[0]) & np.isfinite(margins)
    return np.where(clear, np.minimum(lookahead_needs(weights, tours, values, steps), TOP_NEED), -1).ravel()


def _pooled(answers: Answers, settings: HorizonSettings, rng: np.random.Generator) -> Estimate:
    ones = np.ones(len(answers.right))
    terms = instance_sums(np.stack([answers.right, answers.imitated, answers.favourite, ones]), answers.groups)
    least = 1.0 - settings.most_of_imitator

    def statistic(sums: np.ndarray) -> np.ndarray:
        own, local = sums[:, 0] / sums[:, 3], sums[:, 1:3].max(axis=1) / sums[:, 3]
        return np.asarray((own - local) / np.maximum(1.0 - local, least))

    return bootstrap_of_sums(statistic, terms, rng, resamples=settings.resamples)[()]


def _rates(answers: Answers) -> dict[str, object]:
    return {
        "accuracy": float(answers.right.mean()),
        "imitator_accuracy": float(max(answers.imitated.mean(), answers.favourite.mean())),
    }


def _slopes(answers: Answers, test: EvaluationSet, states: DecisionStates) -> dict[str, dict[str, object] | None]:
    """Of log odds of being right, with margin and step beside them: per unit of d* (4 and more count as 4), and per
    doubling of the branch-and-bound tree."""
    instances = test.instances
    nodes = branch_and_bound_totals(instances.weights).nodes[test.rows]
    beside = np.stack([np.log(test.margins), states.steps.astype(float)], axis=1)
    varied = beside[:, beside.std(axis=0) > 1e-12]
    found: dict[str, dict[str, object] | None] = {}
    for name, column in (("d*", answers.needs.astype(float)), ("log2 nodes", np.log2(nodes))):
        slopes = logit_slopes(np.concatenate([column[:, None], varied], axis=1), answers.right, answers.groups)
        found[name] = None if slopes is None else {"value": slopes[0].value, "ci": list(slopes[0].ci)}
    return found


def _result(
    answers: Answers,
    test: EvaluationSet,
    states: DecisionStates,
    deep: int,
    shifted: dict[str, dict[str, object]],
    repeated: dict[str, float | int] | None,
    settings: HorizonSettings,
    rng: np.random.Generator,
) -> LineResult:
    curve = horizon_curve(answers, settings, rng)
    value, error = curve[0], float(curve.error[0])
    top = TOP_NEED + 1
    names = [*(str(k) for k in range(TOP_NEED)), f"{TOP_NEED}+"]
    own, local = ([curve[i] for i in range(start, start + top)] for start in (1, 1 + top))
    detectable = minimum_detectable_effect(error)
    few = deep < settings.powered_deep
    within = answers.needs >= DEEP
    deep_answers = Answers(
        *(getattr(answers, part)[within] for part in ("right", "imitated", "favourite", "needs", "margins", "groups"))
    )
    same = _pooled(deep_answers, settings, rng)
    for entry in shifted.values():
        entry["ratio"] = _share(entry["value"], same.value)
    return LineResult(
        "underpowered" if few else "ok",
        f"only {deep} deep decisions; an effect of {detectable:.3f} could be seen" if few else None,
        value.value,
        value.ci,
        sign_flip_p(_gains(answers, settings), rng, flips=settings.sign_flips),
        null={"local imitator (0)": 0.0},
        details={
            "accuracy": {name: _known(each.value) for name, each in zip(names, own, strict=True)},
            "imitator_accuracy": {name: _known(each.value) for name, each in zip(names, local, strict=True)},
            "states": {name: int((answers.needs == k).sum()) for k, name in enumerate(names)},
            "slopes": _slopes(answers, test, states),
            "unmatched": {"value": same.value, "ci": list(same.ci)} | _rates(deep_answers),
            "drawn_otherwise": shifted,
            "other_n": "the width of the network's input fixes n",
            "same_state_by_another_road": repeated,
            "detectable": detectable,
            "evaluation_set": asdict(test.config),
        },
        table=_table(names, own, local),
        arrays={
            "needs": np.array(names),
            **{f"own_{end}": np.array([getattr(each, end) for each in own]) for end in ("value", "low", "high")},
            **{f"local_{end}": np.array([getattr(each, end) for each in local]) for end in ("value", "low", "high")},
        },
    )


def _share(value: object, of: float) -> float | None:
    return float(value) / of if isinstance(value, float) and abs(of) > 0.02 else None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _table(names: list[str], own: list[Estimate], local: list[Estimate]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"site": f"d* = {name}", "arm": arm, "quantity": "accuracy, margins matched"}
            | {"value": each.value, "low": each.low, "high": each.high}
            for arm, estimates in (("subject", own), ("imitator", local))
            for name, each in zip(names, estimates, strict=True)
            if not np.isnan(each.value)
        ]
    )


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        lookahead_horizon,
        {
            "quick": HorizonSettings(30_000, 300, 1500, 150, 200),
            "standard": HorizonSettings(60_000, 1000, 5000, 500, 600),
            "full": HorizonSettings(120_000, 2000, 15_000, 1500, 1500),
        },
    ),
)
