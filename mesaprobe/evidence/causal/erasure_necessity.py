"""E8: does a network need what it linearly holds of regrets to solve the states that rules cannot (method.md E8)?

The concept is the regret Q*(s, a) - V*(s) of every candidate a, less what rules tell of it (ridge on the nuisance Z of
the candidate and its squares, then on that of all candidates, in the same sample; the network's own output is *not*
taken off, since at the last layers nothing else is there). LEACE
removes it from the token that answers, at the first layer where it can be read about as well as anywhere and at all
later ones, so that later layers cannot compute it anew. Regret is then measured on hard states (d* >= 2) and on easy
ones (d* = 0, where the nearest city is optimal):

    E8 = [ (hard erased - hard) - (easy erased - easy) ]  less the 95 % quantile of the same over null erasures,
         all divided by  max(hard of the imitator - hard, floor * hard of the imitator) .

Null erasures: other concepts of the same rank, less Z and the true regret (the regrets of two other objectives, control
labels from a hash of local features), and random ones of the same rank and variance. The imitator is the rule of
HEUR-v1 that agrees most often with the network; the floor keeps the scale finite for networks that are no better than
that rule, and shrinks them towards 0.

Blind by construction: searchers whose regrets are not linear at the answering token before the answer itself (the
enumerators P1 and P2 hold one number per tour), and those that are no better than rules on hard states, where nothing
can be lost. A value map that was learnt by heart, without search, would be seen as well: the line says *needed*, not
*computed by search*.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.own_decisions import OwnDecisions, own_decisions, residual_on
from mesaprobe.instruments.activations import Site, collect, residual_sites
from mesaprobe.instruments.erasure import Erasure, fit_erasure
from mesaprobe.instruments.patching import Run
from mesaprobe.instruments.patching.runs import EditableRun
from mesaprobe.instruments.probes import ridge_sweep
from mesaprobe.labels import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.statistics import Estimates, bootstrap_of_sums, instance_sums, make_control_task, sign_flip_p
from mesaprobe.statistics.power import minimum_detectable_effect

ID, NAME = "E8", "necessity of regrets on states that rules cannot solve"
CONCEPT = "regret"
ALONE = "regret, first layer alone"
OBJECTIVES = ("longest", "bottleneck")
_LOCAL = (0, 3, 4, 5)
"""Columns of `nuisance.LOCAL_NAMES` that control labels hash: the distance, and the candidate's three nearest."""


@dataclass(frozen=True)
class ErasureSettings:
    """Counts and thresholds of the line."""

    probe_instances: int
    """To choose the layer and fit erasers."""
    test_instances: int
    """To find hard and easy states to estimate on."""
    hard_states: int
    """At most so many; they vary more than easy ones."""
    easy_states: int
    random_erasures: int
    control_labels: int
    hard_need: int = 2
    """Least d* of a hard state."""
    first_layer_share: float = 0.5
    """Erased from the first layer on whose R2 reaches this share of the best layer's."""
    floor: float = 0.5
    """Least unit of the scale, as a share of the imitator's regret on hard states."""
    null_quantile: float = 0.95
    least_states: int = 20
    """With fewer hard or easy states the line does not apply."""
    detectable: float = 0.3
    """A least detectable effect above this is too little power to read a null result."""
    sign_flips: int = 999
    resamples: int = 2000


@dataclass(frozen=True, eq=False)
class _Arm:
    """One erasure, seen on the test states."""

    regrets: Float64[np.ndarray, " state"]
    divergence: Float64[np.ndarray, " state"]
    """KL(without || with the erasure) of the next-city distribution, nats."""
    legal: Float64[np.ndarray, " state"]
    """1 where the most likely city, unmasked, is unvisited."""
    rank: int
    variance: float


def erasure_necessity(subject: Subject, settings: ErasureSettings, seed: int) -> LineResult:
    """Run the line on a subject. Needs hook points of the residual stream with TransformerLens' names."""
    sites = [site for site in residual_sites(subject, ("decode",)) if site.kind == "resid_post"]
    steps = decision_steps(subject.problem)
    if not sites or steps.stop <= steps.start:
        why = "no residual-stream hook points" if not sites else "too few cities leave no decision"
        return LineResult("na", why)
    test = own_decisions(subject, "test", settings.test_instances, seed)
    states, hard = _hard_and_easy(test, settings, np.random.default_rng([seed, 8, 0]))
    if min(hard.sum(), (~hard).sum()) < settings.least_states:
        return LineResult(
            "na",
            f"the network's own tours on {len(test.tours)} instances meet {hard.sum()} hard states (d* >= "
            f"{settings.hard_need}) and {(~hard).sum()} easy ones, fewer than {settings.least_states}",
        )
    probe = own_decisions(subject, "probe", settings.probe_instances, seed)
    concepts = _concepts(probe, settings, seed)
    r2 = _decodability(subject, probe, sites, concepts[CONCEPT])
    first = int(np.argmax(r2 >= settings.first_layer_share * r2.max()))
    arms = _arms(subject, probe, test.run(states), sites[first:], concepts, settings, seed, (test, states))
    return _result(arms, r2, sites, first, hard, states, (probe, test), settings, seed)


