"""E7c: hidden units that each stand for one tour (method.md section 5; exploratory, for parallel enumerators).

An enumerator with one unit per tour holds no value per option before its output, so that E7a and E7b see little. Its
units show themselves otherwise: what drives one is minus the length of one tour, and without it that tour alone is no
longer chosen. For the units that move the output most, layer by layer,

    overlap      correlation of minus the coefficients of the pre-activation on the edges' lengths with the incidence of
                 the tour that fits best, on the scale from 0 (the same coefficients on edges dealt at random) to 1
    selectivity  share of the chosen city's lead that is lost without the unit where its tour is the optimum, less that
                 share where another tour is; instances are natural ones with their cities renamed
    arrival      share of the same lead that is lost where the later edges of that tour are lengthened in the *input*,
                 less that share, at least 0, where as many other edges between the same cities are
    E7c          mean over units of overlap, at least 0, x min(selectivity, arrival)

Arrival is asked since a unit can carry a tour's length as a passenger beside what it says, with a later layer to take
the passenger off again: then removing the unit removes both, and looks selective (`zoo.red_team`, R1).
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mesaprobe.evidence.causal.flips import decisions
from mesaprobe.evidence.protocol import SETS
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.patching import Run
from mesaprobe.instruments.patching.runs import ROWS, EditableRun, Tail, site_positions
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import Instances, Problem
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.statistics import bootstrap_mean, sign_flip_p

ID, NAME = "E7c", "hidden units that stand for single tours"
MOST_CITIES = 9
"""With more there are too many tours to compare a unit with."""
_STREAM = 730


@dataclass(frozen=True)
class UnitToursSettings:
    """How many states, units and instances."""

    states: int
    """Per set: to find units and fit what drives them, and to see how well that predicts."""
    units: int
    """Per layer, those that move the output most."""
    instances: int
    """Per unit, whose cities are renamed so that its tour is the optimum; and as many for other tours."""
    deals: int = 199
    """Of a unit's coefficients on edges at random."""
    flips: int = 999
    resamples: int = 2000


class _States(NamedTuple):
    instances: Instances
    run: Run
    regressors: Float64[np.ndarray, "state k"]
    """Lengths of all edges, then which city is the current one."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """The units of one layer that move the output most, and what drives them."""

    layer: int
    units: Int64[np.ndarray, " unit"]
    fit: Float64[np.ndarray, " unit"]
    """R^2 of the pre-activation on other instances."""
    overlap: Float64[np.ndarray, " unit"]
    null: Float64[np.ndarray, "deal unit"]
    tours: Int64[np.ndarray, "unit n"]

    @property
    def excess(self) -> Float64[np.ndarray, " unit"]:
        """Overlap on the scale of the module's docstring."""
        chance = self.null.mean()
        return (self.overlap - chance) / max(1.0 - chance, 1e-9)


def unit_tours(subject: Subject, settings: UnitToursSettings, seed: int) -> LineResult:
    """Measure E7c. Needs hook points before and after an MLP's activation, and few cities."""
    problem = subject.problem
    layers = _layers(subject)
    if not layers or not isinstance(subject, ModuleSubject):
        return LineResult("na", "the network has no hook points before and after an MLP's activation")
    if problem.n > MOST_CITIES or not problem.symmetric or problem.planar:
        return LineResult(
            "na", f"units are compared with all tours of symmetric matrices, for at most {MOST_CITIES} cities"
        )
    probe, test = (_draw(problem, name, settings.states, seed) for name in ("probe", "test"))
    rng = np.random.default_rng([seed, _STREAM])
    tours = all_tours_once(problem.n)
    found = [_drivers(subject, layer, probe, test, tours, settings, rng) for layer in layers]
    best = max(found, key=lambda layer: float(layer.excess.mean()))
    p_overlap = _overlap_p(found)
    own, others, later, beside = _tried(subject, best, settings, seed)
    selectivity, arrival = own - others, later - np.maximum(beside, 0.0)
    products = np.maximum(best.excess, 0.0) * np.minimum(selectivity, arrival)
    value = bootstrap_mean(products, rng, resamples=settings.resamples)
    p_selective = sign_flip_p(selectivity, rng, flips=settings.flips)
    p_arrival = sign_flip_p(arrival, rng, flips=settings.flips)
    details: dict[str, Any] = {
        "layer": best.layer,
        "units": len(best.units),
        "fit": float(best.fit.mean()),
        "overlap": float(best.overlap.mean()),
        "overlap_of_random_edges": float(best.null.mean()),
        "overlap_excess": float(best.excess.mean()),
        "overlap_p": p_overlap,
        "lead_lost_on_own_tour": float(own.mean()),
        "lead_lost_on_other_tours": float(others.mean()),
        "selectivity_p": p_selective,
        "lead_lost_to_later_edges": float(later.mean()),
        "lead_lost_to_other_edges": float(beside.mean()),
        "arrival_p": p_arrival,
        "overlap_by_layer": {str(layer.layer): float(layer.overlap.mean()) for layer in found},
        "unit_of_resampling": "hidden unit",
    }
    return LineResult(
        "ok",
        None,
        value.value,
        value.ci,
        max(p_overlap, p_selective, p_arrival),
        null={
            "random edge sets": 0.0,
            "lead lost on other tours": float(others.mean()),
            "lead lost to other edges": float(beside.mean()),
        },
        details=details,
        arrays={
            "overlap": best.overlap,
            "null": best.null.mean(axis=0),
            "own": own,
            "others": others,
            "later": later,
            "beside": beside,
            "fit": best.fit,
            "unit": best.units,
        },
    )


