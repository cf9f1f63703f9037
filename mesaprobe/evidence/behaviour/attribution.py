"""E4: do far weights move an option's logit because they lie on its completion?

If options are valued by their completions, logit(a) - logit(b) falls when an edge of C(a) gets longer, rises for one of
C(b), and does not move for an edge of neither. a is the city the network names, b its second choice, and the edges
are far from both (`far_edges.py`), so that a rule that looks one step ahead gives exactly 0. Three contrasts of the
finite differences, each as 2 AUC - 1 of edge against edge of the same state, weighted so that both kinds of edge are
alike in step, rank of weight and membership in the minimum spanning tree (overlap weights, Li, Morgan and Zaslavsky
2018):

chosen      edges of C(a) alone against edges of neither, falling
rejected    edges of C(b) alone against edges of neither, rising        the line's value (method.md, amendment 5)
contrast    edges of C(a) alone against edges of C(b) alone

A network that builds one whole tour first holds the chosen completion honestly; the rejected one is what a comparison
needs. Completions are the network's own (it goes on greedily after either city), so that a weak searcher is judged by
what it would do; the optimal ones stand beside them. At a sharp choice rejected tours vanish behind the soft minimum:
effects that are negligible count as 0, which pulls the value of a certain searcher down, never up. Measured on the
compiled enumerator P1 (260 states of the set "lens", seed 1; 95 % intervals), by the sharpness of its soft minimum:

sharpness        1 (as shipped)      1/2                 1/4                 1/10
rejected side    .40 (.26 to .54)    .63 (.47 to .76)    .87 (.77 to .95)    .64 (.52 to .76)
ties at 0        39 %                16 %                1 %                 0 %

Larger changes of the edges do not help: 4, 8, 16 and 32 levels in place of 1 give .41, .37, .39 and .19 at sharpness 1.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from mesaprobe.evidence.behaviour.far_edges import FarPairs, far_pairs, finite_differences, gradients
from mesaprobe.evidence.behaviour.value_consistency import Candidates, partial_spearman
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.decision_states import (
    DecisionStates,
    log_chances,
    next_logits,
    states_along_optimal_tours,
)
from mesaprobe.evidence.states.own_completions import completion_costs, completion_edges, own_completions
from mesaprobe.labels.completions import completion_labels
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.statistics import Estimates, bootstrap_ratios, instance_sums, minimum_detectable_effect

ID, NAME = "E4", "completion attribution of the chosen and the rejected option"
SIDES = ("chosen", "rejected", "contrast")


@dataclass(frozen=True)
class AttributionSettings:
    """How many states, and which edges are compared."""

    states: int
    """One decision each of as many test instances, where there are far pairs enough."""
    twin_states: int
    """Of them, how many a random-weight twin answers."""
    consistency_states: int
    """Decisions for the correlation of logit gaps with exact values."""
    own_value_states: int
    """Of them, how many are also valued by the network's own completions (the dearest part)."""
    levels: int = 1
    rank_bins: int = 3
    """Of weight among the state's far pairs, for the overlap weights."""
    fewest_pairs: int = 3
    fewest_comparisons: int = 100
    permutations: int = 499
    resamples: int = 2000


@dataclass(frozen=True, eq=False)
class Sides:
    """Which far pairs lie on which completion alone."""

    chosen: Bool[np.ndarray, "state pair"]
    rejected: Bool[np.ndarray, "state pair"]
    neither: Bool[np.ndarray, "state pair"]

    def contrasts(self) -> tuple[tuple[np.ndarray, np.ndarray, float], ...]:
        """For each of SIDES: what should stand higher, what lower, and the sign of the effect there."""
        return (
            (self.chosen, self.neither, -1.0),
            (self.rejected, self.neither, 1.0),
            (self.chosen, self.rejected, -1.0),
        )


