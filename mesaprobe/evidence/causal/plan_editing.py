"""E7d: a plan edited inside the network; does the whole rest of the tour follow? (method.md section 5, E7)

The directions in which a site moves when an edge changes its length are found on other data (`plan_interchange`).
Along the directions of one edge the network is steered, at every step of its rollout, as if that edge had another
length: the instance that it is shown stays the same. On pairs where that length moves the optimum, a network that
plans switches to the other tour as a whole; one that has been pushed off its rule walks a mongrel of both.

    coherent   the rollout is an optimal tour of the edited instance, from the state on
    stays      it is the tour without steering
    mongrel    anything else
    E7d        P(coherent | the edge moves the optimum) - P(another next city | an edge elsewhere, which does not)

(An edge elsewhere may rightly change the tour later on; only the next city is known to stay.)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.evidence.causal.plan_interchange import edge_directions, edge_keys, edge_pairs
from mesaprobe.evidence.causal.value_interchange import candidate_sites
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.causal_models import next_cities
from mesaprobe.evidence.states.pairs import SubjectPairs, optimal_pairs
from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.patching import Run
from mesaprobe.instruments.patching.runs import EditableRun, site_positions, site_vectors, write_site
from mesaprobe.labels.pairs.states import prefix_costs
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import Instances
from mesaprobe.solvers.exact.held_karp import optimal_rollouts
from mesaprobe.statistics import bootstrap_mean, sign_flip_p

ID, NAME = "E7d", "an edited plan is followed as a whole"
_STREAM = 740
DOSES = (-1.0, 0.0, 0.5, 1.0, 2.0)
"""Multiples of the change that the edge's length would make along its own directions."""


@dataclass(frozen=True)
class PlanEditingSettings:
    """How much is learned and measured."""

    pairs: int
    """Mined pairs per set."""
    edge_pairs: int
    """Random pairs on which the directions of the edges are found."""
    probe_pairs: int
    """Pairs of the probe set on which the site is chosen."""
    test_pairs: int
    edge_dimensions: tuple[int, ...] = (4, 16)
    least_pairs: int = 20
    flips: int = 999
    resamples: int = 2000


@dataclass(frozen=True, eq=False)
class _Steering:
    """A site, and the directions of every edge there."""

    site: Site
    dimension: int
    bases: Tensor
    """[edge, d, k], edge = u n + v with u < v on symmetric problems."""


def plan_editing(subject: Subject, settings: PlanEditingSettings, seed: int) -> LineResult:
    """Measure E7d. Needs a network that can be edited and run from, exact pairs, and independent entries."""
    sites = _sites(subject)
    if not isinstance(subject, ModuleSubject) or not sites:
        return LineResult("na", "the network's residual stream cannot be reached and edited")
    if subject.problem.planar:
        return LineResult("na", "in the plane no entry changes alone, which the pairs of this line ask for")
    try:
        probe, test = (
            _one_edge(optimal_pairs(subject, name, settings.pairs, seed)) for name in ("pairs_probe", "pairs_test")
        )
    except UserError as error:
        return LineResult("na", f"there are no pairs for this problem: {error}")
    probe, test = probe[: settings.probe_pairs], test[: settings.test_pairs]
    if min(len(probe), len(test)) < settings.least_pairs:
        return LineResult(
            "na", f"only {len(probe)} and {len(test)} pairs have a base that the network answers optimally"
        )
    learned = edge_pairs(subject, "pairs_probe", settings.edge_pairs, seed)
    trials = [
        _Steering(site, k, bases[..., :k])
        for site in sites
        for bases in (edge_directions(subject, learned, site, max(settings.edge_dimensions)),)
        for k in settings.edge_dimensions
    ]
    rates = [float(outcomes(subject, probe, trial, relevant=True)[0].mean()) for trial in trials]
    best = trials[int(np.argmax(rates))]
    return _result(subject, test, best, rates, trials, settings, seed)


def _sites(subject: Subject) -> list[Site]:
    """Candidates: those of E7a, and the stream behind every attention."""
    found = candidate_sites(subject)
    names = {site.hook for site in found}
    middles = [
        Site(hook, "decode", int(hook.split(".")[1]), "resid_mid")
        for hook in subject.hook_names
        if hook.endswith("hook_resid_mid") and hook not in names
    ]
    return [*found, *middles]


def _one_edge(found: SubjectPairs) -> SubjectPairs:
    """Pairs that differ from their base in one entry."""
    entries = np.stack([found.pairs.entries[:, 1, 0], found.pairs.irrelevant_entries[:, 1, 0]])
    return found[np.flatnonzero((entries < 0).all(axis=0))]


def outcomes(
    subject: Subject, found: SubjectPairs, steering: _Steering, *, relevant: bool, dose: float = 1.0
) -> tuple[Bool[np.ndarray, " pair"], Bool[np.ndarray, " pair"], Bool[np.ndarray, " pair"]]:
    """Which steered rollouts are optimal on the twin, which are the tours without steering, which begin as these."""
    pairs = found.pairs
    twin, entries = (pairs.relevant, pairs.entries) if relevant else (pairs.irrelevant, pairs.irrelevant_entries)
    bases = steering.bases[torch.from_numpy(edge_keys(subject, entries[:, 0]))]
    plain = _plain_rollout(subject, pairs.base, pairs.prefixes, pairs.lengths)
    steered = steered_rollout(subject, pairs.base, twin, pairs.prefixes, pairs.lengths, steering.site, bases, dose)
    best = optimal_rollouts(twin.weights, pairs.prefixes, pairs.lengths, np.zeros(pairs.prefixes.shape)).action_values
    rows = np.arange(len(found))
    spent = prefix_costs(twin.weights, pairs.prefixes, pairs.lengths)
    optimum = spent + best[rows, pairs.lengths - 1].min(axis=1)
    begins = steered[rows, pairs.lengths] == plain[rows, pairs.lengths]
    return twin.tour_costs(steered) == optimum, (steered == plain).all(axis=1), begins


