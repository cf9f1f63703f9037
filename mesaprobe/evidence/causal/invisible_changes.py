"""E3: does the network follow changes that move the optimum and that no heuristic notices? (method.md section 5)

Pairs of instances differ in one or two entries far from the current city. On the relevant twin another next city is
optimal, by a margin; on the irrelevant one, changed as much elsewhere, the old one still is; every rule of HEUR-v1
answers all three alike (Leela's corruption filter, Jenner et al. 2024, carried over). Of the pairs whose base the
network answers optimally,

    E3 = P(switch to the new optimum | relevant) - P(any switch | irrelevant),        in [-1, 1].

A one-step rule gives exactly 0. So does a shallow look-ahead, which does not see so far: the line finds searches whose
values depend on far entries. It shows what is computed, not how: a good imitator of the optimum scores as well.
A subject that is seldom optimal and best explained by its own completions is held to these (`own_pairs`).
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from mesaprobe.errors import UserError
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.causal_models import Fit, fitted, next_cities
from mesaprobe.evidence.states.natural_pairs import NaturalPairs, natural_pairs
from mesaprobe.evidence.states.pairs import SubjectPairs, mined_pairs, optimal_pairs, own_pairs
from mesaprobe.instruments.patching import Run
from mesaprobe.labels.pairs import CounterfactualPairs, edited_or_natural
from mesaprobe.models.subject import Subject
from mesaprobe.statistics import bootstrap_mean, minimum_detectable_effect, sign_flip_p

ID, NAME = "E3", "follows changes that no heuristic notices"
_STREAM = 300


@dataclass(frozen=True)
class InvisibleChangesSettings:
    """How many pairs, and when the line speaks."""

    pairs: int
    """Mined pairs, before those are dropped whose base the subject answers wrongly."""
    own_pairs: int
    """Mined pairs that are labelled anew by the subject's own completions, where these are asked for."""
    fit_instances: int
    """Instances on which high-level models are held to the subject's choices."""
    natural_draws: int
    """Pairs of natural instances, most of which do not move the optimum."""
    natural_pairs: int = 100
    """Of those that move it, and of those that do not, so many at most are shown to the subject."""
    weak_below: float = 0.6
    """A subject that answers fewer bases optimally may be held to its own completions."""
    least_pairs: int = 10
    """With fewer, the line does not apply."""
    detectable: float = 0.25
    """A least detectable effect above this is too little power to read a null result."""
    flips: int = 999
    resamples: int = 2000


def invisible_changes(subject: Subject, settings: InvisibleChangesSettings, seed: int) -> LineResult:
    """Measure E3. Looks at the network from outside only; not for problems on which no pairs are to be had."""
    try:
        optimal = optimal_pairs(subject, "pairs_test", settings.pairs, seed)
    except UserError as error:
        return LineResult("na", f"there are no pairs for this problem: {error}")
    fit = None
    found = optimal
    if optimal.right_fraction < settings.weak_below:
        fit = fitted(subject, settings.fit_instances, seed)
        if fit.search.name == "own completions" and fit.agreement[fit.search.name] > fit.agreement[fit.rival.name]:
            found = own_pairs(subject, "pairs_test", settings.own_pairs, seed)
    if len(found) < settings.least_pairs:
        return LineResult(
            "na",
            f"only {len(found)} of {found.mined} pairs have a base that the network answers as its values demand, "
            f"fewer than {settings.least_pairs}",
            details={"pairs": len(found), "mined": found.mined},
        )
    return _result(subject, found, optimal, fit, settings, seed)


def _result(
    subject: Subject,
    found: SubjectPairs,
    optimal: SubjectPairs,
    fit: Fit | None,
    settings: InvisibleChangesSettings,
    seed: int,
) -> LineResult:
    rng = np.random.default_rng([seed, _STREAM, 1])
    followed, stray = (x.astype(np.float64) for x in found.switched())
    differences = followed - stray
    value = bootstrap_mean(differences, rng, resamples=settings.resamples)
    p = sign_flip_p(differences, rng, flips=settings.flips)
    odds = _log_odds(subject, found)
    shift = bootstrap_mean(odds[:, 0] - odds[:, 1], rng, resamples=settings.resamples)
    error = float(np.sqrt(max(differences.var(), 1.0 / len(differences)) / len(differences)))
    least = minimum_detectable_effect(error)
    natural = _natural(subject, found, settings, seed)
    sizes = _by_size(found, differences)
    weak = least > settings.detectable and p > 0.05
    details: dict[str, Any] = {
        "pairs": len(found),
        "mined": found.mined,
        "base_right_fraction": optimal.right_fraction,
        "values": "own completions" if found.own else "exact",
        "switch_relevant": float(followed.mean()),
        "switch_irrelevant": float(stray.mean()),
        "log_odds_relevant": float(odds[:, 0].mean()),
        "log_odds_irrelevant": float(odds[:, 1].mean()),
        "log_odds": shift.value,
        "log_odds_ci": list(shift.ci),
        "detectable_effect": least,
        "edited_from_natural_auc": edit_visibility(mined_pairs(subject.problem, "pairs_test", settings.pairs, seed)),
        "by_edit_size": sizes,
        "natural_pairs": natural,
        "agreement": None if fit is None else fit.agreement,
        "optimal_pairs_value": _plain_value(optimal),
    }
    return LineResult(
        "underpowered" if weak else "ok",
        f"{len(found)} pairs would show an effect from {least:.2f} on" if weak else None,
        value.value,
        value.ci,
        p,
        null={"any switch on the irrelevant twin": float(stray.mean()), "one-step rules": 0.0},
        details=details,
        table=_table(found, differences),
        arrays={
            "followed": followed,
            "stray": stray,
            "sizes": np.abs(found.pairs.edit_sizes).sum(axis=1),
            "log_odds": odds,
            "levels": np.asarray(getattr(subject.problem.config, "levels", 1)),
        },
    )


