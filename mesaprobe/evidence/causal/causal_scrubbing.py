"""E7e: causal scrubbing of whole hypotheses (Chan et al. 2022; method.md section 5, E7).

A hypothesis says what decides the choice: the cheapest option of a search, or the answer of a heuristic, carried by
one site. All else it calls irrelevant. So the site is filled from another instance in which the hypothesis' variable
has the same value, and the rest of the network runs on a third, unrelated one, all after the same prefix. If the
hypothesis is right the choice stays what it was. On states where the best search and the best heuristic disagree,

    recovered = [P(stays | same variable) - P(stays | any instance)] / [1 - P(stays | any instance)]
    E7e       = recovered by the search - recovered by the heuristic, in about [-1, 1].
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from mesaprobe.evidence.causal.flips import decisions
from mesaprobe.evidence.causal.value_interchange import candidate_sites
from mesaprobe.evidence.protocol import SETS
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.causal_models import (
    CausalModel,
    Exhaustive,
    Fit,
    OwnCompletions,
    cheapest,
    fitted,
    next_cities,
)
from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.interchange import Interchange
from mesaprobe.instruments.patching import Run
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import Instances
from mesaprobe.statistics import bootstrap_of_sums, sign_flip_p

ID, NAME = "E7e", "causal scrubbing: the search against the heuristic"
_STREAM = 750
DRAWN = 6
"""States drawn for each that is asked for: most do not tell the two models apart."""


@dataclass(frozen=True)
class ScrubbingSettings:
    """How many states, and how many instances are looked through for one in which a variable is the same."""

    probe_states: int
    test_states: int
    fit_instances: int
    candidates: int = 32
    least_states: int = 20
    flips: int = 999
    resamples: int = 2000


@dataclass(frozen=True, eq=False)
class _Scrubs:
    """States, and for each what fills the site under every hypothesis and what the rest runs on."""

    states: Run
    search: Run
    heuristic: Run
    anything: Run
    rest: Run

    def __len__(self) -> int:
        return len(self.states)


def causal_scrubbing(subject: Subject, settings: ScrubbingSettings, seed: int) -> LineResult:
    """Measure E7e. Needs a network whose residual stream can be edited and run from."""
    sites = candidate_sites(subject)
    if not isinstance(subject, ModuleSubject) or not sites:
        return LineResult("na", "the network's residual stream cannot be reached and edited")
    fit = fitted(subject, settings.fit_instances, seed)
    probe = _scrubs(subject, fit, "pairs_probe", settings.probe_states, settings, seed)
    test = _scrubs(subject, fit, "pairs_test", settings.test_states, settings, seed)
    if min(len(probe), len(test)) < settings.least_states:
        return LineResult(
            "na", f"only {len(probe)} and {len(test)} states tell {fit.search.name} and {fit.rival.name} apart"
        )
    rates = [max(_kept(subject, probe, site)[:2].mean(axis=1)) for site in sites]
    site = sites[int(np.argmax(rates))]
    kept = _kept(subject, test, site)
    return _result(fit, site, kept, settings, seed)


def _scrubs(subject: Subject, fit: Fit, name: str, count: int, settings: ScrubbingSettings, seed: int) -> _Scrubs:
    rng = np.random.default_rng([seed, 1000 + SETS.index(name), _STREAM])
    problem = subject.problem
    search = Exhaustive() if isinstance(fit.search, OwnCompletions) else fit.search
    instances, prefixes, lengths = decisions(problem, DRAWN * count, rng)
    answers = [_answer(model, instances, prefixes, lengths) for model in (search, fit.rival)]
    apart = np.flatnonzero((answers[0] != answers[1]) & (answers[0] >= 0) & (answers[1] >= 0))[:count]
    prefixes, lengths = prefixes[apart], lengths[apart]
    repeated = [np.repeat(x, settings.candidates, axis=0) for x in (prefixes, lengths)]
    pool = problem.draw(len(apart) * settings.candidates, rng)
    shape = (len(apart), settings.candidates)
    same = [
        _answer(model, pool, *repeated).reshape(shape) == own[apart][:, None]
        for model, own in zip((search, fit.rival), answers, strict=True)
    ]
    found = np.flatnonzero(same[0].any(axis=1) & same[1].any(axis=1))
    starts = found * settings.candidates

    def run(chosen: Int64[np.ndarray, " state"] | None) -> Run:
        source = instances[apart[found]] if chosen is None else pool[chosen]
        features = torch.from_numpy(source.features)
        return Run(features, torch.from_numpy(prefixes[found]), torch.from_numpy(lengths[found]))

    last = starts + settings.candidates - 1
    return _Scrubs(
        run(None),
        run(starts + same[0][found].argmax(axis=1)),
        run(starts + same[1][found].argmax(axis=1)),
        run(last - 1),
        run(last),
    )


def _answer(
    model: CausalModel,
    instances: Instances,
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
) -> Int64[np.ndarray, " batch"]:
    """The model's choice, -1 where several options are equal."""
    best: Bool[np.ndarray, "batch n"] = cheapest(model.values(instances, prefixes, lengths))
    return np.where(best.sum(axis=1) == 1, best.argmax(axis=1), -1)


