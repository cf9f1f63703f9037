"""E1b: does the network's distribution over whole tours follow their cost, beyond rules? (n of at most 9; context)

log p(tour) is the sum of the log-probabilities of its steps, visited cities masked. Within each instance it is compared
with the tour's cost: rank fidelity is minus their Spearman correlation, partial given what rules say of the tour (how
much longer its steps are than the nearest ones, how many take the nearest city, how many agree with each rule of
HEUR-v1); implied temperature is the cost that one nat buys. A network that weighs whole tours by exp(-cost / T) has
fidelity 1; one that weighs single steps by their length has none left after the rules. Good values of single steps
add up to it as well, so this says what is computed, not how.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.stats import rankdata

from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.labels.choices import heuristic_choices
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.problems.instances import random_tours
from mesaprobe.solvers.constructive import step_weights, unvisited
from mesaprobe.statistics import bootstrap_of_sums, sign_flip_p

ID, NAME = "E1b", "fidelity of the distribution over whole tours to their cost"


@dataclass(frozen=True)
class TourDistributionSettings:
    """How many instances and tours."""

    instances: int
    tours: int | None
    """Uniformly drawn directed tours per instance; None: every tour."""
    twin_instances: int
    largest_n: int = 9
    resamples: int = 2000
    sign_flips: int = 999


@dataclass(frozen=True, eq=False)
class Comparison:
    """Within-instance ranks (or values) of many tours, centred by instance."""

    log_p: Float64[np.ndarray, "instance tour"]
    costs: Float64[np.ndarray, "instance tour"]
    rules: Float64[np.ndarray, "instance tour k"]


def tour_distribution(subject: Subject, settings: TourDistributionSettings, seed: int) -> LineResult:
    """Run the line on a subject."""
    problem = subject.problem
    if not 5 <= problem.n <= settings.largest_n:
        return LineResult("na", f"the distribution over all tours is looked at for 5 to {settings.largest_n} cities")
    rng = np.random.default_rng([seed, 851])
    instances = draw_set(problem, "test", settings.instances, seed)
    tours = np.stack([_tours(problem.n, settings.tours, rng) for _ in range(settings.instances)])
    own = _compare(subject, instances, tours)
    some = slice(0, settings.twin_instances)
    twin = _compare(subject.random_twin(seed + 1), instances[some], tours[some])
    ranked, raw = _ranked(own), _residuals(own)
    fidelity = bootstrap_of_sums(_minus_correlation, _products(ranked), rng, resamples=settings.resamples)
    slope = bootstrap_of_sums(_slope, _products(raw), rng, resamples=settings.resamples)
    each = _minus_correlation(_products(ranked).T)
    plain = -_correlation(_centred(_within_ranks(own.log_p)), _centred(_within_ranks(own.costs)))
    mean_cost = float(instances.tour_costs(tours[:, 0]).mean())
    temperature = None if not slope.high < 0 else -1.0 / float(slope.value)
    null = float(_minus_correlation(_products(_ranked(twin)).sum(axis=1)[None])[0])
    return LineResult(
        "ok",
        None,
        fidelity[()].value,
        fidelity[()].ci,
        sign_flip_p(each, rng, flips=settings.sign_flips),
        null={"random-weight twin": null, "none (0)": 0.0},
        details={
            "role": "context",
            "rank_correlation_before_rules": plain,
            "nats_per_unit_of_cost": {"value": float(slope.value), "ci": list(slope[()].ci)},
            "implied_temperature": temperature,
            "implied_temperature_of_mean_tour": None if temperature is None else temperature / mean_cost,
            "instances": settings.instances,
            "tours_per_instance": tours.shape[1],
            "every_tour": settings.tours is None,
        },
        arrays={
            "log_p": own.log_p[0].astype(np.float32)[:2000],
            "costs": own.costs[0].astype(np.float32)[:2000],
            "optimum": np.array(float(own.costs[0].min())),
            "fidelity_by_instance": each,
        },
    )


def _tours(n: int, count: int | None, rng: np.random.Generator) -> Int64[np.ndarray, "tour n"]:
    if count is None:
        return np.array([(0, *rest) for rest in itertools.permutations(range(1, n))], dtype=np.int64)
    return random_tours(count, n, rng)


def _compare(subject: Subject, instances: Instances, tours: Int64[np.ndarray, "instance tour n"]) -> Comparison:
    """What the network and the rules say of every tour, and what it costs; instance by instance."""
    parts = [_compare_one(subject, instances[np.array([i])], each) for i, each in enumerate(tours)]
    return Comparison(*(np.stack(column) for column in zip(*parts, strict=True)))


def _compare_one(
    subject: Subject, instance: Instances, tours: Int64[np.ndarray, "tour n"]
) -> tuple[Float64[np.ndarray, " tour"], Float64[np.ndarray, " tour"], Float64[np.ndarray, "tour k"]]:
    many = instance[np.zeros(len(tours), dtype=np.int64)]
    features, n = torch.from_numpy(many.features), tours.shape[1]
    parts = [
        subject.logits(some, tour).double().cpu().numpy()
        for some, tour in zip(features.split(1024), torch.from_numpy(tours[:, :-1]).split(1024), strict=True)
    ]
    free, named = unvisited(tours), tours[:, 1:, None]
    logits = np.where(free, np.concatenate(parts), -np.inf)
    above = logits - logits.max(axis=2, keepdims=True)
    log_p = above - np.log(np.exp(above).sum(axis=2, keepdims=True))
    log_tour = np.maximum(np.take_along_axis(log_p, named, axis=2)[..., 0], -1e3).sum(axis=1)
    steps = step_weights(many.weights, tours)
    nearest = np.where(free, steps, np.iinfo(np.int32).max).min(axis=2)
    taken = np.take_along_axis(steps, named, axis=2)[..., 0]
    chosen = heuristic_choices(many, tours, slice(0, n - 2))
    agree = [(choice == tours[:, 1 : n - 1]).sum(axis=1) for choice in chosen.values()]
    rules = np.stack([(taken - nearest).sum(axis=1), (taken == nearest).sum(axis=1), *agree], axis=1)
    return log_tour, many.tour_costs(tours).astype(np.float64), rules.astype(np.float64)


def _ranked(data: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Residuals of within-instance ranks."""
    rules = np.stack([_within_ranks(column) for column in np.moveaxis(data.rules, 2, 0)], axis=2)
    return _residuals(Comparison(_within_ranks(data.log_p), _within_ranks(data.costs), rules))