def _hard_and_easy(
    test: OwnDecisions, settings: ErasureSettings, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "state 2"], np.ndarray]:
    """(instance, step) of the states to measure, and which of them are hard."""
    kinds = [np.argwhere(test.needs >= settings.hard_need), np.argwhere(test.needs == 0)]
    most = (settings.hard_states, settings.easy_states)
    kept = [kind[np.sort(rng.permutation(len(kind))[:count])] for kind, count in zip(kinds, most, strict=True)]
    return np.concatenate(kept), np.repeat([True, False], [len(kind) for kind in kept])


def _concepts(
    probe: OwnDecisions, settings: ErasureSettings, seed: int
) -> dict[str, Float64[np.ndarray, "instance step n"]]:
    """The concept and its twins per candidate, less what the nuisance tells; 0 for visited cities, the mean."""
    free, table = probe.free, probe.nuisance()
    nuisance, regret = table[free], probe.regrets[free]
    with_regret = np.concatenate([table, probe.regrets[..., None]], axis=3)

    def left_of(values: np.ndarray, known: np.ndarray) -> np.ndarray:
        return _residual(values, np.where(free[..., None], known, np.nan), free)

    found = {CONCEPT: left_of(regret, table)}
    for objective in OBJECTIVES:
        found[f"{objective} tour's regret"] = left_of(probe.objective_regrets(objective)[free], with_regret)
    local = nuisance[:, list(_LOCAL)]
    for index in range(settings.control_labels):
        task = make_control_task(local, regret, seed + index)
        found[f"control label {index}"] = left_of(task.labels(local).astype(np.float64), with_regret)
    return found


def _residual(
    values: Float64[np.ndarray, " candidate"],
    table: Float64[np.ndarray, "instance step n k"],
    free: Bool[np.ndarray, "instance step n"],
) -> Float64[np.ndarray, "instance step n"]:
    """What the nuisance leaves of a number of each candidate: its own features, then those of all candidates of the
    state. After the second step no linear map of the state's whole table tells it, so that LEACE, which moves nothing
    that the concept is not correlated with, leaves what rules know where it is."""
    placed = np.zeros(free.shape)
    placed[free] = residual_on(table[free], values)
    states = np.concatenate([np.nan_to_num(table, nan=0.0).reshape(*free.shape[:2], -1), free], axis=2)
    columns = states.reshape(-1, states.shape[2])
    flat = placed.reshape(len(columns), -1)
    for city in np.flatnonzero(flat.std(axis=0) > 0):
        flat[:, city] = residual_on(columns, flat[:, city], squares=False)
    return flat.reshape(free.shape)


def _decodability(
    subject: Subject, probe: OwnDecisions, sites: list[Site], concept: Float64[np.ndarray, "instance step n"]
) -> Float64[np.ndarray, " site"]:
    """Cross-fitted R2 of the concept at each site, pooled over cities."""
    seen = collect(subject, probe.features, probe.tours, probe.steps, sites, dtype=np.float32)
    targets = concept.reshape(-1, concept.shape[2])
    targets = targets[:, targets.std(axis=0) > 0]
    sweep = ridge_sweep(seen.samples, targets, seen.groups % 5, groups=seen.groups, keep_predictions=False)
    spread = targets.var(axis=0)
    return np.asarray((sweep.r2 * spread).sum(axis=1) / spread.sum())