def _plain_rollout(
    subject: Subject, base: Instances, prefixes: Int64[np.ndarray, "batch n"], lengths: Int64[np.ndarray, " batch"]
) -> Int64[np.ndarray, "batch n"]:
    """The tours that the subject walks from the states on."""
    n = subject.problem.n
    tours = np.where(np.arange(n) < lengths[:, None], prefixes, 0)
    features = torch.from_numpy(base.features)
    for length in range(int(lengths.min()), n):
        walking = np.flatnonzero(lengths <= length)
        run = Run(features[torch.from_numpy(walking)], torch.from_numpy(tours[walking, :length]))
        tours[walking, length] = next_cities(subject, run)
    return tours


def steered_rollout(
    subject: Subject,
    base: Instances,
    twin: Instances,
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    site: Site,
    bases: Float64[Tensor, "batch d k"],
    dose: float,
) -> Int64[np.ndarray, "batch n"]:
    """The tours that the subject walks on `base` from the states on, pushed at every step along `bases` by `dose` times
    the difference that `twin` makes there."""
    n = subject.problem.n
    tours = np.where(np.arange(n) < lengths[:, None], prefixes, 0)
    done = lengths.copy()
    features = [torch.from_numpy(member.features) for member in (base, twin)]
    for length in range(int(done.min()), n):
        walking = torch.from_numpy(np.flatnonzero(done <= length))
        prefix = torch.from_numpy(tours[walking.numpy(), :length])
        runs = [Run(part[walking], prefix) for part in features]
        logits = _steered_logits(subject, runs[0], runs[1], site, bases[walking], dose)
        tours[walking.numpy(), length] = logits.scatter(1, prefix, -torch.inf).argmax(dim=1).numpy()
    return tours


def _steered_logits(
    subject: Subject, base: Run, twin: Run, site: Site, bases: Float64[Tensor, "batch d k"], dose: float
) -> Tensor:
    positions = site_positions(subject, site, base)
    own, other = (site_vectors(subject, run, site, positions) for run in (base, twin))
    push = dose * torch.einsum("btd,bdk,bek->bte", other - own, bases, bases)

    def edit(activation: Tensor, rows: Tensor) -> Tensor:
        return write_site(activation, site, positions[rows], (own[rows] + push[rows]).to(activation))

    return EditableRun(subject, base, [site.hook]).logits({site.hook: edit})


def _result(
    subject: Subject,
    test: SubjectPairs,
    best: _Steering,
    rates: list[float],
    trials: list[_Steering],
    settings: PlanEditingSettings,
    seed: int,
) -> LineResult:
    rng = np.random.default_rng([seed, _STREAM])
    coherent, stays, _ = outcomes(subject, test, best, relevant=True)
    _, _, unmoved = outcomes(subject, test, best, relevant=False)
    differences = coherent.astype(np.float64) - (~unmoved).astype(np.float64)
    value = bootstrap_mean(differences, rng, resamples=settings.resamples)
    left = ~stays
    curve = np.stack([_log_odds(subject, test, best, dose) for dose in DOSES])
    slope = np.polyfit(np.asarray(DOSES), curve, 1)[0]
    means = curve.mean(axis=1)
    details: dict[str, Any] = {
        "site": str(best.site),
        "pairs": len(test),
        "coherent": float(coherent.mean()),
        "stays": float(stays.mean()),
        "mongrel": float((left & ~coherent).mean()),
        "mongrel_of_those_that_leave": float((left & ~coherent).sum() / left.sum()) if left.any() else None,
        "moves_on_irrelevant": float((~unmoved).mean()),
        "doses": list(DOSES),
        "log_odds_by_dose": means.tolist(),
        "log_odds_per_dose": float(slope.mean()),
        "monotone": bool((np.diff(means) >= -1e-6).all()),
        "coherent_on_probe_by_site": {
            f"{trial.site}, {trial.dimension} directions": rate for trial, rate in zip(trials, rates, strict=True)
        },
    }
    return LineResult(
        "ok",
        None,
        value.value,
        value.ci,
        sign_flip_p(differences, rng, flips=settings.flips),
        null={"another next city when steered elsewhere": float((~unmoved).mean())},
        details=details,
        arrays={
            "outcomes": np.array([coherent.mean(), stays.mean(), (left & ~coherent).mean()]),
            "doses": np.asarray(DOSES),
            "log_odds": means,
        },
    )


def _log_odds(subject: Subject, test: SubjectPairs, steering: _Steering, dose: float) -> Float64[np.ndarray, " pair"]:
    """logit(y*) - logit(base action) at the state itself, under a dose of the relevant edge."""
    pairs, rows = test.pairs, np.arange(len(test))
    bases = steering.bases[torch.from_numpy(edge_keys(subject, pairs.entries[:, 0]))]
    base, relevant, _ = test.runs
    logits = _steered_logits(subject, base, relevant, steering.site, bases, dose).double().numpy()
    return logits[rows, test.target] - logits[rows, test.base_action]


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        plan_editing,
        {
            "quick": PlanEditingSettings(240, 400, 24, 60),
            "standard": PlanEditingSettings(500, 1200, 80, 250),
            "full": PlanEditingSettings(1500, 3000, 200, 800),
        },
    ),
)
