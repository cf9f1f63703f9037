"""E1: which algorithm does the network's behaviour look like, and does any search say more than rules and noise do?

On discordant decisions, picked to tell the library apart, every algorithm A becomes a noisy policy

    p_A(a | s) = (1 - eps) softmax(-beta c_A(s, a)) + eps / |U|

with (beta, eps) fitted on other instances, and l_A is the mean over states of sum_a p_network(a|s) log p_A(a|s).
The line's value is how much better the best search does than the best of everything else,

    [max over searches of l_A - max over rules and nulls of l_A] / [l_network - l_uniform] ,

where l_network = -H(p_network) is what only the network itself reaches. The nulls are a noisy oracle, exp(-beta Q*),
and a boosted imitator of the network on local features. Both maxima are taken where (beta, eps) were fitted. A network
that is right almost everywhere is fitted best by the oracle whatever goes on inside, so there the line does not apply.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mesaprobe.evidence.behaviour.imitator import fit_imitator
from mesaprobe.evidence.behaviour.library import EXACT, library
from mesaprobe.evidence.behaviour.noise_model import (
    NoiseModel,
    exceedance_probabilities,
    expected_log_likelihood,
    fit_noise,
)
from mesaprobe.evidence.behaviour.telling_states import TellingStates, merged_classes, telling_states
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.decision_states import is_right, log_chances, states_along_optimal_tours
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.solvers.known_rules import left_out
from mesaprobe.statistics import bootstrap_of_sums, instance_sums, minimum_detectable_effect, sign_flip_p

ID, NAME = "E1", "algorithm identification beyond noise and local imitation"
IMITATOR, ORACLE = "boosted imitator of the network", "noisy oracle"

Kind = Literal["search", "rule", "null"]


@dataclass(frozen=True)
class AlgorithmSettings:
    """How many states, and where the line stops to apply."""

    pool: int
    """Natural instances per set, in which discordant decisions are looked for (labels, kept on disk)."""
    states: int
    """Decisions kept per set: those on which the library disagrees most."""
    imitator_states: int
    """Natural decisions that the imitator sees besides."""
    fewest_states: int = 40
    powered_states: int = 150
    highest_accuracy: float = 0.97
    merged_above: float = 0.90
    """Algorithms that agree on more of the states are one class."""
    least_structure: float = 0.05
    """Nats by which the network's own output must beat uniform guessing."""
    resamples: int = 2000
    sign_flips: int = 999


@dataclass(frozen=True, eq=False)
class Fitted:
    """One class of algorithms as a noisy policy."""

    name: str
    """The member whose costs fit best, as the class is called in the ranking."""
    members: tuple[str, ...]
    kind: Kind
    degree: int
    form: str
    noise: NoiseModel
    calibration: float
    """Mean log-likelihood where it was fitted."""
    scores: Float64[np.ndarray, " state"]
    """On the test states."""


def algorithm_identification(subject: Subject, settings: AlgorithmSettings, seed: int) -> LineResult:
    """Run the line on a subject."""
    problem = subject.problem
    steps = decision_steps(problem)
    if steps.stop <= steps.start:
        return LineResult("na", f"{problem.n} cities leave no decisions")
    calibration, test = (
        telling_states(problem, name, settings.pool, settings.states, seed) for name in ("calibration", "test")
    )
    if min(len(calibration), len(test)) < settings.fewest_states:
        return LineResult(
            "na",
            f"only {len(test)} decisions of {settings.pool} instances are missed by every rule; "
            f"{settings.fewest_states} are needed",
        )
    log_p = {"calibration": log_chances(subject, calibration.states), "test": log_chances(subject, test.states)}
    accuracy = float(is_right(log_p["test"], test.optimal).mean())
    if accuracy > settings.highest_accuracy:
        return LineResult(
            "na",
            f"right on {accuracy:.1%} of the discordant decisions (above {settings.highest_accuracy:.0%}): the optimum "
            "itself fits such behaviour best, whatever computes it",
            details={"discordant_accuracy": accuracy, "states": len(test)},
        )
    chances = {name: np.exp(values) for name, values in log_p.items()}
    uniform = -np.log(test.free.sum(axis=1))
    own = (chances["test"] * np.where(test.free, log_p["test"], 0.0)).sum(axis=1)
    if float((own - uniform).mean()) < settings.least_structure:
        return LineResult(
            "na",
            "the network's own output is close to uniform guessing on these states: there is nothing to explain",
            details={"discordant_accuracy": accuracy, "structure": float((own - uniform).mean())},
        )
    fitted = fit_library(calibration, test, chances["calibration"], chances["test"], settings)
    fitted.append(_imitate(subject, calibration, test, log_p, settings, seed))
    rng = np.random.default_rng([seed, 821])
    shuffled = {
        name: _shuffled(chances[name], part, rng) for name, part in (("calibration", calibration), ("test", test))
    }
    null = fit_library(calibration, test, shuffled["calibration"], shuffled["test"], settings)
    return _result(fitted, null, test, own, uniform, accuracy, settings, rng)