def _residuals(data: Comparison) -> tuple[Float64[np.ndarray, "instance tour"], Float64[np.ndarray, "instance tour"]]:
    """log p and cost less their least-squares fit to the rules, all centred within the instance."""
    rules = np.moveaxis(np.stack([_centred(column) for column in np.moveaxis(data.rules, 2, 0)]), 0, 2)
    flat = rules.reshape(-1, rules.shape[2])
    both = np.stack([_centred(data.log_p).ravel(), _centred(data.costs).ravel()], axis=1)
    left = both - flat @ np.linalg.lstsq(flat, both, rcond=None)[0]
    return left[:, 0].reshape(data.log_p.shape), left[:, 1].reshape(data.costs.shape)


def _within_ranks(values: Float64[np.ndarray, "instance tour"]) -> Float64[np.ndarray, "instance tour"]:
    return np.asarray(rankdata(values, axis=1)) / values.shape[1]


def _centred(values: np.ndarray) -> np.ndarray:
    return np.asarray(values - values.mean(axis=1, keepdims=True))


def _products(residuals: tuple[np.ndarray, np.ndarray]) -> Float64[np.ndarray, "three instance"]:
    log_p, costs = residuals
    return np.stack([(log_p * costs).sum(axis=1), (log_p**2).sum(axis=1), (costs**2).sum(axis=1)])


def _minus_correlation(sums: Float64[np.ndarray, "draw three"]) -> Float64[np.ndarray, " draw"]:
    spread = np.sqrt(np.maximum(sums[:, 1] * sums[:, 2], 0.0))
    return -np.divide(sums[:, 0], spread, out=np.zeros_like(spread), where=spread > 1e-9)


def _slope(sums: Float64[np.ndarray, "draw three"]) -> Float64[np.ndarray, " draw"]:
    return np.divide(sums[:, 0], sums[:, 2], out=np.zeros(len(sums)), where=sums[:, 2] > 1e-9)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    spread = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / spread) if spread > 1e-9 else 0.0


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        tour_distribution,
        {
            "quick": TourDistributionSettings(instances=20, tours=100, twin_instances=4),
            "standard": TourDistributionSettings(instances=40, tours=200, twin_instances=10),
            "full": TourDistributionSettings(instances=8, tours=None, twin_instances=2),
        },
    ),
)