def _kept(subject: Subject, scrubs: _Scrubs, site: Site) -> Float64[np.ndarray, "3 state"]:
    """1 where the choice is what it was: site filled by the search's match, by the heuristic's, by anything."""
    own = next_cities(subject, scrubs.states)
    kept = []
    for source in (scrubs.search, scrubs.heuristic, scrubs.anything):
        logits = Interchange.at(subject, scrubs.rest, source, site).logits()
        visited = torch.zeros_like(logits, dtype=torch.bool)
        inside = torch.arange(logits.shape[1]) < scrubs.rest.lengths[:, None]
        visited.scatter_(1, torch.where(inside, scrubs.rest.prefixes, 0), True)
        kept.append(logits.masked_fill(visited, -torch.inf).argmax(dim=1).numpy() == own)
    return np.array(kept, dtype=np.float64)


def _result(
    fit: Fit, site: Site, kept: Float64[np.ndarray, "3 state"], settings: ScrubbingSettings, seed: int
) -> LineResult:
    rng = np.random.default_rng([seed, _STREAM])
    terms = np.concatenate([kept, np.ones((1, kept.shape[1]))])

    def recovered(sums: Float64[np.ndarray, "draw 4"]) -> Float64[np.ndarray, "draw 3"]:
        search, rule, anything, count = sums.T
        room = np.maximum(count - anything, 1e-9)
        return np.stack([(search - anything) / room, (rule - anything) / room, (search - rule) / room], axis=1)

    found = bootstrap_of_sums(recovered, terms, rng, resamples=settings.resamples)
    search, rule, value = found[0], found[1], found[2]
    details: dict[str, Any] = {
        "search": fit.search.name,
        "rival": fit.rival.name,
        "site": str(site),
        "states": kept.shape[1],
        "recovered_by_search": search.value,
        "recovered_by_search_ci": list(search.ci),
        "recovered_by_heuristic": rule.value,
        "recovered_by_heuristic_ci": list(rule.ci),
        "choice_stays_under_search": float(kept[0].mean()),
        "choice_stays_under_heuristic": float(kept[1].mean()),
        "choice_stays_under_anything": float(kept[2].mean()),
    }
    return LineResult(
        "ok",
        None,
        value.value,
        value.ci,
        sign_flip_p(kept[0] - kept[1], rng, flips=settings.flips),
        null={"recovered by the heuristic hypothesis": rule.value},
        details=details,
        arrays={
            "recovered": np.array([search.value, rule.value]),
            "low": np.array([search.low, rule.low]),
            "high": np.array([search.high, rule.high]),
        },
    )


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        causal_scrubbing,
        {
            "quick": ScrubbingSettings(80, 200, 60),
            "standard": ScrubbingSettings(200, 600, 150),
            "full": ScrubbingSettings(500, 2000, 300),
        },
    ),
)