def fit_library(
    calibration: TellingStates,
    test: TellingStates,
    calibration_chances: Float64[np.ndarray, "state n"],
    test_chances: Float64[np.ndarray, "state n"],
    settings: AlgorithmSettings,
) -> list[Fitted]:
    """Every class of the library as a noisy policy: fitted to `calibration_chances`, scored on `test_chances`."""
    algorithms = library(calibration.states.instances.problem)
    degrees = {algorithm.name: algorithm.degree for algorithm in algorithms}
    found = []
    for members in merged_classes(algorithms, calibration.costs, settings.merged_above):
        trials = []
        for name in members:
            for form, costs in calibration.costs[name].items():
                noise, score = fit_noise(costs, calibration.free, calibration_chances)
                trials.append((score, name, form, noise))
        score, name, form, noise = max(trials, key=lambda trial: trial[0])
        scores = expected_log_likelihood(noise, test.costs[name][form], test.free, test_chances)
        exact, lowest = bool(set(members) & set(EXACT)), min(degrees[member] for member in members)
        kind: Kind = "null" if exact else "search" if lowest >= 3 else "rule"
        shown = ORACLE if exact else members[0]
        found.append(Fitted(shown, members, kind, degrees[name], form, noise, score, scores))
    return found


def _imitate(
    subject: Subject,
    calibration: TellingStates,
    test: TellingStates,
    log_p: dict[str, np.ndarray],
    settings: AlgorithmSettings,
    seed: int,
) -> Fitted:
    """Trees see half of the discordant calibration states and natural ones; the other half fits (beta, eps)."""
    problem = subject.problem
    shown = calibration.states.groups % 2 == 0
    rng = np.random.default_rng([seed, 822])
    natural = states_along_optimal_tours(draw_set(problem, "calibration", settings.imitator_states, seed), rng)
    each = rng.integers(0, len(natural) // settings.imitator_states, size=settings.imitator_states)
    natural = natural[np.arange(settings.imitator_states) * (len(natural) // settings.imitator_states) + each]
    natural = natural[~np.isin(natural.groups, calibration.states.groups[~shown])]
    both = calibration.states[shown].joined(natural)
    nuisance = np.concatenate([calibration.nuisance[shown], natural.nuisance()])
    answers = np.concatenate([log_p["calibration"][shown], log_chances(subject, natural)])
    imitator = fit_imitator(both, nuisance, answers, seed)
    rest = ~shown
    costs, test_costs = (
        np.where(part.free, -imitator.scores(part.nuisance, part.free), 0.0) for part in (calibration, test)
    )
    noise, score = fit_noise(costs[rest], calibration.free[rest], np.exp(log_p["calibration"][rest]))
    scores = expected_log_likelihood(noise, test_costs, test.free, np.exp(log_p["test"]))
    return Fitted(IMITATOR, (IMITATOR,), "null", 1, "value", noise, score, scores)


def _shuffled(
    chances: Float64[np.ndarray, "state n"], part: TellingStates, rng: np.random.Generator
) -> Float64[np.ndarray, "state n"]:
    """Answers of other states with as many unvisited cities, handed over in the order of these cities."""
    found = np.zeros_like(chances)
    counts = part.free.sum(axis=1)
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        given = chances[rows][part.free[rows]].reshape(len(rows), count)[rng.permutation(len(rows))]
        block = np.zeros((len(rows), chances.shape[1]))
        block[part.free[rows]] = given.ravel()
        found[rows] = block
    return found


def best_of(fitted: list[Fitted], kinds: tuple[Kind, ...]) -> Fitted:
    """The class that fitted best where (beta, eps) were fitted."""
    return max((each for each in fitted if each.kind in kinds), key=lambda each: each.calibration)


def _result(
    fitted: list[Fitted],
    null: list[Fitted],
    test: TellingStates,
    own: np.ndarray,
    uniform: np.ndarray,
    accuracy: float,
    settings: AlgorithmSettings,
    rng: np.random.Generator,
) -> LineResult:
    groups = test.states.groups
    search, other = best_of(fitted, ("search",)), best_of(fitted, ("rule", "null"))
    scores = np.stack([each.scores for each in fitted])
    span = own - uniform
    relative = bootstrap_of_sums(
        lambda sums: sums[:, :-1] / sums[:, -1:],
        instance_sums(np.concatenate([scores - uniform, [search.scores - other.scores], [span]]), groups),
        rng,
        resamples=settings.resamples,
    )
    value, error = relative[len(fitted)], float(relative.error[len(fitted)])
    gain = instance_sums(search.scores - other.scores, groups)
    evidence = instance_sums(scores, groups).T
    exceedance = exceedance_probabilities(evidence, rng)
    shuffled = best_of(null, ("search",)).scores - best_of(null, ("rule", "null")).scores
    order = np.argsort(-relative.value[: len(fitted)], kind="stable")
    ranking = [
        {
            "algorithm": fitted[i].name,
            "members": list(fitted[i].members),
            "kind": fitted[i].kind,
            "degree": fitted[i].degree,
            "value": float(relative.value[i]),
            "ci": list(relative[int(i)].ci),
            "exceedance": float(exceedance[i]),
            "calibration": fitted[i].calibration,
            "form": fitted[i].form,
            "sharpness": fitted[i].noise.sharpness,
            "lapse": fitted[i].noise.lapse,
        }
        for i in order
    ]
    few = len(test) < settings.powered_states
    detectable = minimum_detectable_effect(error)
    return LineResult(
        "underpowered" if few else "ok",
        f"only {len(test)} discordant decisions; an effect of {detectable:.3f} could be seen" if few else None,
        value.value,
        value.ci,
        sign_flip_p(gain, rng, flips=settings.sign_flips),
        null={"answers of other states": float(shuffled.mean() / span.mean()), "none (0)": 0.0},
        details={
            "looks_like": ranking[0]["algorithm"],
            "best_search": search.name,
            "best_other": other.name,
            "ranking": ranking,
            "discordant_accuracy": accuracy,
            "structure": float(span.mean()),
            "detectable": detectable,
            "states": len(test),
            "instances": len(np.unique(groups)),
            "without": list(left_out()),
        },
        table=_table(ranking),
        arrays={
            "names": np.array([each["algorithm"] for each in ranking]),
            "kinds": np.array([each["kind"] for each in ranking]),
            "degrees": np.array([each["degree"] for each in ranking]),
            "values": np.array([each["value"] for each in ranking]),
            "lows": np.array([each["ci"][0] for each in ranking]),
            "highs": np.array([each["ci"][1] for each in ranking]),
            "exceedance": np.array([each["exceedance"] for each in ranking]),
            "merged": np.array([" = ".join(each["members"]) for each in ranking]),
        },
    )


def _table(ranking: list[dict[str, object]]) -> pd.DataFrame:
    rows = []
    for each in ranking:
        ci = each["ci"]
        assert isinstance(ci, list)
        rows.append(
            {
                "arm": each["algorithm"],
                "quantity": "share of the network's log-likelihood",
                "value": each["value"],
                "low": ci[0],
                "high": ci[1],
            }
        )
    return pd.DataFrame(rows)


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        algorithm_identification,
        {
            "quick": AlgorithmSettings(pool=20_000, states=800, imitator_states=800),
            "standard": AlgorithmSettings(pool=40_000, states=2000, imitator_states=2500),
            "full": AlgorithmSettings(pool=80_000, states=4000, imitator_states=6000),
        },
        asks_library=True,
    ),
)
