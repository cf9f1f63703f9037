"""The curriculum study: does meeting easy instances first change what a network learns from equally many?

Two orders, seeds paired: the same first weights, the same number of instances trained on. All networks are measured
on one set of held-out instances, by tier (DESIGN section 2), on the gap of greedy decoding and on discordant accuracy
(method.md section 8). On disk: `cells/ORDER-seedK/` holds a finished run of `mesaprobe train`, which is not made
again; `results.json` is written whole or not at all.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64

from mesaprobe.decoding import greedy_rollout
from mesaprobe.files import make_folder, plain, write_json
from mesaprobe.labels.tiers import TIERS, instance_tiers
from mesaprobe.models.checkpoint import load
from mesaprobe.problems import Instances, make_problem
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.statistics.bootstrap import Estimate, bootstrap_ratios
from mesaprobe.studies.cells import cell_folder
from mesaprobe.studies.contrasts import Mean, exact_sign_flip, mean_over_seeds
from mesaprobe.studies.whole_system import DiscordantStates, discordant_states_of, single_pass_accuracy
from mesaprobe.training.config import PRESETS, TrainConfig
from mesaprobe.training.curriculum import CurriculumConfig
from mesaprobe.training.loop import train

RESULTS_FILE = "results.json"
ORDERS: tuple[Literal["none", "easy_to_hard"], ...] = ("none", "easy_to_hard")
"""What is compared; differences are the second minus the first."""
_HELD_OUT = 2102
"""Branch of the seed; training and other analyses use others."""
_BOOTSTRAP = 2103


@dataclass(frozen=True)
class CurriculumDesign:
    """One study."""

    run: TrainConfig = field(default_factory=lambda: dataclasses.replace(PRESETS["matrix8-arm-a0"], device="cpu"))
    """What all runs share; a curriculum has its defaults (by non-greedy steps, c from .1 to 1 at half the steps)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Paired: one seed gives both orders the same first weights."""
    held_out: int = 10_000
    """Instances that all networks are measured on, as they are drawn."""

    def training(self, order: Literal["none", "easy_to_hard"], seed: int) -> TrainConfig:
        """The run of one cell."""
        return dataclasses.replace(self.run, seed=seed, curriculum=CurriculumConfig(order=order))


@dataclass(frozen=True)
class TierComparison:
    """One measure on one tier, as fractions of 1; intervals are 95 % bootstrap intervals over instances, all from the
    same resamples, with the networks as they are."""

    measure: Literal["gap", "discordant accuracy"]
    """gap: tour cost / optimal cost - 1, mean over instances. discordant accuracy: share of the decisions along an
    optimal tour where every rule of HEUR-v1 names a wrong city and the network a right one."""
    tier: str
    """all, or one of T0 to T4."""
    instances: int
    decisions: int | None
    """Discordant ones among these instances; None for the gap."""
    networks: dict[str, list[Estimate]]
    """Per order, one a seed."""
    orders: dict[str, Estimate]
    """Per order, the mean of its networks."""
    pairs: list[Estimate]
    """easy_to_hard minus none, one a seed."""
    difference: Estimate
    """Mean of the pairs."""
    over_seeds: Mean
    """The same mean with a Student interval over the pairs: what another seed would give."""
    p: float
    """Exact two-sided sign-flip test over the pairs."""


@dataclass(frozen=True)
class CurriculumResults:
    """What the table shows."""

    design: dict[str, Any]
    instances_trained_on: int
    """By every network."""
    smallest_p: float
    """The least that a two-sided sign-flip test of so many pairs can give."""
    note: str
    comparisons: list[TierComparison]


def run_curriculum(
    design: CurriculumDesign, folder: Path, show: Callable[[str], None] = lambda _: None
) -> CurriculumResults:
    """Train what is not there, measure, compare; writes `results.json`.

    Raises UserError if the folder holds runs of another design.
    """
    make_folder(folder)
    for seed in design.seeds:
        for order in ORDERS:
            show(f"training {order}, seed {seed}")
            own = cell_folder(folder, order, seed)
            make_folder(own.parent)
            train(design.training(order, seed), own, resume=True)
    rng = np.random.default_rng([0, _HELD_OUT])
    instances = make_problem(design.run.problem).draw(design.held_out, rng)
    states, optimum = discordant_states_of(instances, rng), held_karp(instances.weights).costs
    shape = (len(ORDERS), len(design.seeds), len(instances))
    gaps, right = np.zeros(shape), np.zeros(shape)
    for row, order in enumerate(ORDERS):
        for column, seed in enumerate(design.seeds):
            show(f"measuring {order}, seed {seed}")
            own = cell_folder(folder, order, seed)
            gaps[row, column], right[row, column] = _measured(own, instances, optimum, states)
    count = np.bincount(states.origin, minlength=len(instances))
    found = _results(design, gaps, right, count, instance_tiers(instances, optimum))
    write_json(folder / RESULTS_FILE, found)
    return found


def _measured(
    own: Path, instances: Instances, optimum: Int64[np.ndarray, " instance"], states: DiscordantStates
) -> tuple[Float64[np.ndarray, " instance"], Float64[np.ndarray, " instance"]]:
    """Per instance: the gap, and how many of its discordant decisions the network gets right."""
    subject = load(own)
    tours = greedy_rollout(subject, torch.from_numpy(instances.features)).tours.cpu().numpy()
    right = np.bincount(states.origin, single_pass_accuracy(subject, states), minlength=len(instances))
    return instances.tour_costs(tours) / optimum - 1.0, right


def _results(
    design: CurriculumDesign,
    gaps: Float64[np.ndarray, "order seed instance"],
    right: Float64[np.ndarray, "order seed instance"],
    count: Int64[np.ndarray, " instance"],
    tiers: Int64[np.ndarray, " instance"],
) -> CurriculumResults:
    chosen = {"all": np.ones(len(tiers), dtype=bool)} | {name: tiers == tier for tier, name in enumerate(TIERS)}
    rng, rows = np.random.default_rng([0, _BOOTSTRAP]), []
    for name, inside in chosen.items():
        size, decisions = int(inside.sum()), int(count[inside].sum())
        if size:
            rows.append(_comparison("gap", name, gaps[..., inside], np.ones(size), rng))
        if decisions:
            rows.append(_comparison("discordant accuracy", name, right[..., inside], count[inside], rng))
    pairs = len(design.seeds)
    smallest = min(1.0, 2 * 0.5**pairs)
    note = f"{pairs} pairs of networks: no two-sided sign-flip test over seeds can go below p = {smallest:.3g}"
    if smallest > 0.05:
        note += ", so none can reach p < .05 whatever the differences"
    trained = design.run.steps * design.run.batch_size
    return CurriculumResults(plain(design), trained, smallest, note, sorted(rows, key=lambda row: row.measure != "gap"))


def _comparison(
    measure: Literal["gap", "discordant accuracy"],
    tier: str,
    totals: Float64[np.ndarray, "order seed instance"],
    counts: Float64[np.ndarray, " instance"] | Int64[np.ndarray, " instance"],
    rng: np.random.Generator,
) -> TierComparison:
    """Every number is a sum over instances divided by one of `counts`, so all share the resamples."""
    means, pairs = totals.mean(axis=1), totals[1] - totals[0]
    seeds = totals.shape[1]
    table = np.concatenate([totals[0], totals[1], means, pairs, pairs.mean(axis=0, keepdims=True)])
    found = bootstrap_ratios(table, counts.astype(np.float64), rng)
    each = [found[row] for row in range(len(table))]
    differences = [estimate.value for estimate in each[2 * seeds + 2 : 3 * seeds + 2]]
    return TierComparison(
        measure=measure,
        tier=tier,
        instances=totals.shape[-1],
        decisions=None if measure == "gap" else int(counts.sum()),
        networks={order: each[row * seeds : (row + 1) * seeds] for row, order in enumerate(ORDERS)},
        orders={order: each[2 * seeds + row] for row, order in enumerate(ORDERS)},
        pairs=each[2 * seeds + 2 : 3 * seeds + 2],
        difference=each[-1],
        over_seeds=mean_over_seeds(differences),
        p=min(1.0, 2 * min(exact_sign_flip(differences), exact_sign_flip([-value for value in differences]))),
    )


def table_rows(results: CurriculumResults) -> list[dict[str, Any]]:
    """One row a measure and tier: what the command prints."""
    rows = []
    for found in results.comparisons:
        estimates = {**found.orders, "difference": found.difference}
        rows.append(
            {
                "measure": found.measure,
                "tier": found.tier,
                "instances": found.instances,
                "decisions": found.decisions,
                **{
                    f"{name}{part}": getattr(estimate, bound)
                    for name, estimate in estimates.items()
                    for part, bound in (("", "value"), ("_low", "low"), ("_high", "high"))
                },
                "pairs": [pair.value for pair in found.pairs],
                "seeds_low": found.over_seeds.low,
                "seeds_high": found.over_seeds.high,
                "p": found.p,
            }
        )
    return rows
