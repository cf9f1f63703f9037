"""E10a: does the plan get cheaper from layer to layer, more than chance would have it? (method.md section 5, E10a)

After each layer a whole tour is decoded from the decode token of the first decision: a linear probe of every pair of
cities, fitted at that layer on the set "lens" to the edges of the network's own completion, then the walk along the
highest scores (`lens.greedy_plans`). A change of the plan from one layer to the next counts if it changes the cost and
drops an edge that the layer before was `SURE` of: a candidate is given up for another. To fill in what was open yet is
no revision; a rule that assembles its tour edge by edge does that at every step, and never gives up an edge. Of these,

    E10a = (share that lowers the cost - share that raises it) - max{the same for every null, 0}

- split half: from the probe of one half of the set "lens" to that of the other half, at the same layer (probe noise);
- rewired: from each plan to a random one at the same number of exchanged edges;
- random twins: the same probes on random networks, where depth only mixes the input.

Before the first layer there is no plan that could be revised, so what the first layer makes does not count.
Any residual network sharpens its answer with depth, a rule follower's too. Falling costs are what revision would
give, never proof of it.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64

from mesaprobe.evidence.probing.findings import outlier_p
from mesaprobe.evidence.probing.plan_targets import city_pairs, used_pairs
from mesaprobe.evidence.probing.states import follow
from mesaprobe.evidence.probing.tokens import stream_sites
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.instruments.activations import Site, collect
from mesaprobe.instruments.lens import Revisions, greedy_plans, plan_revisions
from mesaprobe.instruments.probes import ridge_sweep
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.statistics import bootstrap_of_sums, minimum_detectable_effect, sign_flip_p

ID, NAME = "E10a", "revision: the decoded plan gets cheaper from layer to layer"
FOLDS = 3
SURE = 0.5
"""Score from which the lens holds an edge to be in the plan: more likely than not."""


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
class _Case:
    """The first decision of each instance, and the network's own tour from there."""

    instances: Instances
    tours: Int64[np.ndarray, "batch n"]
    step: int

    @property
    def labels(self) -> Float64[np.ndarray, "batch pair"]:
        symmetric = self.instances.problem.symmetric
        return used_pairs(self.tours, self.step, symmetric).astype(np.float64)


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
class _Plans:
    """A whole tour decoded from each layer, and the pairs of cities that the layer's lens is sure of."""

    tours: Int64[np.ndarray, "layer instance n"]
    sure: Bool[np.ndarray, "layer instance pair"]


@dataclass(frozen=True, eq=False)
class _Halves:
    """Plans by the probes of either half of the lens set."""

    first: _Plans
    second: _Plans

    def of_layer(self, layer: int) -> _Plans:
        """Both plans of one layer, one after the other."""
        both = (self.first, self.second)
        return _Plans(np.stack([p.tours[layer] for p in both]), np.stack([p.sure[layer] for p in both]))


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
    plans, halves = _decoded(subject, sites, lens, test)
    steps = _revisions(plans, test)
    own = _balance(steps)
    if own.all.sum() < settings.least_changes:
        return LineResult(
            "na",
            f"the decoded plan gives up a sure edge for another cost only {int(own.all.sum())} times over all layers "
            "and instances",
        )
    split = _balance(*[_revisions(halves.of_layer(layer), test) for layer in range(len(sites))])
    rng = np.random.default_rng([seed, 31])
    rewired = _balance(*_rewired(plans, test, settings.rewirings, rng))
    twins = []
    for twin in range(settings.random_twins):
        twins.append(_balance(_revisions(_decoded(subject.random_twin(seed + 1 + twin), sites, lens, test)[0], test)))
    return _result(own, {"split half": split, "rewired": rewired}, twins, steps, sites, settings, seed)


def _observe(subject: Subject, instances: Instances) -> _Case:
    features = torch.from_numpy(instances.features)
    start = np.zeros((len(features), 1), dtype=np.int64)
    return _Case(
        instances,
        follow(subject, features, start, instances.problem.n).tours,
        decision_steps(instances.problem).start,
    )


def _tokens(network: Subject, sites: list[Site], case: _Case) -> Float[np.ndarray, "site instance d"]:
    steps = slice(case.step, case.step + 1)
    features = torch.from_numpy(case.instances.features)
    return collect(network, features, torch.from_numpy(case.tours), steps, sites, dtype=np.float32).samples


def _decoded(network: Subject, sites: list[Site], lens: _Case, test: _Case) -> tuple[_Plans, _Halves]:
    """Plans by probes fitted to all of the lens set, and to each half of it."""
    fit, shown = _tokens(network, sites, lens), _tokens(network, sites, test)
    labels, fold = lens.labels, np.arange(len(lens.tours)) % FOLDS
    half = np.arange(len(fold)) // FOLDS % 2
    found = []
    for kept in (np.ones(len(fold), dtype=np.bool_), half == 0, half == 1):
        live = np.ptp(labels[kept], axis=0) > 0
        scores = np.zeros((len(sites), shown.shape[1], labels.shape[1]))
        probes = ridge_sweep(fit[:, kept], labels[kept][:, live], fold[kept], keep_predictions=False).probes
        scores[..., live] = probes.predict(shown)
        found.append(_Plans(_walked(scores, test), scores >= SURE))
    return found[0], _Halves(found[1], found[2])


def _walked(scores: Float64[np.ndarray, "site instance pair"], case: _Case) -> Int64[np.ndarray, "site instance n"]:
    n, symmetric = case.tours.shape[1], case.instances.problem.symmetric
    left, right = city_pairs(n, symmetric).T
    table = np.zeros((*scores.shape[:2], 1, n, n))
    table[:, :, 0, left, right] = scores
    if symmetric:
        table[:, :, 0, right, left] = scores
    return greedy_plans(table, case.tours, np.array([case.step]))[:, :, 0]


def _revisions(plans: _Plans, case: _Case) -> Revisions:
    """Changes of the plan that give up a sure edge."""
    symmetric = case.instances.problem.symmetric
    found = plan_revisions(plans.tours, case.instances.weights, undirected=symmetric)
    used = np.stack([used_pairs(tours, 0, symmetric) for tours in plans.tours])
    given_up = (used[:-1] & ~used[1:] & plans.sure[:-1]).any(axis=2)
    return Revisions(found.changed & given_up, found.better & given_up, found.worse & given_up, found.costs)


def _balance(*revisions: Revisions) -> _Balance:
    better = sum(part.better.sum(axis=0).astype(np.float64) for part in revisions)
    worse = sum(part.worse.sum(axis=0).astype(np.float64) for part in revisions)
    return _Balance(np.asarray(better - worse), np.asarray(better + worse))


def _rewired(plans: _Plans, case: _Case, draws: int, rng: np.random.Generator) -> list[Revisions]:
    """Every change replaced by a random one of the plan before, as far away from it, where one was drawn."""
    symmetric = case.instances.problem.symmetric
    found = []
    for layer, (before, after) in enumerate(itertools.pairwise(plans.tours)):
        target = _exchanged(before, after, symmetric)
        other = before.copy()
        waiting = target > 0
        for draw in range(draws):
            proposal = _shaken(before, case.step + 1, 1 + draw % 4, rng)
            fits = waiting & (_exchanged(before, proposal, symmetric) == target)
            other[fits] = proposal[fits]
            waiting &= ~fits
        found.append(_revisions(_Plans(np.stack([before, other]), plans.sure[[layer, layer]]), case))
    return found


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
        version=2,
    ),
)