def _arms(
    subject: Subject,
    probe: OwnDecisions,
    run: Run,
    sites: list[Site],
    concepts: Mapping[str, np.ndarray],
    settings: ErasureSettings,
    seed: int,
    where: tuple[OwnDecisions, np.ndarray],
) -> dict[str, _Arm]:
    """The test states without an erasure, with the concept's, with it at the first layer alone, with the nulls'."""
    every = np.argwhere(np.ones(probe.needs.shape, dtype=np.bool_))
    fitted_on = probe.run(every)
    plain = EditableRun(subject, run, [site.hook for site in sites]).logits({})

    def arm(erasure: Erasure) -> _Arm:
        logits = erasure.logits(subject, run) if erasure.erasers else plain
        return _seen(logits, plain, erasure, *where)

    arms = {"none": arm(Erasure(()))}
    for name, concept in concepts.items():
        values = torch.from_numpy(concept.reshape(len(every), -1))
        erasure = fit_erasure(subject, fitted_on, values, sites)
        arms[name] = arm(erasure)
        if name == CONCEPT:
            arms[ALONE] = arm(Erasure(erasure.erasers[:1]))
            generator = torch.Generator().manual_seed(1_000_003 * seed + 8)
            for index in range(settings.random_erasures):
                try:
                    arms[f"random {index}"] = arm(erasure.matched_random(generator))
                except UserError:  # a stream so narrow that no other directions hold as much variance
                    break
    return arms


def _seen(
    logits: Float[Tensor, "state n"],
    plain: Float[Tensor, "state n"],
    erasure: Erasure,
    test: OwnDecisions,
    states: np.ndarray,
) -> _Arm:
    free = torch.from_numpy(test.free[states[:, 0], states[:, 1]])
    masked = logits.double().masked_fill(~free, -torch.inf)
    with_it, without = masked.log_softmax(1), plain.double().masked_fill(~free, -torch.inf).log_softmax(1)
    gaps = torch.where(free, without.exp() * (without - with_it), 0.0)
    unmasked = logits.argmax(1, keepdim=True)
    return _Arm(
        test.regret_of(states, masked.argmax(1).numpy()),
        gaps.sum(1).numpy(),
        free.gather(1, unmasked)[:, 0].double().numpy(),
        max((eraser.rank for eraser in erasure.erasers), default=0),
        float(sum(eraser.removed_variance for eraser in erasure.erasers)),
    )


def _imitator(probe: OwnDecisions) -> tuple[str, float]:
    """The rule that agrees most often with the network, and how often."""
    agreement = {name: float((choices == probe.chosen).mean()) for name, choices in probe.rules().items()}
    best = max(agreement, key=lambda name: agreement[name])
    return best, agreement[best]


def _difference(arm: _Arm, plain: _Arm, hard: np.ndarray) -> float:
    change = arm.regrets - plain.regrets
    return float(change[hard].mean() - change[~hard].mean())


def _result(
    arms: dict[str, _Arm],
    r2: np.ndarray,
    sites: list[Site],
    first: int,
    hard: np.ndarray,
    states: np.ndarray,
    data: tuple[OwnDecisions, OwnDecisions],
    settings: ErasureSettings,
    seed: int,
) -> LineResult:
    (probe, test), plain = data, arms["none"]
    imitator, agreement = _imitator(probe)
    rules = test.regret_of(states, test.rules()[imitator][states[:, 0], states[:, 1]])
    others = [name for name in arms if name not in ("none", CONCEPT, ALONE)]
    differences = {name: _difference(arm, plain, hard) for name, arm in arms.items()}
    ranked = sorted(others, key=lambda name: differences[name])
    reference = ranked[int(np.ceil(settings.null_quantile * len(ranked))) - 1]
    rng = np.random.default_rng([seed, 8, 1])
    gain = arms[CONCEPT].regrets - arms[reference].regrets
    found = _estimate(gain, rules, plain.regrets, hard, states[:, 0], settings, rng)
    per_state = np.where(hard, gain / hard.sum(), -gain / (~hard).sum())
    unit = _unit(rules[hard].mean(), plain.regrets[hard].mean(), settings.floor)
    p = sign_flip_p(instance_sums(per_state, states[:, 0]), rng, flips=settings.sign_flips)
    detectable = minimum_detectable_effect(float(found.error))
    weak = detectable > settings.detectable and p > 0.05
    reason = f"with {hard.sum()} hard states only effects from {detectable:.2f} on would have been found"
    return LineResult(
        "underpowered" if weak else "ok",
        reason if weak else None,
        float(found.value),
        (float(found.low), float(found.high)),
        p,
        null=_nulls(differences, reference, unit, others),
        details={
            "erased_from": str(sites[first]),
            "r2": float(r2[first]),
            "difference": differences[CONCEPT] / unit,
            "first_layer_alone": differences[ALONE] / unit,
            "reference_null": reference,
            "null_erasures": len(others),
            "imitator": imitator,
            "imitator_agreement": agreement,
            "unit": unit,
            "regret_hard": float(plain.regrets[hard].mean()),
            "regret_easy": float(plain.regrets[~hard].mean()),
            "regret_hard_imitator": float(rules[hard].mean()),
            "regret_hard_erased": float(arms[CONCEPT].regrets[hard].mean()),
            "regret_easy_erased": float(arms[CONCEPT].regrets[~hard].mean()),
            "better_than_imitator": bool(rules[hard].mean() - plain.regrets[hard].mean() >= unit - 1e-9),
            "easy_divergence": float(arms[CONCEPT].divergence[~hard].mean()),
            "legal": float(arms[CONCEPT].legal.mean()),
            "legal_without": float(plain.legal.mean()),
            "minimum_detectable_effect": detectable,
            "hard_states": int(hard.sum()),
            "easy_states": int((~hard).sum()),
            "residualised": "ridge on rules' features, in sample; the network's output is not among them",
            "blind_to": "regrets that are not linear at the answering token; searchers no better than rules when hard",
        },
        table=_table(arms, differences, hard, unit),
        arrays=_arrays(arms, hard, unit, r2, sites, first, reference),
    )


