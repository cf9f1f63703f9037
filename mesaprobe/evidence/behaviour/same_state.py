"""Is the same state answered alike, whichever way it was reached? (method.md section 9, world-model incoherence)

A tour's rest depends on the current city and on the unvisited ones, not on the order of the others. A network that
keeps to that gives the same distribution for both orders. Context: neither rules nor searches need to pass it.
"""

import numpy as np
from jaxtyping import Float64

from mesaprobe.evidence.states.decision_states import DecisionStates, log_chances
from mesaprobe.models.subject import Subject


def path_dependence(
    subject: Subject, states: DecisionStates, rng: np.random.Generator
) -> dict[str, float | int] | None:
    """Jensen-Shannon divergence in nats between the answers to a state by two roads, and how often the same city is
    named; beside it the divergence between states of different instances (answers matched by rank). None if no state
    has two cities to swap between city 0 and the current one."""
    states = states[np.flatnonzero(states.steps >= 3)]
    if len(states) == 0:
        return None
    tours = states.tours.copy()
    for row, step in enumerate(states.steps):
        inner = tours[row, 1:step]
        tours[row, 1:step] = np.roll(inner, int(rng.integers(1, len(inner))))
    other = DecisionStates(states.instances, tours, states.steps, states.groups)
    first, second = np.exp(log_chances(subject, states)), np.exp(log_chances(subject, other))
    apart = np.sort(first, axis=1)
    return {
        "divergence": float(_divergence(first, second).mean()),
        "divergence_between_instances": float(_divergence(apart, apart[rng.permutation(len(apart))]).mean()),
        "same_city": float((first.argmax(axis=1) == second.argmax(axis=1)).mean()),
        "states": len(states),
    }


def _divergence(p: Float64[np.ndarray, "state n"], q: Float64[np.ndarray, "state n"]) -> Float64[np.ndarray, " state"]:
    def entropy(chances: np.ndarray) -> np.ndarray:
        return -(chances * np.log(np.where(chances > 0, chances, 1.0))).sum(axis=1)

    return np.asarray(np.maximum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0.0))