def completion_attribution(subject: Subject, settings: AttributionSettings, seed: int) -> LineResult:
    """Run the line on a subject."""
    problem = subject.problem
    steps = decision_steps(problem)
    if problem.planar:
        return LineResult("na", "in the plane no distance can be changed alone")
    if steps.stop <= steps.start:
        return LineResult("na", f"{problem.n} cities leave no decisions")
    states = _states(subject, "test", settings.states, seed)
    far = _options(subject, states)
    far = far[np.flatnonzero(far.known.sum(axis=1) >= settings.fewest_pairs)]
    if len(far.first) == 0:
        return LineResult("na", f"{problem.n} cities leave no edges that are far from both options")
    own, optimal = own_sides(subject, far), optimal_sides(far)
    strata = _strata(far, settings.rank_bins)
    effects = {"finite differences": finite_differences(subject, far, settings.levels)}
    slopes = gradients(subject, far)
    if slopes is not None:
        effects["gradients"] = slopes
    rng = np.random.default_rng([seed, 841])
    found = {
        (measure, name): _estimates(_concordance(effect, sides, strata), far, rng, settings.resamples)
        for measure, effect in effects.items()
        for name, sides in (("own", own), ("optimal", optimal))
    }
    chance = _permuted(effects["finite differences"], own, strata, far, rng, settings.permutations)
    some = np.arange(min(settings.twin_states, len(far.first)))
    twin = finite_differences(subject.random_twin(seed + 1), far[some], settings.levels)
    twins = _concordance(twin, own_part(own, some), strata[some])
    consistency = _consistency(subject, settings, seed, rng)
    return _result(found, effects, own, far, chance, twins, consistency, settings)


def _states(subject: Subject, name: str, count: int, seed: int) -> DecisionStates:
    """One decision, its step at random, of each of `count` instances."""
    rng = np.random.default_rng([seed, 842])
    states = states_along_optimal_tours(draw_set(subject.problem, name, count, seed), rng)
    each = len(states) // count
    return states[each * np.arange(count) + rng.integers(0, each, size=count)]


def _options(subject: Subject, states: DecisionStates) -> FarPairs:
    """The network's first and second choice at every state."""
    log_p = log_chances(subject, states)
    order = np.argsort(-log_p, axis=1, kind="stable")
    return far_pairs(states, order[:, 0], order[:, 1])


def own_sides(subject: Subject, far: FarPairs) -> Sides:
    """Sides by the network's own completions of both options."""
    undirected = far.states.instances.problem.symmetric
    tours = [own_completions(subject, far.states, option) for option in (far.first, far.second)]
    first, second = (far.of(completion_edges(each, far.states.steps, undirected)) & far.known for each in tours)
    return Sides(first & ~second, second & ~first, far.known & ~first & ~second)


def optimal_sides(far: FarPairs) -> Sides:
    """Sides by the optimal completions; edges that only some of several optimal ones use are left out."""
    states = far.states
    problem, rows = states.instances.problem, np.arange(len(states))
    steps = decision_steps(problem)
    edges = completion_labels(states.weights, states.tours, steps, problem.symmetric).edges
    at = states.steps - steps.start
    first, second = (far.of(edges[rows, at, option]) for option in (far.first, far.second))
    return Sides(
        far.known & (first == 1) & (second == 0),
        far.known & (second == 1) & (first == 0),
        far.known & (first == 0) & (second == 0),
    )


def own_part(sides: Sides, rows: np.ndarray) -> Sides:
    """The sides of some states."""
    return Sides(sides.chosen[rows], sides.rejected[rows], sides.neither[rows])


def _strata(far: FarPairs, bins: int) -> Int64[np.ndarray, "state pair"]:
    """Step, membership in the spanning tree and rank of weight of each far pair, as one number; -1 where none is."""
    rank = np.minimum((far.ranks * bins).astype(np.int64), bins - 1)
    code = (far.states.steps[:, None] * 2 + far.spanning) * bins + rank
    return np.where(far.known, code, -1)


def _overlap_weights(above: np.ndarray, below: np.ndarray, strata: np.ndarray) -> Float64[np.ndarray, "state pair"]:
    """For an edge of either kind, the share of the other kind in its stratum: weighted, both have the same strata."""
    size = int(strata.max()) + 2
    counts = np.stack([np.bincount(strata[part], minlength=size) for part in (above, below)]).astype(np.float64)
    share = counts[0] / np.maximum(counts.sum(axis=0), 1.0)
    return np.where(above, 1.0 - share[strata], np.where(below, share[strata], 0.0))