def _plain_value(pairs: SubjectPairs) -> float | None:
    if len(pairs) == 0:
        return None
    followed, stray = pairs.switched()
    return float(followed.mean() - stray.mean())


def _log_odds(subject: Subject, found: SubjectPairs) -> Float64[np.ndarray, "pairs 2"]:
    """By how much log p(y*) - log p(base action) rises on the relevant and on the irrelevant twin, in nats."""
    difference = [logit_gap(subject, run, found.target, found.base_action) for run in found.runs]
    return np.stack([difference[1] - difference[0], difference[2] - difference[0]], axis=1)


def logit_gap(subject: Subject, run: Run, wanted: np.ndarray, original: np.ndarray) -> Float64[np.ndarray, " state"]:
    """logit(wanted) - logit(original) at every state of a run."""
    found = np.empty(len(run))
    for _, rows, part in run.by_length():
        for some, features, prefixes in zip(
            rows.split(1024), part.features.split(1024), part.prefixes.split(1024), strict=True
        ):
            logits = subject.next_city_logits(features, prefixes).double().cpu().numpy()
            at, which = np.arange(len(some)), some.numpy()
            found[which] = logits[at, wanted[which]] - logits[at, original[which]]
    return found


def _by_size(found: SubjectPairs, differences: Float64[np.ndarray, " pairs"]) -> list[dict[str, float]]:
    """E3 in thirds of the size of the edit, in weight units."""
    sizes = np.abs(found.pairs.edit_sizes).sum(axis=1)
    edges = np.quantile(sizes, [0.0, 1 / 3, 2 / 3, 1.0])
    third = np.clip(np.searchsorted(edges[1:-1], sizes, side="left"), 0, 2)
    return [
        {
            "from": float(sizes[third == k].min()),
            "to": float(sizes[third == k].max()),
            "pairs": int((third == k).sum()),
            "value": float(differences[third == k].mean()),
        }
        for k in range(3)
        if (third == k).any()
    ]


@functools.lru_cache(maxsize=16)
def edit_visibility(pairs: CounterfactualPairs) -> float:
    """Area under the curve of boosted trees that tell edited from natural instances, told where to look; 0.5 is blind.

    Cross-fitted with both members of a pair in one fold. Remembered: many networks are asked about the same pairs.
    """
    data = edited_or_natural(pairs)
    trees = HistGradientBoostingClassifier(max_iter=40, early_stopping=False, random_state=0)
    scores = cross_val_predict(
        trees, data.features, data.edited, groups=data.pair, cv=GroupKFold(5), method="predict_proba"
    )[:, 1]
    return float(roc_auc_score(data.edited, scores))


def _natural(
    subject: Subject, found: SubjectPairs, settings: InvisibleChangesSettings, seed: int
) -> dict[str, float | int | None]:
    """The same difference on natural pairs that differ by one far entry, changed as much as the mined edits are."""
    nothing: dict[str, float | int | None] = {"relevant": 0, "irrelevant": 0, "value": None}
    if subject.problem.planar or found.own:
        return nothing
    pairs = natural_pairs(subject.problem, settings.natural_draws, seed, found.pairs.criteria)
    size = np.abs(found.pairs.edit_sizes).max(axis=1)
    low, high = np.quantile(size, [0.05, 0.95])
    inside = (np.abs(pairs.sizes) >= low) & (np.abs(pairs.sizes) <= high)
    rates = []
    for moved in (True, False):
        some = np.flatnonzero(inside & (pairs.moved == moved))[: settings.natural_pairs]
        right, switched = _natural_switches(subject, pairs[some], moved)
        if not right.any():
            return nothing
        nothing["relevant" if moved else "irrelevant"] = int(right.sum())
        rates.append(float(switched[right].mean()))
    return nothing | {"value": rates[0] - rates[1]}


def _natural_switches(
    subject: Subject, pairs: NaturalPairs, moved: bool
) -> tuple[Bool[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]]:
    """Where the subject is right on the first, and where it switches (to a new optimum, if that has moved)."""
    before, after = (next_cities(subject, run) for run in pairs.runs)
    rows = np.arange(len(pairs))
    switched = pairs.new_optimal[rows, after] if moved else before != after
    return pairs.old_optimal[rows, before], switched


def _table(found: SubjectPairs, differences: Float64[np.ndarray, " pairs"]) -> pd.DataFrame:
    """One row per pair."""
    followed, stray = found.switched()
    pairs: CounterfactualPairs = found.pairs
    return pd.DataFrame(
        {
            "pair": np.arange(len(found)),
            "prefix_length": pairs.lengths,
            "edit_size": np.abs(pairs.edit_sizes).sum(axis=1),
            "margin": pairs.margins[:, 1],
            "followed": followed,
            "stray": stray,
            "value": differences,
        }
    )


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        invisible_changes,
        {
            "quick": InvisibleChangesSettings(300, 150, 60, 4000),
            "standard": InvisibleChangesSettings(1000, 400, 150, 12_000, natural_pairs=300),
            "full": InvisibleChangesSettings(2500, 1000, 300, 30_000, natural_pairs=800),
        },
    ),
)
