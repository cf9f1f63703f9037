"""E5's questions: values, bounds and the events of a branch-and-bound search (method.md section 5, E5).

Only minima over completions are asked for, never the cost of a named tour, which every linear code of the distances
holds. Views:

    decode    the token that answers a decision state. Targets of a candidate have one slot a city (a linear readout
              each, as the network's own output has), targets of the state one slot.
    city      a city's own token; it knows the root state only, so the question is the regret of going there first.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mesaprobe.evidence.probing.questions import Question, swapped_question
from mesaprobe.evidence.probing.states import States, candidate_nuisance, mirrored, rule_costs, state_nuisance
from mesaprobe.labels.horizon import lookahead_needs
from mesaprobe.labels.state_bounds import bound_labels
from mesaprobe.labels.values import decision_steps, value_labels
from mesaprobe.solvers.bounds.lower_bounds import BoundKind
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound_totals
from mesaprobe.solvers.exact.held_karp import action_values

REGRET, ROOT_REGRET, STATE_VALUE = "regret", "regret at the root", "V*"
BOUND: BoundKind = "one_tree"
LOCAL = (0, 3, 4)
"""Columns of the candidate's nuisance from which control tasks are made: its distance and its nearest neighbours'."""


@dataclass(frozen=True, eq=False)
class ValueQuestions:
    """All questions on one set of instances."""

    asked: dict[str, Question]
    swapped: dict[str, Question]
    """The same for the longest tour, of the questions whose twin is a control."""


def value_questions(states: States) -> ValueQuestions:
    """Questions about the network's own states: the root (view `city`) and its decisions (view `decode`)."""
    later, other = decision_steps(states.instances.problem), mirrored(states)
    z, turned_z = candidate_nuisance(states), candidate_nuisance(other)
    regrets, turned = (_regrets(part) for part in (states, other))
    asked = {
        REGRET: _per_city(regrets[:, later], z[:, later]),
        ROOT_REGRET: _of_city_tokens(regrets[:, 0], z[:, 0]),
        "prune": _per_city(_prune(states, regrets)[:, later], z[:, later]),
    }
    twins = {
        REGRET: _per_city(turned[:, later], turned_z[:, later]),
        ROOT_REGRET: _of_city_tokens(turned[:, 0], turned_z[:, 0]),
    }
    asked.update(_state_questions(states, later))
    twins[STATE_VALUE] = _state_questions(other, later)[STATE_VALUE]
    swapped = {name: swapped_question(asked[name], twin.values, twin.z) for name, twin in twins.items()}
    return ValueQuestions(asked, swapped)


def _regrets(states: States) -> Float64[np.ndarray, "batch step n"]:
    """In units of the set's largest weight; infinite for visited cities."""
    weights = states.instances.weights
    return value_labels(weights, states.tours, states.steps).regrets / weights.max()


def _prune(states: States, regrets: Float64[np.ndarray, "batch step n"]) -> Float64[np.ndarray, "batch step n"]:
    labels = bound_labels(states.instances.weights, states.tours, states.steps, kinds=[BOUND])
    return np.where(np.isfinite(regrets), labels.prune[..., 0], np.inf)


def _state_questions(states: States, decisions: slice) -> dict[str, Question]:
    """One slot a state. The incumbent is what nearest neighbour completes, so Z goes without the rules' costs there;
    the events of branch and bound belong to the whole instance, so Z also holds what it says of the root."""
    weights, tours = states.instances.weights, states.tours
    state, costs = state_nuisance(states), rule_costs(states)
    known = np.concatenate([state, costs], axis=2)
    root = np.broadcast_to(known[:, :1], known.shape)
    whole = np.concatenate([known, root], axis=2)
    bounds = bound_labels(weights, tours, decisions, kinds=[BOUND])
    needs = lookahead_needs(weights, tours, action_values(weights, tours), decisions)
    search = branch_and_bound_totals(weights)
    targets = {
        STATE_VALUE: (value_labels(weights, tours, decisions).state_values, known),
        "1-tree bound": (bounds.bounds[..., 0], known),
        "incumbent": (bounds.incumbents, state),
        "d*": (needs, known),
        "nearest is a dead end": (needs > 0, known),
        "branch and bound: incumbents": (np.broadcast_to(search.incumbents[:, None], needs.shape), whole),
        "branch and bound: backtracks": (np.broadcast_to(np.log1p(search.backtracks)[:, None], needs.shape), whole),
    }
    return {name: _of_states(answers, z[:, decisions]) for name, (answers, z) in targets.items()}


def _per_city(answers: Float64[np.ndarray, "batch step n"], z: Float64[np.ndarray, "batch step n k"]) -> Question:
    batch, steps, n = answers.shape
    asked = np.isfinite(answers).reshape(-1, n)
    rows = z.reshape(batch * steps, n, -1)[asked]
    values = np.where(asked, answers.reshape(-1, n), 0.0)
    return Question(values, asked, rows, rows[:, LOCAL], *_places(batch, steps))


def _of_city_tokens(answers: Float64[np.ndarray, "batch n"], z: Float64[np.ndarray, "batch n k"]) -> Question:
    """City 0 is where every tour starts, and is not asked about."""
    batch, n = answers.shape
    asked = np.isfinite(answers).reshape(-1, 1)
    rows = z.reshape(batch * n, 1, -1)[asked]
    values = np.where(asked, answers.reshape(-1, 1), 0.0)
    return Question(values, asked, rows, rows[:, LOCAL], _places(batch, n)[0], np.zeros(batch * n, dtype=np.int64))


def _of_states(answers: Float64[np.ndarray, "batch step"], z: Float64[np.ndarray, "batch step k"]) -> Question:
    batch, steps = answers.shape
    rows = z.reshape(batch * steps, -1)
    values = np.asarray(answers, dtype=np.float64).reshape(-1, 1)
    return Question(values, np.ones_like(values, dtype=np.bool_), rows, rows[:, :3], *_places(batch, steps))


def _places(batch: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Instance and step of every sample."""
    return np.repeat(np.arange(batch), steps), np.tile(np.arange(steps), batch)
