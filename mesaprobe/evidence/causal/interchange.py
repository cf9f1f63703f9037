"""E7: interchange on value and plan, the load-bearing line (method.md section 5).

    E7a  value -> choice: see `value_interchange`
    E7b  plan -> value -> choice: see `plan_interchange`
    E7 = mean(E7a, E7b), clipped to [0, 1]

High-level models are fitted to the subject's choices first: the search (exhaustive, look-ahead 3 or 2, or the subject's
own completions) and the heuristic that explain them best. Pairs are those on which the two disagree about a change.

Blind spots. A parallel enumerator (one unit per tour) holds no value per option before its output: there E7a may be
null and E7b is close to an edit of the input; line E7c looks for its units. A network that adds its values up in the
very last step (the compiled look-aheads: costs and one-hot plans before it, one gate per arc) has no compact value
before its output either, and only E7b can show it. A network that evaluates in its last layer is seen at one site,
behind that layer's attention.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mesaprobe.errors import UserError
from mesaprobe.evidence.causal.flips import Flips, flips_of_pairs, mined_flips
from mesaprobe.evidence.causal.plan_interchange import PlanInterchange, edge_pairs, plan_interchange
from mesaprobe.evidence.causal.value_interchange import (
    SubspaceSearch,
    ValueInterchange,
    candidate_sites,
    value_interchange,
)
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.causal_models import (
    CausalModel,
    Exhaustive,
    Fit,
    OwnCompletions,
    fitted,
    next_cities,
    rival_models,
)
from mesaprobe.evidence.states.pairs import PairSet, optimal_pairs, own_pairs
from mesaprobe.instruments.activations import residual_sites
from mesaprobe.models.subject import ModuleSubject, Subject

ID, NAME = "E7", "interchange: value and plan decide the choice"
_STREAM = 700


@dataclass(frozen=True)
class InterchangeSettings:
    """How much is learned and measured."""

    pairs: int
    """Mined pairs per set, before those are dropped whose base the subject answers otherwise than the model."""
    edge_pairs: int
    """Random pairs per set that differ in one edge."""
    fit_instances: int
    search: SubspaceSearch
    edge_dimensions: tuple[int, ...] = (1, 4, 16)
    randoms: int = 50
    """Random subspaces, whose 95 % quantile is a baseline."""
    least_pairs: int = 24
    """With fewer on either set, the line does not apply."""
    least_eligible: int = 20
    """With fewer edge pairs that tell options apart, E7b does not apply."""
    margin: float = 0.05
    flips: int = 999
    resamples: int = 2000


def interchange(subject: Subject, settings: InterchangeSettings, seed: int) -> LineResult:
    """Measure E7. Needs a network whose residual stream can be edited and run from, and independent entries."""
    if not isinstance(subject, ModuleSubject) or not residual_sites(subject, roles=("decode",)):
        return LineResult("na", "the network's residual stream cannot be reached and edited")
    if subject.problem.planar:
        return LineResult("na", "in the plane no entry changes alone, which the pairs of this line ask for")
    fit = fitted(subject, settings.fit_instances, seed)
    try:
        flips = {
            name: search_flips(subject, fit.search, name, settings, seed) for name in ("pairs_probe", "pairs_test")
        }
    except UserError as error:
        return LineResult("na", f"there are no pairs for this problem: {error}")
    probe, test = flips["pairs_probe"], flips["pairs_test"]
    if min(len(probe), len(test)) < settings.least_pairs:
        return LineResult(
            "na",
            f"the search that explains the network best ({fit.search.name}) has {len(probe)} and {len(test)} pairs "
            f"whose base the network answers alike, fewer than {settings.least_pairs}",
            details={"search": fit.search.name, "agreement": fit.agreement},
        )
    rivals = rival_flips(subject, fit, settings, seed)
    values = value_interchange(subject, probe, test, rivals, settings.search, settings.randoms, seed)
    plans = plan_interchange(
        subject,
        fit.search,
        edge_pairs(subject, "pairs_probe", settings.edge_pairs, seed),
        edge_pairs(subject, "pairs_test", settings.edge_pairs, seed),
        candidate_sites(subject),
        settings.edge_dimensions,
    )
    return _result(fit, values, plans, settings, seed)


def search_flips(
    subject: Subject, search: CausalModel, name: PairSet, settings: InterchangeSettings, seed: int
) -> Flips:
    """Pairs on which a search changes its mind and no heuristic does, and whose base the subject answers as it does."""
    if isinstance(search, OwnCompletions):
        return flips_of_pairs(own_pairs(subject, name, settings.pairs, seed))
    if isinstance(search, Exhaustive):
        return flips_of_pairs(optimal_pairs(subject, name, settings.pairs, seed))
    rivals = rival_models(subject.problem)
    return answered_alike(
        subject, mined_flips(subject.problem, search, rivals, name, settings.pairs, seed, settings.margin)
    )


def rival_flips(subject: Subject, fit: Fit, settings: InterchangeSettings, seed: int) -> tuple[Flips, Flips]:
    """Probe and test pairs on which the best heuristic changes its mind and the search does not."""
    search = Exhaustive() if isinstance(fit.search, OwnCompletions) else fit.search
    probe, test = (
        answered_alike(
            subject,
            mined_flips(subject.problem, fit.rival, (search,), name, settings.pairs, seed, settings.margin),
        )
        for name in ("pairs_probe", "pairs_test")
    )
    return probe, test


def answered_alike(subject: Subject, flips: Flips) -> Flips:
    """The pairs whose base the subject answers as the model does."""
    return flips[np.flatnonzero(next_cities(subject, flips.runs[0]) == flips.old)]


def _result(
    fit: Fit, values: ValueInterchange, plans: PlanInterchange, settings: InterchangeSettings, seed: int
) -> LineResult:
    rng = np.random.default_rng([seed, _STREAM, 1])
    parts, draws = [values.value], [values.draws(rng, settings.resamples)]
    p_values = [values.p(rng, settings.flips)]
    applies = plans.eligible >= settings.least_eligible
    if applies:
        parts.append(plans.value)
        draws.append(plans.draws(rng, settings.resamples))
        p_values.append(plans.p(rng, settings.flips))
    value = float(np.clip(np.mean(parts), 0.0, 1.0))
    low, high = np.quantile(np.clip(np.mean(draws, axis=0), 0.0, 1.0), [0.025, 0.975])
    spread = [[float(x) for x in np.quantile(draw, [0.025, 0.975])] for draw in draws]
    details: dict[str, Any] = {
        "search": fit.search.name,
        "rival": fit.rival.name,
        "agreement": fit.agreement,
        "e7a": parts[0],
        "e7a_ci": spread[0],
        "e7a_p": p_values[0],
        "interchange_accuracy": float(values.search.mean()),
        "e7b": parts[1] if applies else None,
        "e7b_ci": spread[1] if applies else None,
        "e7b_p": p_values[1] if applies else None,
        "e7b_eligible": plans.eligible,
        "value_interchange": values.details,
        "plan_interchange": plans.details,
    }
    return LineResult(
        "ok",
        None if applies else "too few pairs tell options apart, so that E7b does not apply",
        value,
        (float(low), float(high)),
        min(1.0, len(p_values) * min(p_values)),
        null=values.baselines,
        details=details,
        arrays={
            "accuracy": np.array([values.search.mean(), *values.baselines.values()]),
            "names": np.array(["search", *values.baselines]),
            "e7": np.array([parts[0], parts[1] if applies else np.nan]),
            "e7_low": np.array([spread[0][0], spread[1][0] if applies else np.nan]),
            "e7_high": np.array([spread[0][1], spread[1][1] if applies else np.nan]),
            "moved_effects": plans.effects[plans.moved],
            "stay_effects": plans.effects[plans.stays],
        },
    )


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        interchange,
        {
            "quick": InterchangeSettings(240, 500, 60, SubspaceSearch(1, (8,), 60)),
            "standard": InterchangeSettings(500, 1200, 150, SubspaceSearch(2, (4, 8), 60)),
            "full": InterchangeSettings(1500, 3000, 300, SubspaceSearch(3, (1, 4, 8), 60)),
        },
    ),
)