def all_tours_once(n: int) -> Int64[np.ndarray, "tour n"]:
    """Every undirected tour from city 0 once, its second city below its last.

    >>> all_tours_once(4).tolist()
    [[0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 1, 3]]
    """
    return np.array([(0, *rest) for rest in permutations(range(1, n)) if rest[0] < rest[-1]], dtype=np.int64)


def incidence(tours: Int64[np.ndarray, "tour n"]) -> Float64[np.ndarray, "tour edge"]:
    """1 at the edges of each tour, edges (u, v) with u < v in order of rows.

    >>> incidence(np.array([[0, 1, 2, 3]])).tolist()
    [[1.0, 0.0, 1.0, 1.0, 0.0, 1.0]]
    """
    n = tours.shape[1]
    place = np.zeros((n, n), dtype=np.int64)
    u, v = np.triu_indices(n, 1)
    place[u, v] = place[v, u] = np.arange(len(u))
    found = np.zeros((len(tours), len(u)))
    found[np.arange(len(tours))[:, None], place[tours, np.roll(tours, -1, axis=1)]] = 1.0
    return found


def best_overlap(
    weights: Float64[np.ndarray, "row edge"], tours: Float64[np.ndarray, "tour edge"]
) -> tuple[Float64[np.ndarray, " row"], Int64[np.ndarray, " row"]]:
    """The highest correlation of each row with a tour's incidence, and which tour's; 0 for a constant row."""
    centred = weights - weights.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    centred = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-12)
    patterns = tours - tours.mean(axis=1, keepdims=True)
    patterns = patterns / np.linalg.norm(patterns, axis=1, keepdims=True)
    scores = centred @ patterns.T
    return scores.max(axis=1), scores.argmax(axis=1)


def _layers(subject: Subject) -> list[int]:
    names = set(subject.hook_names)
    layers = sorted(int(name.split(".")[1]) for name in names if name.endswith(".mlp.hook_pre"))
    return [layer for layer in layers if f"blocks.{layer}.mlp.hook_post" in names]


def _draw(problem: Problem, name: str, count: int, seed: int) -> _States:
    """States at the first decision: there all edges but one still count."""
    rng = np.random.default_rng([seed, 1000 + SETS.index(name), _STREAM])
    instances, prefixes, _ = decisions(problem, count, rng, first=True)
    n, lengths = problem.n, np.full(count, 2)
    u, v = np.triu_indices(n, 1)
    edges = instances.weights[:, u, v] / problem.config.levels
    regressors = np.concatenate([edges, np.eye(n)[prefixes[:, 1]]], axis=1)
    run = Run(torch.from_numpy(instances.features), torch.from_numpy(prefixes), torch.from_numpy(lengths))
    return _States(instances, run, regressors)


