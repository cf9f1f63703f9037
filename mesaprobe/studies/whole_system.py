"""Discordant accuracy of a whole system: the network with its arm's outer loop (method.md section 8, matching)."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int64

from mesaprobe.decoding.editing import Acceptance, edit
from mesaprobe.decoding.greedy import Scores
from mesaprobe.decoding.look_ahead import look_ahead_scores
from mesaprobe.decoding.refilling import refill
from mesaprobe.labels.choices import heuristic_choices
from mesaprobe.labels.values import decision_steps, optimal_actions
from mesaprobe.models.subject import MaskedSubject, Subject
from mesaprobe.problems import Instances, Problem
from mesaprobe.solvers.constructive import unvisited
from mesaprobe.solvers.exact.held_karp import optimal_rollouts
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import EditingConfig

_DISCORDANT = 2101
"""Branch of the seed; training and analyses use others."""


@dataclass(frozen=True, eq=False)
class DiscordantStates:
    """Decisions along optimal tours where every rule of HEUR-v1 names a wrong city; row i is a state of its own."""

    instances: Instances
    tours: Int64[np.ndarray, "state n"]
    steps: Int64[np.ndarray, " state"]
    """The prefix is `tours[i, : steps[i] + 1]`."""
    optimal: Bool[np.ndarray, "state n"]
    origin: Int64[np.ndarray, " state"]
    """Which of the given instances each state is of."""


def discordant_states(problem: Problem, count: int, seed: int = 0) -> DiscordantStates:
    """All such states of `count` instances drawn for them."""
    rng = np.random.default_rng([seed, _DISCORDANT])
    return discordant_states_of(problem.draw(count, rng), rng)


def discordant_states_of(instances: Instances, rng: np.random.Generator) -> DiscordantStates:
    """All such states of the instances, each along one optimal tour (chosen at random among several)."""
    problem, count, n = instances.problem, len(instances), instances.problem.n
    start, one = np.zeros((count, n), dtype=np.int64), np.ones(count, dtype=np.int64)
    tours, values = optimal_rollouts(instances.weights, start, one, rng.random((count, n)))
    steps = decision_steps(problem)
    optimal = optimal_actions(values)[:, steps]
    chosen = heuristic_choices(instances, tours, steps).values()
    right = [np.take_along_axis(optimal, each[..., None], axis=2)[..., 0] for each in chosen]
    rows, columns = np.nonzero(~np.any(right, axis=0))
    return DiscordantStates(
        instances[rows], tours[rows], np.arange(n - 1)[steps][columns], optimal[rows, columns], origin=rows
    )


def system_accuracy(
    subject: Subject, arm: str, states: DiscordantStates, settings: EditingConfig, seed: int = 0
) -> Bool[np.ndarray, " state"]:
    """Where the system names an optimal city.

    A left-to-right network names its most likely unvisited city, or in arm A3 the one that its look-ahead scores
    highest. An editing arm completes the prefix from nothing and edits the free part, `edits_per_city` * n times, A1
    keeping every result, A2 by annealed acceptance; it names what then stands at the next position.
    """
    if isinstance(subject, MaskedSubject):
        named = _edited(subject, arm, states, settings, seed)
    elif ARMS[arm].decoder == "look_ahead":
        named = _named_by(partial(look_ahead_scores, subject), states)
    else:
        named = _named_by(subject.next_city_logits, states)
    return states.optimal[np.arange(len(named)), named]


def single_pass_accuracy(subject: Subject, states: DiscordantStates) -> Bool[np.ndarray, " state"]:
    """Where one forward pass names an optimal city: the same system without its outer loop."""
    return states.optimal[np.arange(len(states.steps)), _named_by(subject.next_city_logits, states)]


def _named_by(scores: Scores, states: DiscordantStates) -> Int64[np.ndarray, " state"]:
    named = np.zeros(len(states.steps), dtype=np.int64)
    free = unvisited(states.tours)
    for step in np.unique(states.steps):
        rows = np.flatnonzero(states.steps == step)
        features = torch.from_numpy(states.instances.features[rows])
        found = scores(features, torch.from_numpy(states.tours[rows, : step + 1])).cpu().numpy()
        named[rows] = np.where(free[rows, step], found, -np.inf).argmax(axis=1)
    return named


def _edited(
    subject: MaskedSubject, arm: str, states: DiscordantStates, settings: EditingConfig, seed: int
) -> Int64[np.ndarray, " state"]:
    n, edits = subject.problem.n, settings.edits_per_city * subject.problem.n
    features, tours = torch.from_numpy(states.instances.features), torch.from_numpy(states.tours)
    free = torch.arange(n) > torch.from_numpy(states.steps)[:, None]
    generator = torch.Generator().manual_seed(seed)
    drafts = refill(subject.position_logits, features, tours, free, generator, settings.temperature)
    schedule = Acceptance(settings.start, settings.end).temperatures(edits) if arm == "A2" else None
    run = edit(
        subject.position_logits,
        features,
        states.instances.weights,
        drafts,
        schedule,
        edits,
        generator,
        softmax_temperature=settings.temperature,
        free=free,
    )
    return run.tours[np.arange(len(states.steps)), states.steps + 1]
