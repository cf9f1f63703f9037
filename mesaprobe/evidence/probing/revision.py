"""E10a: does the plan get cheaper from layer to layer, more than chance would have it? (method.md section 5, E10a)

After each layer a whole tour is decoded from the decode token of the first decision, by linear probes that are fitted
at that layer, on the set "lens", to the network's own completion. A stream may hold a plan edge by edge (one probe of
every pair of cities, then the walk along the highest scores, `lens.greedy_plans`) or place by place (one probe of
every city in every place, then the best assignment), and neither is a linear function of the other: of these two codes
the one is taken by which more of the completion's edges are read from the last layer, on lens instances that the
probes have not seen. A change of the plan from one layer to the next counts if it changes the cost and both plans are
whole candidates: the lens of either layer is sure (`plan_codes.SURE`) of every edge of its plan. One candidate is given
up for another, as search does (S5 of method.md section 1). To fill in what was open yet is no revision, and neither is
it to open an edge in order to insert a city into a part of a tour; rules that assemble their tours do either at every
step. Of these,

    E10a = (share that lowers the cost - share that raises it) - max{the same for every null, 0}

- split half: from the probe of one half of the set "lens" to that of the other half, at the same layer (probe noise);
- rewired: from each plan to a random one at the same number of exchanged edges;
- nearest next: from each plan to the one that a walking rule makes of it: it brings the city that is nearest to the
  first place that changed, with a reversal;
- random twins: the same probes on random networks, where depth only mixes the input.

Before the first layer there is no plan that could be revised, so what the first layer makes does not count.
The lens is fitted to the network's own tour, so that of a candidate that seldom comes through it is never sure: what
is seen are revisions of plans that are mostly kept, none in networks that hold plans in no linear code.
Any residual network sharpens its answer with depth, a rule follower's too. Falling costs are what revision would
give, never proof of it.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer

from mesaprobe.evidence.probing.findings import outlier_p
from mesaprobe.evidence.probing.plan_codes import CODES, Case, Code, Plans
from mesaprobe.evidence.probing.plan_targets import used_pairs
from mesaprobe.evidence.probing.states import follow
from mesaprobe.evidence.probing.tokens import stream_sites
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.instruments.activations import Site, collect
from mesaprobe.instruments.lens import Revisions, plan_revisions
from mesaprobe.instruments.probes import ridge_sweep
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.statistics import bootstrap_of_sums, minimum_detectable_effect, sign_flip_p

ID, NAME = "E10a", "revision: the decoded plan gets cheaper from layer to layer"
FOLDS = 3


@dataclass(frozen=True)
class RevisionSettings:
    """How much the line spends, and what it calls too little."""

    lens_instances: int
    """To fit the plan probes of every layer."""
    test_instances: int
    random_twins: int
    rewirings: int = 60
    """Random plans drawn for each change, of which one at its distance is taken."""
    least_changes: int = 50
    """Changes of cost, over all layers and instances, below which there is nothing to judge."""
    resamples: int = 2000
    flips: int = 999


@dataclass(frozen=True, eq=False)
class _Balance:
    """Changes for the better less changes for the worse, and both together, of each instance."""

    net: Float64[np.ndarray, " instance"]
    all: Float64[np.ndarray, " instance"]

    @property
    def value(self) -> float:
        """2 pi - 1; 0 where nothing changes."""
        return float(self.net.sum() / max(self.all.sum(), 1.0))

    @property
    def shares(self) -> Float64[np.ndarray, " instance"]:
        """What each instance adds to the value."""
        return self.net / max(self.all.sum(), 1.0)


@dataclass(frozen=True, eq=False)
class _Halves:
    """Plans by the probes of either half of the lens set."""

    first: Plans
    second: Plans

    def of_layer(self, layer: int) -> Plans:
        """Both plans of one layer, one after the other."""
        both = (self.first, self.second)
        return Plans(np.stack([p.tours[layer] for p in both]), np.stack([p.sure[layer] for p in both]))


def revision(subject: Subject, settings: RevisionSettings, seed: int) -> LineResult:
    """Measure E10a. Needs hook points of the residual stream and at least 6 cities."""
    sites = [site for site in stream_sites(subject)[0] if site.kind == "resid_post"]
    if len(sites) < 2 or subject.problem.n < 6:
        why = "fewer than two layers to compare" if len(sites) < 2 else "fewer than 6 cities leave no plan to revise"
        return LineResult("na", why)
    lens, test = (
        _observe(subject, draw_set(subject.problem, name, count, seed))
        for name, count in (("lens", settings.lens_instances), ("test", settings.test_instances))
    )
    code, readable = _best_code(subject, sites[-1], lens)
    plans, halves = _decoded(subject, sites, code, lens, test)
    steps = _revisions(plans, test)
    own, counted = _balance(steps), steps.better | steps.worse
    if own.all.sum() < settings.least_changes:
        return LineResult(
            "na",
            f"one whole candidate is given up for another of another cost only {int(own.all.sum())} times over all "
            "layers and instances",
        )
    split = _balance(*[_revisions(halves.of_layer(layer), test) for layer in range(len(sites))])
    rng = np.random.default_rng([seed, 31])
    rewired, nearest = (  # of the changes that count, whether or not the other plan costs as much
        replace(_balance(*_replaced(plans, test, counted, change)), all=own.all)
        for change in (_Rewired(settings.rewirings, rng), _nearest_step)
    )
    twins = []
    for twin in range(settings.random_twins):
        twins.append(
            _balance(_revisions(_decoded(subject.random_twin(seed + 1 + twin), sites, code, lens, test)[0], test))
        )
    nulls = {"split half": split, "rewired": rewired, "nearest next": nearest}
    found = _result(own, nulls, twins, steps, sites, settings, seed)
    return replace(found, details={**found.details, "code": code.name, "edges_read": readable})


def _observe(subject: Subject, instances: Instances) -> Case:
    features = torch.from_numpy(instances.features)
    start = np.zeros((len(features), 1), dtype=np.int64)
    return Case(
        instances,
        follow(subject, features, start, instances.problem.n).tours,
        decision_steps(instances.problem).start,
    )


def _tokens(network: Subject, sites: list[Site], case: Case) -> Float[np.ndarray, "site instance d"]:
    steps = slice(case.step, case.step + 1)
    features = torch.from_numpy(case.instances.features)
    return collect(network, features, torch.from_numpy(case.tours), steps, sites, dtype=np.float32).samples


def _best_code(subject: Subject, last: Site, lens: Case) -> tuple[Code, dict[str, float]]:
    """The code by which most edges of the network's own completion are read from its last layer, by probes of one half
    of the lens set on the other; and those shares, by code."""
    tokens = _tokens(subject, [last], lens)
    half, fold = np.arange(len(lens.tours)) % 2, np.arange(len(lens.tours)) // 2 % FOLDS
    shown = Case(lens.instances[half == 1], lens.tours[half == 1], lens.step)
    own = used_pairs(shown.tours, shown.step, shown.symmetric)
    shares = {}
    for code in CODES:
        scores = _scores(tokens[:, half == 0], code.labels(lens)[half == 0], fold[half == 0], tokens[:, half == 1])
        read = used_pairs(code.plans(scores, shown).tours[0], shown.step, shown.symmetric)
        shares[code.name] = float((own & read).sum() / own.sum())
    return max(CODES, key=lambda code: shares[code.name]), shares


def _decoded(network: Subject, sites: list[Site], code: Code, lens: Case, test: Case) -> tuple[Plans, _Halves]:
    """Plans by probes fitted to all of the lens set, and to each half of it."""
    fit, shown = _tokens(network, sites, lens), _tokens(network, sites, test)
    labels, fold = code.labels(lens), np.arange(len(lens.tours)) % FOLDS
    half = np.arange(len(fold)) // FOLDS % 2
    whole, first, second = (
        code.plans(_scores(fit[:, kept], labels[kept], fold[kept], shown), test)
        for kept in (np.ones(len(fold), dtype=np.bool_), half == 0, half == 1)
    )
    return whole, _Halves(first, second)


def _scores(
    fit: Float[np.ndarray, "site sample d"],
    labels: Float64[np.ndarray, "sample label"],
    fold: Int64[np.ndarray, " sample"],
    shown: Float[np.ndarray, "site instance d"],
) -> Float64[np.ndarray, "site instance label"]:
    """What ridge probes, fitted site by site, say of other instances; 0 where a label never varies."""
    live = np.ptp(labels, axis=0) > 0
    scores = np.zeros((len(fit), shown.shape[1], labels.shape[1]))
    scores[..., live] = ridge_sweep(fit, labels[:, live], fold, keep_predictions=False).probes.predict(shown)
    return scores


def _revisions(plans: Plans, case: Case) -> Revisions:
    """Changes of the plan from one whole candidate to another."""
    symmetric = case.instances.problem.symmetric
    found = plan_revisions(plans.tours, case.instances.weights, undirected=symmetric)
    used = np.stack([used_pairs(tours, case.step, symmetric) for tours in plans.tours])
    whole = (plans.sure | ~used).all(axis=2)
    counted = whole[:-1] & whole[1:]
    return Revisions(found.changed & counted, found.better & counted, found.worse & counted, found.costs)


def _balance(*revisions: Revisions) -> _Balance:
    better = sum(part.better.sum(axis=0).astype(np.float64) for part in revisions)
    worse = sum(part.worse.sum(axis=0).astype(np.float64) for part in revisions)
    return _Balance(np.asarray(better - worse), np.asarray(better + worse))


class _Change(Protocol):
    """Another plan in place of the one after a change."""

    def __call__(
        self, before: Int64[np.ndarray, "instance n"], after: Int64[np.ndarray, "instance n"], case: Case
    ) -> Int64[np.ndarray, "instance n"]: ...


def _replaced(
    plans: Plans, case: Case, counted: Bool[np.ndarray, "change instance"], change: _Change
) -> list[Revisions]:
    """Every change that counts replaced by another one of the plan before."""
    symmetric = case.instances.problem.symmetric
    found = []
    for mask, (before, after) in zip(counted, itertools.pairwise(plans.tours), strict=True):
        other = np.where(mask[:, None], change(before, after, case), before)
        found.append(plan_revisions(np.stack([before, other]), case.instances.weights, undirected=symmetric))
    return found


def _nearest_step(before: np.ndarray, after: np.ndarray, case: Case) -> np.ndarray:
    return nearest_next(before, after, case.instances.weights, case.step)


@dataclass(frozen=True, eq=False)
class _Rewired:
    """A random plan, as far away from the plan before as the one after it; the plan before where none was drawn."""

    draws: int
    rng: np.random.Generator

    def __call__(self, before: np.ndarray, after: np.ndarray, case: Case) -> np.ndarray:
        symmetric = case.instances.problem.symmetric
        target = _exchanged(before, after, symmetric)
        other = before.copy()
        waiting = target > 0
        for draw in range(self.draws):
            proposal = _shaken(before, case.step + 1, 1 + draw % 4, self.rng)
            fits = waiting & (_exchanged(before, proposal, symmetric) == target)
            other[fits] = proposal[fits]
            waiting &= ~fits
        return other


def nearest_next(
    before: Int64[np.ndarray, "instance n"],
    after: Int64[np.ndarray, "instance n"],
    weights: Integer[np.ndarray, "instance n n"],
    known: int,
) -> Int64[np.ndarray, "instance n"]:
    """The plan before, turned round so that the nearest city comes to the first place that changed, no sooner than
    behind the `known` first places and one more."""
    rows, places = np.arange(len(before))[:, None], np.arange(before.shape[1])
    first = np.maximum((before != after).argmax(axis=1), known + 1)[:, None]
    distance = weights[rows, before[rows, first - 1], before].astype(np.float64)
    nearest = np.where(places >= first, distance, np.inf).argmin(axis=1)[:, None]
    inside = (places >= first) & (places <= nearest)
    return np.take_along_axis(before, np.where(inside, first + nearest - places, places), axis=1)


def _exchanged(
    one: Int64[np.ndarray, "instance n"], two: Int64[np.ndarray, "instance n"], symmetric: bool
) -> Int64[np.ndarray, " instance"]:
    """How many edges of the first tour the second one lacks."""
    used: list[Bool[np.ndarray, "instance pair"]] = [used_pairs(tours, 0, symmetric) for tours in (one, two)]
    return (used[0] & ~used[1]).sum(axis=1)


def _shaken(
    tours: Int64[np.ndarray, "instance n"], first: int, moves: int, rng: np.random.Generator
) -> Int64[np.ndarray, "instance n"]:
    """Random reversals of stretches behind the first places, `moves` of them in each tour."""
    batch, n = tours.shape
    found = tours
    for _ in range(moves):
        low, high = np.sort(rng.integers(first, n, size=(2, batch)), axis=0)
        places = np.broadcast_to(np.arange(n), (batch, n))
        inside = (places >= low[:, None]) & (places <= high[:, None])
        turned = np.where(inside, low[:, None] + high[:, None] - places, places)
        found = np.take_along_axis(found, turned, axis=1)
    return found


def _result(
    own: _Balance,
    nulls: Mapping[str, _Balance],
    twins: list[_Balance],
    steps: Revisions,
    sites: list[Site],
    settings: RevisionSettings,
    seed: int,
) -> LineResult:
    rng = np.random.default_rng([seed, 32])
    arms = [own, *nulls.values(), *twins]
    totals = np.stack([np.stack([arm.net, arm.all]) for arm in arms], axis=1)  # [two, arm, instance]

    def score(sums: Float64[np.ndarray, "draw two arm"]) -> Float64[np.ndarray, "draw two"]:
        values = sums[:, 0] / np.maximum(sums[:, 1], 1.0)
        fixed, rest = values[:, 1 : 1 + len(nulls)], values[:, 1 + len(nulls) :]
        mean = rest.mean(axis=1, keepdims=True) if rest.shape[1] else np.zeros((len(values), 1))
        strongest = np.maximum(np.concatenate([fixed, mean], axis=1).max(axis=1), 0.0)
        return np.stack([values[:, 0] - strongest, values[:, 0]], axis=1)

    found = bootstrap_of_sums(score, totals, rng, resamples=settings.resamples)
    p_values = {"none (0)": sign_flip_p(own.shares, rng, flips=settings.flips)}
    for name, arm in nulls.items():
        p_values[name] = sign_flip_p(own.shares - arm.shares, rng, flips=settings.flips)
    twin_values = np.array([twin.value for twin in twins])
    if len(twins) > 1:
        p_values["random twins"] = outlier_p(own.value, twin_values, float(found.error[1]))
    null = {name: arm.value for name, arm in nulls.items()}
    null |= {f"random twin {i}": float(value) for i, value in enumerate(twin_values)}
    costs = steps.costs.mean(axis=1)
    spread = float(np.std(twin_values, ddof=1)) if len(twins) > 1 else 0.0
    return LineResult(
        "ok",
        None,
        found[0].value,
        found[0].ci,
        max(p_values.values()),
        null={**null, "none (0)": 0.0},
        details={
            "falling_less_rising": own.value,
            "better_share": float((1 + own.value) / 2),
            "changes_of_cost": int(own.all.sum()),
            "p_values": p_values,
            "minimum_detectable_effect": minimum_detectable_effect(float(np.hypot(found.error[0], spread))),
            "plan_cost_by_layer": costs.tolist(),
            "sites": [str(site) for site in sites],
            "instances": settings.test_instances,
        },
        table=pd.DataFrame({"site": [site.hook for site in sites], "arm": "subject", "plan cost": costs}),
        arrays={
            "hooks": np.array([site.hook for site in sites]),
            "costs": costs,
            "better": steps.better.mean(axis=1),
            "worse": steps.worse.mean(axis=1),
        },
    )


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        revision,
        {
            "quick": RevisionSettings(700, 500, 3),
            "standard": RevisionSettings(2500, 2000, 8),
            "full": RevisionSettings(6000, 5000, 20),
        },
        version=4,
    ),
)
