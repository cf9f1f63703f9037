"""E6's questions: which edges does the network's own completion take after its choice, and after its runner-up?

At the first decision along its tour the network's choice and its runner-up are forced in turn and it walks home
greedily: the completions C_m(a) of method.md section 1, which a weak searcher has, too. Asked is about the pairs of
cities that are still to be joined, for edges from step two on (the edge to the forced city is the choice itself):

    chosen      is the pair an edge of the completion of the choice?
    rejected    is it an edge of the runner-up's completion, asked of the pairs that the chosen one does not use?

Only the second is evidence of alternatives: a network that builds tours by a rule holds the chosen plan honestly.
Z holds the pair's distance and ranks, what every rule of HEUR-v1 would build after either option, the output at the
state, and the output one step later after either option (so that the next city alone is no plan).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mesaprobe.evidence.probing.questions import Question, swapped_question
from mesaprobe.evidence.probing.states import follow, output_features
from mesaprobe.labels.completions import completion_labels
from mesaprobe.labels.objectives import mirrored_weights
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.known_rules import known_rules

REJECTED, CHOSEN = "edges of the rejected completion", "edges of the chosen completion"
LOCAL = (0, 1, 2)
"""Columns of Z from which control tasks are made: the distance and its ranks at both ends."""


@dataclass(frozen=True, eq=False)
class PlanStates:
    """The first decision of each instance, with what the network would do after its choice and its runner-up."""

    instances: Instances
    features: Float[Tensor, "batch n f"]
    step: int
    tours: Int64[np.ndarray, "batch n"]
    """The network's own: the completion of its choice."""
    rivals: Int64[np.ndarray, "batch n"]
    """The completion of its runner-up."""
    log_chances: Float64[np.ndarray, "batch three n"]
    """Of the next city: at the state, after the choice, after the runner-up; NaN where visited."""

    @property
    def steps(self) -> slice:
        return slice(self.step, self.step + 1)

    @property
    def open(self) -> Bool[np.ndarray, "batch n"]:
        """Cities that a completion joins: the unvisited ones and city 0, not the current one."""
        found = np.ones(self.tours.shape, dtype=np.bool_)
        np.put_along_axis(found, self.tours[:, 1 : self.step + 1], False, axis=1)
        return found


def observe_plans(subject: Subject, instances: Instances) -> PlanStates:
    """Walk home after the choice and after the runner-up."""
    features, n = torch.from_numpy(instances.features), instances.problem.n
    step = decision_steps(instances.problem).start
    own = follow(subject, features, np.zeros((len(features), 1), dtype=np.int64), n)
    here = own.log_chances[:, step]
    runner_up = np.argsort(np.where(np.isnan(here), -np.inf, here), axis=1, kind="stable")[:, -2]
    prefixes = np.concatenate([own.tours[:, : step + 1], runner_up[:, None]], axis=1)
    rival = follow(subject, features, prefixes, n)
    chances = np.stack([here, own.log_chances[:, step + 1], rival.log_chances[:, 0]], axis=1)
    return PlanStates(instances, features, step, own.tours, rival.tours, chances)