def _unit(rules: float, own: float, floor: float) -> float:
    """The scale of the line; 1 where the rule has no regret on hard states either."""
    return float(max(rules - own, floor * rules)) or 1.0


def _estimate(
    gain: np.ndarray,
    rules: np.ndarray,
    plain: np.ndarray,
    hard: np.ndarray,
    instances: np.ndarray,
    settings: ErasureSettings,
    rng: np.random.Generator,
) -> Estimates:
    """The line's value with its interval; the reference null is held fixed."""
    terms = [gain * hard, gain * ~hard, rules * hard, plain * hard, hard, ~hard]
    totals = instance_sums(np.stack([np.asarray(term, dtype=np.float64) for term in terms]), instances)

    def statistic(sums: np.ndarray) -> np.ndarray:
        hards, easies = np.maximum(sums[:, 4], 1e-300), np.maximum(sums[:, 5], 1e-300)
        imitated, own = sums[:, 2] / hards, sums[:, 3] / hards
        unit = np.maximum(imitated - own, settings.floor * imitated)
        return np.asarray((sums[:, 0] / hards - sums[:, 1] / easies) / np.where(unit > 0, unit, 1.0))

    return bootstrap_of_sums(statistic, totals, rng, resamples=settings.resamples)


def _nulls(differences: dict[str, float], reference: str, unit: float, others: list[str]) -> dict[str, float]:
    """Difference in differences of the null erasures, on the line's scale."""
    random = [differences[name] / unit for name in others if name.startswith("random")]
    found = {name: differences[name] / unit for name in others if not name.startswith("random")}
    if random:
        found["random erasures, mean"] = float(np.mean(random))
        found["random erasures, largest"] = float(np.max(random))
    found["95% quantile of all (subtracted)"] = differences[reference] / unit
    return found


def _table(arms: dict[str, _Arm], differences: dict[str, float], hard: np.ndarray, unit: float) -> pd.DataFrame:
    """One row per erasure and quantity."""
    rows = []
    for name, arm in arms.items():
        quantities = {
            "difference": differences[name] / unit,
            "regret_hard": arm.regrets[hard].mean(),
            "regret_easy": arm.regrets[~hard].mean(),
            "easy_divergence": arm.divergence[~hard].mean(),
            "legal": arm.legal.mean(),
            "rank": arm.rank,
            "variance": arm.variance,
        }
        rows += [{"arm": name, "quantity": quantity, "value": float(value)} for quantity, value in quantities.items()]
    return pd.DataFrame(rows)


def _arrays(
    arms: dict[str, _Arm],
    hard: np.ndarray,
    unit: float,
    r2: np.ndarray,
    sites: list[Site],
    first: int,
    reference: str,
) -> dict[str, np.ndarray]:
    """Every erasure's change of regret on easy and on hard states, on the line's scale."""
    names = [name for name in arms if name != "none"]
    changes = np.stack([arms[name].regrets - arms["none"].regrets for name in names]) / unit
    return {
        "arms": np.array(names),
        "hard_change": changes[:, hard].mean(axis=1),
        "easy_change": changes[:, ~hard].mean(axis=1),
        "reference": np.array(reference),
        "r2": r2,
        "layers": np.array([site.layer for site in sites]),
        "first": np.array(first),
    }


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        erasure_necessity,
        {
            "quick": ErasureSettings(400, 1600, 400, 200, 15, 2),
            "standard": ErasureSettings(1000, 4000, 1000, 500, 25, 3),
            "full": ErasureSettings(3000, 12_000, 3000, 1500, 32, 6),
        },
    ),
)