def _concordance(
    effects: Float64[np.ndarray, "state pair"], sides: Sides, strata: Int64[np.ndarray, "state pair"]
) -> Float64[np.ndarray, "three side state"]:
    """By side and state: weight of comparisons in the right order less that in the wrong one, weight of all, number."""
    order = np.sign(effects[:, :, None] - effects[:, None, :])
    found = np.empty((3, len(SIDES), len(effects)))
    for side, (above, below, sign) in enumerate(sides.contrasts()):
        weights = _overlap_weights(above, below, strata)
        up, down = (weights * part for part in (above, below))
        found[0, side] = sign * np.matmul(np.matmul(up[:, None], order), down[:, :, None])[:, 0, 0]
        found[1, side] = up.sum(axis=1) * down.sum(axis=1)
        found[2, side] = above.sum(axis=1) * below.sum(axis=1)
    return found


def _ratio(concordance: Float64[np.ndarray, "three *rest"]) -> np.ndarray:
    right, compared = concordance[:2]
    return np.asarray(np.divide(right, compared, out=np.zeros_like(right), where=compared > 0))


def _estimates(concordance: np.ndarray, far: FarPairs, rng: np.random.Generator, resamples: int) -> Estimates:
    """2 AUC - 1 by side, resampling instances."""
    sums = instance_sums(concordance, far.states.groups)
    compared = np.where(sums[1].sum(axis=-1, keepdims=True) > 0, sums[1], 1e-9)
    return bootstrap_ratios(sums[0], compared, rng, resamples=resamples)


def _permuted(
    effects: np.ndarray,
    sides: Sides,
    strata: np.ndarray,
    far: FarPairs,
    rng: np.random.Generator,
    permutations: int,
) -> Float64[np.ndarray, "permutation side"]:
    """The same with the completions of other states that have as many far pairs, edges matched by rank of weight."""
    counts = far.known.sum(axis=1)
    order = np.argsort(np.where(far.known, far.ranks, 2.0), axis=1, kind="stable")
    marks = np.where(sides.chosen, 1, np.where(sides.rejected, 2, np.where(sides.neither, 3, 0)))
    by_rank = np.take_along_axis(marks, order, axis=1)
    found = np.empty((permutations, len(SIDES)))
    for draw in range(permutations):
        given = np.empty_like(by_rank)
        for count in np.unique(counts):
            rows = np.flatnonzero(counts == count)
            given[rows] = by_rank[rng.permutation(rows)]
        moved = np.empty_like(marks)
        np.put_along_axis(moved, order, given, axis=1)
        other = Sides(moved == 1, moved == 2, moved == 3)
        found[draw] = _ratio(_concordance(effects, other, strata).sum(axis=-1))
    return found


def _consistency(
    subject: Subject, settings: AttributionSettings, seed: int, rng: np.random.Generator
) -> dict[str, dict[str, object]]:
    """Partial Spearman of logit gaps with value gaps given Z, for exact values and for own completions."""
    states = _states(subject, "lens", settings.consistency_states, seed)
    rows, free = np.arange(len(states)), states.free
    logits = next_logits(subject, states.instances.features, states.tours, states.steps).astype(np.float64)
    chosen = np.where(free, logits, -np.inf).argmax(axis=1)
    rejected = free.copy()
    rejected[rows, chosen] = False
    gaps, nuisance = logits[rows, chosen][:, None] - logits, states.nuisance()
    own = np.full(free.shape, np.nan)
    few = np.argwhere(free[: settings.own_value_states])
    forced = states[few[:, 0]]
    own[few[:, 0], few[:, 1]] = completion_costs(forced, own_completions(subject, forced, few[:, 1]))
    found: dict[str, dict[str, object]] = {}
    for name, values, count in (
        ("optimal", states.values(), len(states)),
        ("own", own, settings.own_value_states),
    ):
        kept = rejected & (rows < count)[:, None]
        at = np.nonzero(kept)
        data = Candidates(gaps[kept], values[kept] - values[rows, chosen][at[0]], nuisance[kept], states.groups[at[0]])
        consistency = partial_spearman(data, rng)
        estimate = consistency.estimate
        found[name] = {
            "value": None if estimate is None else estimate.value,
            "ci": None if estimate is None else list(estimate.ci),
            "logit_left": consistency.logit_left,
            "value_left": consistency.value_left,
            "candidates": int(kept.sum()),
        }
    return found