def city_pairs(n: int, symmetric: bool) -> Int64[np.ndarray, "pair two"]:
    """All pairs of cities; ordered ones on asymmetric problems.

    >>> city_pairs(3, symmetric=True).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    rows = np.nonzero(np.triu(np.ones((n, n)), 1) if symmetric else ~np.eye(n, dtype=np.bool_))
    return np.stack(rows, axis=1)


def used_pairs(tours: Int64[np.ndarray, "batch n"], first: int, symmetric: bool) -> Bool[np.ndarray, "batch pair"]:
    """Whether the tour takes the pair as an edge, from its place `first` on (the edge home included).

    >>> used_pairs(np.array([[0, 2, 1]]), 1, symmetric=True).tolist()  # of 0-1, 0-2, 1-2 the edges 2-1 and 1-0
    [[True, False, True]]
    """
    batch, n = tours.shape
    used = np.zeros((batch, n, n), dtype=np.bool_)
    used[np.arange(batch)[:, None], tours[:, first:], np.roll(tours, -1, axis=1)[:, first:]] = True
    if symmetric:
        used |= used.swapaxes(1, 2)
    left, right = city_pairs(n, symmetric).T
    return used[:, left, right]


@dataclass(frozen=True, eq=False)
class PlanQuestions:
    """Both questions on one set, by name, and the rejected one of the longest completion after the runner-up."""

    asked: dict[str, Question]
    swapped: Question
    whole: Question
    """The rejected one, of all pairs that a completion may join."""


def plan_questions(states: PlanStates, *, estimates: bool) -> PlanQuestions:
    """Samples are instances, slots are pairs (`city_pairs`).

    Probes of the rejected completion learn from all of its edges; they are judged, on the set that `estimates` and
    where sites are chosen, by the pairs that the chosen completion does not use. Its Z holds the chosen completion.
    """
    symmetric, first = states.instances.problem.symmetric, states.step + 1
    left, right = city_pairs(states.tours.shape[1], symmetric).T
    open_pairs = states.open[:, left] & states.open[:, right]
    if not symmetric:
        open_pairs &= left != 0
    taken, rejected = (used_pairs(tours, first, symmetric) for tours in (states.tours, states.rivals))
    z = pair_nuisance(states)
    beside = np.concatenate([z, _places_in_plan(states, taken)], axis=2)
    whole = _question(rejected, open_pairs, beside, ~taken)
    asked = {
        REJECTED: _question(rejected, open_pairs & ~taken, beside, ~taken) if estimates else whole,
        CHOSEN: _question(taken, open_pairs, z, open_pairs),
    }
    turned_weights = mirrored_weights(states.instances.weights).weights
    turned = pair_nuisance(replace(states, instances=replace(states.instances, weights=turned_weights)))
    longest = completion_labels(states.instances.weights, states.tours, states.steps, symmetric, "longest").edges[:, 0]
    shares = longest[np.arange(len(taken)), states.rivals[:, first]][:, left, right]
    question = asked[REJECTED]
    values = np.where(question.asked, shares, 0.0).astype(np.float64)
    return PlanQuestions(asked, swapped_question(question, values, turned[question.asked]), whole)


def _places_in_plan(states: PlanStates, taken: Bool[np.ndarray, "batch pair"]) -> Float64[np.ndarray, "batch pair 4"]:
    """Whether the chosen completion joins the pair, the places of the two in it, and how far they are apart."""
    symmetric, n = states.instances.problem.symmetric, states.tours.shape[1]
    left, right = city_pairs(n, symmetric).T
    places = np.argsort(states.tours, axis=1)
    places[:, 0] = n  # the tour ends there
    one, two = places[:, left], places[:, right]
    ends = (np.minimum(one, two), np.maximum(one, two)) if symmetric else (one, two)
    return np.stack([taken, *ends, two - one if not symmetric else np.abs(two - one)], axis=2).astype(np.float64)


def _question(
    values: Bool[np.ndarray, "batch pair"],
    asked: Bool[np.ndarray, "batch pair"],
    z: Float64[np.ndarray, "batch pair k"],
    judged: Bool[np.ndarray, "batch pair"],
) -> Question:
    rows = z[asked]
    instances = np.arange(len(values))
    return Question(
        np.where(asked, values, 0.0),
        asked,
        rows,
        rows[:, LOCAL],
        instances,
        np.zeros_like(instances),
        judged[asked],
    )


def pair_nuisance(states: PlanStates) -> Float64[np.ndarray, "batch pair k"]:
    """Z of every pair. Of a symmetric problem each property of the two cities stands as its lower and upper value."""
    symmetric, n = states.instances.problem.symmetric, states.tours.shape[1]
    left, right = city_pairs(n, symmetric).T
    weights = states.instances.weights.astype(np.float64)
    joined = states.open[:, :, None] & states.open[:, None, :] & ~np.eye(n, dtype=np.bool_)
    distances = np.where(joined, weights, np.nan)
    ranks = (distances[:, :, None, :] < distances[..., None]).sum(axis=3).astype(np.float64)
    nearest = np.sort(distances, axis=2)[..., :2]
    rows = np.arange(len(weights))
    options = [tours[:, states.step + 1] for tours in (states.tours, states.rivals)]

    def both(table: np.ndarray) -> list[np.ndarray]:
        """Of a table [batch, from, to], or of a property [batch, city]."""
        one, two = (
            (table[:, left, right], table[:, right, left]) if table.ndim == 3 else (table[:, left], table[:, right])
        )
        return [np.fmin(one, two), np.fmax(one, two)] if symmetric else [one, two]

    columns = [distances[:, left, right], *both(ranks), *both(nearest[..., 0]), *both(nearest[..., 1])]
    columns += [*both(weights[:, :, 0]), *both(states.log_chances[:, 0])]
    for index, option in enumerate(options):
        forced = np.full((len(rows), n, n), np.nan)
        forced[rows, option] = states.log_chances[:, 1 + index]
        columns += [*both(forced), *both(np.eye(n)[option])]
    for tours in (states.tours, states.rivals):
        columns += [used.astype(np.float64) for used in _rule_pairs(states, tours)]
    state = [np.broadcast_to(part[:, None], columns[0].shape) for part in output_features(states.log_chances[:, 0]).T]
    return np.stack([*columns, *state], axis=2)


def _rule_pairs(states: PlanStates, tours: Int64[np.ndarray, "batch n"]) -> list[Bool[np.ndarray, "batch pair"]]:
    """Which pairs each known rule would join after the option with which these tours go on."""
    found = []
    for name in known_rules(states.instances.problem):
        completions = ALGORITHMS[name].completions
        assert completions is not None
        built = completions(states.instances.weights, tours, np.full(len(tours), states.step + 2))
        found.append(used_pairs(built, states.step + 1, states.instances.problem.symmetric))
    return found
