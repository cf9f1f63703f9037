"""The behaviour block: tours against references, decisions by look-ahead need (DESIGN section 4, report.json)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from mesaprobe.decoding import greedy_rollout
from mesaprobe.labels import decision_steps, lookahead_needs, optimal_actions, optimality_gaps
from mesaprobe.labels.choices import heuristic_choices
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, random_tours
from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1
from mesaprobe.solvers.constructive import unvisited
from mesaprobe.solvers.exact.held_karp import held_karp, optimal_rollouts
from mesaprobe.statistics.bootstrap import Estimate, bootstrap_mean, bootstrap_ratio

TOP_DSTAR = 3
"""d* of this and more share the last bin."""

RIVALS = ("two_opt_or_opt", "annealing")
"""Lean local search over whole tours, started from nearest neighbour: the honest rivals of inner search."""


@dataclass(frozen=True, eq=False)
class Behaviour:
    """What a network does, beside what rules do on the same instances. Rates are fractions of 1."""

    legal_fraction: float
    """Rollouts that stay legal without the mask of visited cities."""
    optimal_fraction: float
    gap: Estimate
    random_gap: Estimate
    """Gap of uniformly random legal tours: the floor of competence, not the null of anything else."""
    decision_accuracy: float
    """Decisions on random optimal tours where the network names an optimal city."""
    discordant_accuracy: float | None
    """The same where every rule of the protocol names a wrong one; None if there is no such state."""
    discordant_states: int
    decision_states: int
    references: tuple[str, ...]
    """The rules, rivals and random tours that were run on the same instances."""
    gaps: dict[str, Float64[np.ndarray, " instance"]]
    """Gap of every instance, for the network ("model") and every reference."""
    costs: dict[str, Int64[np.ndarray, " instance"]]
    tours: dict[str, Int64[np.ndarray, "instance n"]]
    """Tours of the network, the optimum and the references."""
    dstar_states: dict[str, int]
    dstar_accuracy: dict[str, dict[str, Estimate | None]]
    """By method, then by bin of d*."""

    def as_json(self) -> dict[str, object]:
        """The `behaviour` object of report.json."""
        references = {
            name: {
                "gap_mean": float(self.gaps[name].mean()),
                "optimal_fraction": float((self.costs[name] == self.costs["optimal"]).mean()),
            }
            for name in self.references
        }
        own = self.dstar_accuracy["model"]
        return {
            "instances": len(self.gaps["model"]),
            "legal_fraction": self.legal_fraction,
            "optimal_fraction": self.optimal_fraction,
            "gap_mean": self.gap.value,
            "gap_ci": list(self.gap.ci),
            "decision_accuracy": self.decision_accuracy,
            "decision_states": self.decision_states,
            "discordant_accuracy": self.discordant_accuracy,
            "discordant_states": self.discordant_states,
            "accuracy_by_dstar": {
                name: {"accuracy": None if estimate is None else estimate.value, "states": self.dstar_states[name]}
                for name, estimate in own.items()
            },
            "references": references,
        }


def measure_behaviour(subject: Subject, instances: Instances, seed: int) -> Behaviour:
    """Greedy tours and single decisions of a network on given instances.

    Decisions are the states along optimal tours drawn at random among all optimal ones; d* bins them.
    """
    rng = np.random.default_rng([seed, 3])
    features = torch.from_numpy(instances.features)
    rollout = greedy_rollout(subject, features)
    tours = {"model": rollout.tours.numpy(), "optimal": held_karp(instances.weights).tours}
    for name in (*HEUR_V1, *RIVALS):
        if ALGORITHMS[name].applies_to(subject.problem):
            tours[name] = ALGORITHMS[name](instances.weights, instances.coordinates, seed)
    tours["random_legal"] = random_tours(len(instances), subject.problem.n, rng)
    costs = {name: instances.tour_costs(each) for name, each in tours.items()}
    gaps = {name: optimality_gaps(instances, each, costs["optimal"]) for name, each in tours.items()}
    decisions = _decisions(subject, instances, features, rng)
    right = decisions.right
    none_right = ~np.stack([each for name, each in right.items() if name != "model"]).any(axis=0)
    accuracy = {
        name: {label: _accuracy(each, inside, rng) for label, inside in decisions.bins.items()}
        for name, each in right.items()
    }
    return Behaviour(
        legal_fraction=float(rollout.legal.float().mean()),
        optimal_fraction=float((costs["model"] == costs["optimal"]).mean()),
        gap=bootstrap_mean(gaps["model"], rng),
        random_gap=bootstrap_mean(gaps["random_legal"], rng),
        decision_accuracy=float(right["model"].mean()),
        discordant_accuracy=float(right["model"][none_right].mean()) if none_right.any() else None,
        discordant_states=int(none_right.sum()),
        decision_states=int(none_right.size),
        references=tuple(name for name in tours if name not in ("model", "optimal")),
        gaps=gaps,
        costs=costs,
        tours=tours,
        dstar_states={label: int(inside.sum()) for label, inside in decisions.bins.items()},
        dstar_accuracy=accuracy,
    )


@dataclass(frozen=True, eq=False)
class _Decisions:
    """Which method is right at every decision [instance, step], and the bins of d*."""

    right: dict[str, Bool[np.ndarray, "instance step"]]
    bins: dict[str, Bool[np.ndarray, "instance step"]]


def _decisions(subject: Subject, instances: Instances, features: torch.Tensor, rng: np.random.Generator) -> _Decisions:
    weights, n = instances.weights, subject.problem.n
    steps = decision_steps(subject.problem)
    start, whole = np.zeros((len(weights), n), dtype=np.int64), np.ones(len(weights), dtype=np.int64)
    tours, values = optimal_rollouts(weights, start, whole, rng.random((len(weights), n)))
    optimal = optimal_actions(values)[:, steps]
    free = torch.from_numpy(unvisited(tours)[:, steps])
    parts = zip(features.split(1024), torch.from_numpy(tours[:, :-1]).split(1024), strict=True)
    logits = torch.cat([subject.logits(f, t).cpu() for f, t in parts])[:, steps]
    chosen = {"model": logits.masked_fill(~free, -torch.inf).argmax(-1).numpy()}
    chosen |= heuristic_choices(instances, tours, steps)
    right = {name: np.take_along_axis(optimal, each[..., None], axis=2)[..., 0] for name, each in chosen.items()}
    needs = lookahead_needs(weights, tours, values, steps)
    bins = {str(k): needs == k for k in range(TOP_DSTAR)} | {f"{TOP_DSTAR}+": needs >= TOP_DSTAR}
    return _Decisions(right, bins)


def _accuracy(right: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> Estimate | None:
    if not inside.any():
        return None
    return bootstrap_ratio((right & inside).sum(axis=1), inside.sum(axis=1), rng)