def _result(
    found: dict[tuple[str, str], Estimates],
    effects: dict[str, np.ndarray],
    own: Sides,
    far: FarPairs,
    chance: Float64[np.ndarray, "permutation side"],
    twins: np.ndarray,
    consistency: dict[str, dict[str, object]],
    settings: AttributionSettings,
) -> LineResult:
    differences = effects["finite differences"]
    counts = np.array([(up.sum(axis=1) * low.sum(axis=1)).sum() for up, low, _ in own.contrasts()])
    side = SIDES.index("rejected")
    main = found["finite differences", "own"]
    value, error = main[side], float(main.error[side])
    p = (1 + int((chance[:, side] >= value.value - 1e-12).sum())) / (1 + len(chance))
    few = counts[side] < settings.fewest_comparisons
    if counts[side] == 0:
        return LineResult("na", "no state has an edge of the rejected completion alone beside one of neither")
    detectable = minimum_detectable_effect(error)
    contrasts = {
        f"{measure}, {name} completions": {
            each: {"value": float(estimates.value[i]), "ci": list(estimates[i].ci)} for i, each in enumerate(SIDES)
        }
        for (measure, name), estimates in found.items()
    }
    return LineResult(
        "underpowered" if few else "ok",
        f"only {counts[side]} comparisons; an effect of {detectable:.3f} could be seen" if few else None,
        value.value,
        value.ci,
        p,
        null={
            "completions of other states": float(chance[:, side].mean()),
            "random-weight twin": float(_ratio(twins.sum(axis=-1))[side]),
            "none (0)": 0.0,
        },
        details={
            "contrasts": contrasts,
            "comparisons": dict(zip(SIDES, counts.tolist(), strict=True)),
            "null_chosen": float(chance[:, 0].mean()),
            "p_chosen": (1 + int((chance[:, 0] >= main.value[0] - 1e-12).sum())) / (1 + len(chance)),
            "effects_below_threshold": float((differences == 0)[far.known].mean()),
            "mean_effect": {
                name: _mean_size(differences, part)
                for name, part in (("chosen", own.chosen), ("rejected", own.rejected), ("neither", own.neither))
            },
            "value_consistency": consistency,
            "detectable": detectable,
            "states": len(far.first),
            "completions": "the network's own",
        },
        table=_table(found),
        arrays=_arrays(found, differences, own, chance),
    )


def _mean_size(effects: np.ndarray, part: np.ndarray) -> float | None:
    """Mean size of the effects in logits a level."""
    return float(np.abs(effects[part]).mean()) if part.any() else None


def _table(found: dict[tuple[str, str], Estimates]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"arm": f"{measure}, {name} completions", "quantity": side, "value": float(estimates.value[i])}
            | dict(zip(("low", "high"), estimates[i].ci, strict=True))
            for (measure, name), estimates in found.items()
            for i, side in enumerate(SIDES)
        ]
    )


def _arrays(
    found: dict[tuple[str, str], Estimates], effects: np.ndarray, own: Sides, chance: np.ndarray
) -> dict[str, np.ndarray]:
    """Contrasts with intervals and their chance range; effects by side (at most 2,000 each)."""
    return {
        "sides": np.array(SIDES),
        "measures": np.array([f"{measure}, {name} completions" for measure, name in found]),
        "values": np.stack([each.value for each in found.values()]),
        "lows": np.stack([each.low for each in found.values()]),
        "highs": np.stack([each.high for each in found.values()]),
        "chance_low": np.quantile(chance, 0.025, axis=0),
        "chance_high": np.quantile(chance, 0.975, axis=0),
        "effects_chosen": effects[own.chosen][:2000],
        "effects_rejected": effects[own.rejected][:2000],
        "effects_neither": effects[own.neither][:2000],
    }


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        completion_attribution,
        {
            "quick": AttributionSettings(states=260, twin_states=60, consistency_states=260, own_value_states=70),
            "standard": AttributionSettings(
                states=1000, twin_states=300, consistency_states=1000, own_value_states=300
            ),
            "full": AttributionSettings(states=3000, twin_states=1000, consistency_states=3000, own_value_states=1000),
        },
    ),
)