def _drivers(
    subject: ModuleSubject,
    layer: int,
    probe: _States,
    test: _States,
    tours: Int64[np.ndarray, "tour n"],
    settings: UnitToursSettings,
    rng: np.random.Generator,
) -> _Layer:
    units = _loud_units(subject, layer, probe.run, settings.units)
    drive = [_at_decode(subject, f"blocks.{layer}.mlp.hook_pre", part.run)[:, units] for part in (probe, test)]
    mean = probe.regressors.mean(axis=0)
    centre = drive[0].mean(axis=0)
    x = probe.regressors - mean
    coefficients = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ (drive[0] - centre))
    missed = drive[1] - centre - (test.regressors - mean) @ coefficients
    spread = drive[1] - drive[1].mean(axis=0)
    fit = 1.0 - (missed**2).sum(axis=0) / np.maximum((spread**2).sum(axis=0), 1e-12)
    patterns = incidence(tours)
    weights = -coefficients[: patterns.shape[1]].T
    overlap, which = best_overlap(weights, patterns)
    null = np.stack([best_overlap(rng.permuted(weights, axis=1), patterns)[0] for _ in range(settings.deals)])
    return _Layer(layer, units, fit, overlap, null, tours[which])


def _loud_units(subject: ModuleSubject, layer: int, run: Run, count: int) -> Int64[np.ndarray, " unit"]:
    """The units with most to say: gradient of the chosen city's lead times activation, at most a state's best one at a
    time, summed over states."""
    hook = f"blocks.{layer}.mlp.hook_post"
    tail = Tail(subject, run, [hook])
    positions = site_positions(subject, Site(hook, "decode", layer, "hidden"), run)
    total: np.ndarray | float = 0.0
    for rows in torch.arange(len(run)).split(ROWS):
        leaves: list[Tensor] = []

        def watch(activation: Tensor, hook: object, leaves: list[Tensor] = leaves) -> Tensor:  # noqa: ARG001
            leaves.append(activation.detach().requires_grad_())
            return leaves[0]

        with tail.module.hooks(fwd_hooks=[(hook, watch)]):
            logits = tail(rows)
        top = logits.topk(2, dim=1).values
        (slope,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), leaves)
        index = torch.arange(len(rows)), positions[rows, 0]
        said = (slope[index] * leaves[0].detach()[index]).clamp(min=0).double().numpy()
        total = total + np.where(said == said.max(axis=1, keepdims=True), said, 1e-6 * said).sum(axis=0)
    assert isinstance(total, np.ndarray)
    return np.argsort(-total, kind="stable")[:count]


def _at_decode(subject: Subject, hook: str, run: Run) -> Float64[np.ndarray, "state unit"]:
    position = subject.decode_position(run.length)
    parts = [
        subject.activations(part.features, part.prefixes[:, : run.length], [hook])[hook][:, position].double().cpu()
        for part in (run[slice(start, start + ROWS)] for start in range(0, len(run), ROWS))
    ]
    return torch.cat(parts).numpy()


def _overlap_p(layers: list[_Layer]) -> float:
    """Of the largest mean overlap of a layer, against coefficients on edges at random (max over layers)."""
    observed = np.array([layer.overlap.mean() for layer in layers])
    null = np.stack([layer.null.mean(axis=1) for layer in layers])
    scale = np.maximum(null.std(axis=1), 1e-9)
    centre = null.mean(axis=1)
    largest = ((null - centre[:, None]) / scale[:, None]).max(axis=0)
    return (1 + int((largest >= ((observed - centre) / scale).max() - 1e-9).sum())) / (1 + len(largest))


def _tried(
    subject: ModuleSubject, layer: _Layer, settings: UnitToursSettings, seed: int
) -> tuple[Float64[np.ndarray, " unit"], ...]:
    """Mean share of the lead that is lost without each unit, where its tour is the optimum and where another one is;
    and where it is the optimum, with its own later edges longer, and with others."""
    rng = np.random.default_rng([seed, 1000 + SETS.index("test"), _STREAM, 1])
    instances = subject.problem.draw(settings.instances, rng)
    optimal = held_karp(instances.weights).tours
    hook = f"blocks.{layer.layer}.mlp.hook_post"
    found = []
    for unit, tour in zip(layer.units.tolist(), layer.tours, strict=True):
        drawn = np.concatenate([np.zeros((len(instances), 1), dtype=np.int64), 1 + _shuffles(rng, instances)], axis=1)
        backwards = np.concatenate([tour[:1], tour[:0:-1]])
        apart = _lead_lost(subject, hook, unit, *renamed(instances, optimal, drawn))
        ways = [renamed(instances, optimal, np.broadcast_to(to, drawn.shape)) for to in (tour, backwards)]
        lost = [_lead_lost(subject, hook, unit, *way) for way in ways]
        said = int(np.argmax(lost))  # a unit may stand for one direction only
        found.append([lost[said], apart, *_lead_lost_to_edges(subject, *ways[said], rng)])
    own, others, later, beside = np.array(found).T
    return own, others, later, beside


