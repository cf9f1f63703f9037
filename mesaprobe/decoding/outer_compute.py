"""The gap to the optimum against outer compute: what edits, beam width, look-ahead, loops or restarts buy (section
8 of method.md).

Every method is run on the same instances, from its own first tour or from random tours, and its mean gap is given at
numbers of evaluated tours, with forward passes beside it. Simulated annealing and 2-opt of the library, from random
tours, stand beside the networks at the same numbers of evaluated tours.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mesaprobe.decoding.beam import beam_search
from mesaprobe.decoding.editing import Acceptance, EditRun, draft, edit
from mesaprobe.decoding.greedy import greedy_rollout
from mesaprobe.decoding.look_ahead import look_ahead_rollout, states_looked_at
from mesaprobe.decoding.resampling import resample_ends
from mesaprobe.models.gpt import TourGPT
from mesaprobe.models.subject import MaskedSubject, ModuleSubject, Subject, gpt_subject
from mesaprobe.problems import Instances, random_tours
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.improvement.annealing import Schedule, anneal
from mesaprobe.solvers.improvement.local_search import TWO_OPT, local_search_trajectory
from mesaprobe.statistics.bootstrap import bootstrap_mean

WIDTHS = (1, 2, 4, 8, 16)
DEPTHS = (1, 2, 3)


@dataclass(frozen=True)
class OuterPoint:
    """The mean gap of one method at one amount of outer compute, fractions of 1."""

    method: str
    kept: str
    """current: the tour that the method holds, no look at costs beyond its own rule. best: the cheapest one met."""
    setting: int
    """Edits, beam width, depth of the look-ahead, loops or moves."""
    evaluated_tours: float
    """Tours whose cost was asked for or could have been, the first one counted."""
    forward_passes: float
    """Of the network for one instance, drafts counted."""
    gap: float
    low: float
    high: float


def network_curves(
    subject: Subject, instances: Instances, edits: int, seed: int, *, look_ahead: bool = False
) -> list[OuterPoint]:
    """All curves that the network's kind allows: edits for bidirectional ones, beam and resampling for the others,
    loops for those with tied blocks; with `look_ahead` (arm A3), depths of it, of which 1 is one pass alone."""
    features = torch.from_numpy(instances.features)
    if isinstance(subject, MaskedSubject):
        return list(_editing(subject, instances, features, edits, seed))
    found = [*_beams(subject, instances, features), *_resampling(subject, instances, features, edits, seed)]
    if isinstance(subject, ModuleSubject) and isinstance(subject.module, TourGPT) and subject.module.config.tied:
        found += _loops(subject, instances, features)
    return [*found, *(_looking_ahead(subject, instances, features) if look_ahead else ())]


def local_search_curves(instances: Instances, evaluated: Sequence[int], seed: int) -> list[OuterPoint]:
    """Simulated annealing and 2-opt from random tours, at the given numbers of evaluated tours."""
    rng = np.random.default_rng([seed, 11])
    starts = random_tours(len(instances), instances.problem.n, rng)
    seeds = rng.integers(2**63, size=len(instances)).astype(np.uint64)
    return [*_annealing(instances, starts, seeds, evaluated), *_two_opt(instances, starts, evaluated, rng)]


def edited_runs(subject: MaskedSubject, instances: Instances, edits: int, seed: int) -> dict[str, EditRun]:
    """The ways to edit. `resampled` keeps every result, `likeliest` too, with the likeliest city in place of a drawn
    one, in the draft as in edits; `annealed` by Metropolis' rule on the true cost; `single` exchanges two cities and
    keeps every result. All begin with the same drawn drafts but `likeliest` and `annealed_from_random`."""
    features, schedule = torch.from_numpy(instances.features), Acceptance().temperatures(edits)
    answers = subject.position_logits
    drafts, firm = (draft(answers, features, torch.Generator().manual_seed(seed), t) for t in (1.0, 0.0))
    rng = np.random.default_rng([seed, 12])
    scattered = torch.from_numpy(random_tours(len(instances), instances.problem.n, rng))
    found = {}
    for name, start, temperatures, positions, temperature in (
        ("resampled", drafts, None, "several", 1.0),
        ("likeliest", firm, None, "several", 0.0),
        ("annealed", drafts, schedule, "several", 1.0),
        ("annealed_from_random", scattered, schedule, "several", 1.0),
        ("single", drafts, None, "one", 1.0),
    ):
        found[name] = edit(
            answers,
            features,
            instances.weights,
            start,
            temperatures,
            edits,
            torch.Generator().manual_seed(seed + 1),
            softmax_temperature=temperature,
            positions=positions,  # type: ignore[arg-type]
        )
    return found


def _editing(
    subject: MaskedSubject, instances: Instances, features: Tensor, edits: int, seed: int
) -> Iterator[OuterPoint]:
    n = instances.problem.n
    yield _point("left_to_right", "current", 0, 1, n - 1, _gaps(instances, greedy_rollout(subject, features).tours))
    for name, run in edited_runs(subject, instances, edits, seed).items():
        passes = run.passes + (0 if name == "annealed_from_random" else n - 1)
        yield from _run_points(name, instances, run, passes)


def _resampling(
    subject: Subject, instances: Instances, features: Tensor, rounds: int, seed: int
) -> Iterator[OuterPoint]:
    first = greedy_rollout(subject, features).tours
    run = resample_ends(subject, features, instances.weights, first, rounds, torch.Generator().manual_seed(seed))
    yield from _run_points("resampled_ends", instances, run, run.passes + instances.problem.n - 1)


def _run_points(
    name: str, instances: Instances, run: EditRun, passes: Float64[np.ndarray, " 1+edit"]
) -> Iterator[OuterPoint]:
    optimum = held_karp(instances.weights).costs
    for kept, costs in (("current", run.current), ("best", run.best)):
        for index in _counts(costs.shape[1] - 1):
            gaps = costs[:, index] / optimum - 1.0
            yield _point(name, kept, index, index + 1, float(passes[index]), gaps)


def _beams(subject: Subject, instances: Instances, features: Tensor) -> Iterator[OuterPoint]:
    optimum, n = held_karp(instances.weights).costs, instances.problem.n
    for width in WIDTHS:
        run = beam_search(subject, features, instances.weights, width)
        yield _point("beam", "current", width, 1, width * (n - 1), run.likeliest / optimum - 1.0)
        yield _point("beam", "best", width, run.costs.shape[1], width * (n - 1), run.best / optimum - 1.0)


def _looking_ahead(subject: Subject, instances: Instances, features: Tensor) -> Iterator[OuterPoint]:
    for depth in DEPTHS:
        tours = look_ahead_rollout(subject, features, depth).tours
        passes = states_looked_at(instances.problem.n, depth)
        yield _point("look_ahead", "current", depth, 1, passes, _gaps(instances, tours))


def _loops(subject: ModuleSubject, instances: Instances, features: Tensor) -> Iterator[OuterPoint]:
    for loops in range(1, 2 * subject.module.config.n_layers + 1):  # type: ignore[union-attr, operator]
        tours = greedy_rollout(with_loops(subject, loops), features).tours
        yield _point("loops", "current", loops, 1, instances.problem.n - 1, _gaps(instances, tours))


def with_loops(subject: ModuleSubject, loops: int) -> Subject:
    """The same looped network, run for another number of loops."""
    network = subject.module
    assert isinstance(network, TourGPT) and network.config.tied  # noqa: PT018
    config = dataclasses.replace(network.config, n_layers=loops)
    other = TourGPT(config, network.n, network.n_features)
    other.load_state_dict(network.state_dict())
    return gpt_subject(other, subject.problem, f"{subject.name}, {loops} loops", subject.description)


def _annealing(
    instances: Instances, starts: Int64[np.ndarray, "batch n"], seeds: np.ndarray, evaluated: Sequence[int]
) -> Iterator[OuterPoint]:
    """Budgets are whole numbers of moves a city: each is a run of its own, cooled down in the moves it has."""
    n = instances.problem.n
    for moves in sorted({max(1, count // n) for count in evaluated}):
        tours = anneal(instances.weights, starts, seeds, Schedule(moves_per_city=moves))
        yield _point("simulated_annealing", "best", moves * n, moves * n + 1, 0, _gaps(instances, tours))


def _two_opt(
    instances: Instances,
    starts: Int64[np.ndarray, "batch n"],
    evaluated: Sequence[int],
    rng: np.random.Generator,
) -> Iterator[OuterPoint]:
    """Best improvement: every step looks at all (n - 1)(n - 2) / 2 neighbours; at a local optimum it begins anew from a
    random tour, and the best one counts."""
    optimum, n = held_karp(instances.weights).costs, instances.problem.n
    look, rows = (n - 1) * (n - 2) // 2, np.arange(len(instances))
    used, best = np.ones(len(instances)), instances.tour_costs(starts)
    curve = {count: best.copy() for count in evaluated}
    while used.min() < max(evaluated):
        path = local_search_trajectory(instances.weights, starts, TWO_OPT)
        for step in range(path.tours.shape[1]):
            goes_on = step < path.lengths
            cost = instances.tour_costs(path.tours[rows, step])
            best = np.where(goes_on, np.minimum(best, cost), best)
            for count in evaluated:
                curve[count] = np.where(used <= count, best, curve[count])
            used = used + look * goes_on
        starts = random_tours(len(instances), n, rng)
        used += 1
    for count in evaluated:
        yield _point("two_opt", "best", count, count, 0, curve[count] / optimum - 1.0)


def _counts(last: int) -> list[int]:
    """0, 1, 2, 3, 4, 6, 8, 12, 16, ... up to the last."""
    steps = sorted({0, 1, last, *(base << k for base in (2, 3) for k in range(20))})
    return [step for step in steps if step <= last]


def _gaps(instances: Instances, tours: Tensor | np.ndarray) -> Float64[np.ndarray, " batch"]:
    return instances.tour_costs(np.asarray(tours)) / held_karp(instances.weights).costs - 1.0


def _point(method: str, kept: str, setting: int, evaluated: float, passes: float, gaps: np.ndarray) -> OuterPoint:
    estimate = bootstrap_mean(gaps, np.random.default_rng(0))
    return OuterPoint(method, kept, setting, evaluated, passes, estimate.value, *estimate.ci)