def _shuffles(rng: np.random.Generator, instances: Instances) -> Int64[np.ndarray, "batch m"]:
    return np.argsort(rng.random((len(instances), instances.problem.n - 1)), axis=1)


def renamed(
    instances: Instances, optimal: Int64[np.ndarray, "batch n"], tours: Int64[np.ndarray, "batch n"]
) -> tuple[Instances, Int64[np.ndarray, "batch n"]]:
    """The instances with their cities renamed so that `tours` are optimal instead of `optimal`; and these tours."""
    place = np.argsort(tours, axis=1)
    source = np.take_along_axis(optimal, place, axis=1)  # which old city each new name stands for
    weights = instances.weights[np.arange(len(source))[:, None, None], source[:, :, None], source[:, None, :]]
    return Instances(instances.problem, np.ascontiguousarray(weights)), tours


def _lead_lost(
    subject: ModuleSubject, hook: str, unit: int, instances: Instances, tours: Int64[np.ndarray, "batch n"]
) -> float:
    """Mean share of the tour's next city's lead over its best rival that is lost without the unit, in [0, 1]."""
    position = subject.decode_position(2)

    def without(activation: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG001
        changed = activation.clone()
        changed[:, position, unit] = 0.0
        return changed

    editable = EditableRun(subject, _first_decision(instances, tours), [hook])
    before, after = (_lead(editable.logits(edits), tours) for edits in ({}, {hook: without}))
    return _share_lost(before, after)


def _lead_lost_to_edges(
    subject: ModuleSubject, instances: Instances, tours: Int64[np.ndarray, "batch n"], rng: np.random.Generator
) -> tuple[float, float]:
    """The same where the tour's edges from its place 3 on are as long as any can be, and where as many others between
    the same cities are. A gain counts against a loss: what far edges do in either direction is no length."""
    rows, n = np.arange(len(tours))[:, None], tours.shape[1]
    cities = np.concatenate([tours[:, 3:], tours[:, :1]], axis=1)  # from place 3 on, and home
    u, v = np.triu_indices(n - 2, 1)
    own = v == u + 1
    placebo = np.flatnonzero(~own)
    leads = [_lead(_logits(subject, instances, tours), tours)]
    for chosen in (
        np.broadcast_to(np.flatnonzero(own), (len(tours), int(own.sum()))),
        placebo[np.argsort(rng.random((len(tours), len(placebo))), axis=1)[:, : own.sum()]],
    ):
        weights = instances.weights.copy()
        left, right = cities[rows, u[chosen]], cities[rows, v[chosen]]
        weights[rows, left, right] = weights[rows, right, left] = instances.problem.config.levels
        leads.append(_lead(_logits(subject, Instances(instances.problem, weights), tours), tours))
    return _share_lost(leads[0], leads[1], least=-1.0), _share_lost(leads[0], leads[2], least=-1.0)


def _first_decision(instances: Instances, tours: Int64[np.ndarray, "batch n"]) -> Run:
    prefixes, lengths = np.ascontiguousarray(tours[:, :2]), np.full(len(tours), 2)
    return Run(torch.from_numpy(instances.features), torch.from_numpy(prefixes), torch.from_numpy(lengths))


def _logits(subject: Subject, instances: Instances, tours: Int64[np.ndarray, "batch n"]) -> Tensor:
    run = _first_decision(instances, tours)
    return subject.next_city_logits(run.features, run.prefixes).cpu()


def _share_lost(
    before: Float64[np.ndarray, " state"], after: Float64[np.ndarray, " state"], *, least: float = 0.0
) -> float:
    """Of the lead, over the states where there is one; from `least` (-1: twice the lead) to 1."""
    leading = before > 1e-6
    if not leading.any():
        return 0.0
    return float(np.clip((before - after)[leading] / before[leading], least, 1.0).mean())


def _lead(logits: Tensor, tours: Int64[np.ndarray, "batch n"]) -> Float64[np.ndarray, " state"]:
    """The tour's third city against the best of the other unvisited ones."""
    wanted = torch.from_numpy(tours[:, 2:3].copy())
    taken = torch.from_numpy(tours[:, :3].copy())
    rivals = logits.scatter(1, taken, -torch.inf)
    return (logits.gather(1, wanted)[:, 0] - rivals.max(dim=1).values).double().numpy()


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        unit_tours,
        {
            "quick": UnitToursSettings(250, 10, 12),
            "standard": UnitToursSettings(600, 16, 24),
            "full": UnitToursSettings(1500, 32, 48),
        },
        version=3,
    ),
)
