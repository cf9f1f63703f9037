"""What a network itself would go on to do after a forced next city: the completions C_m of method.md section 1."""

import numpy as np
from jaxtyping import Bool, Int64

from mesaprobe.evidence.states.decision_states import DecisionStates, next_logits
from mesaprobe.models.subject import Subject


def own_completions(
    subject: Subject, states: DecisionStates, forced: Int64[np.ndarray, " state"]
) -> Int64[np.ndarray, "state n"]:
    """Whole tours: the state's prefix, the forced city, then always the network's most likely unvisited city."""
    rows, n = np.arange(len(states)), states.tours.shape[1]
    features = states.instances.features
    tours = np.where(np.arange(n) <= states.steps[:, None], states.tours, 0)
    tours[rows, states.steps + 1] = forced
    visited = np.ones(tours.shape, dtype=bool)
    visited[states.free] = False
    visited[rows, forced] = True
    last = states.steps + 1
    while (going := np.flatnonzero(last < n - 1)).size:
        logits = next_logits(subject, features[going], tours[going], last[going])
        city = np.where(visited[going], -np.inf, logits).argmax(axis=1)
        last[going] += 1
        tours[going, last[going]] = city
        visited[going, city] = True
    return tours


def completion_edges(
    tours: Int64[np.ndarray, "state n"], steps: Int64[np.ndarray, " state"], undirected: bool
) -> Bool[np.ndarray, "state n n"]:
    """The arcs of each tour from its state on, home to city 0 included; both directions if `undirected`.

    >>> completion_edges(np.array([[0, 2, 1]]), np.array([1]), undirected=False).astype(int)
    array([[[0, 0, 0],
            [1, 0, 0],
            [0, 1, 0]]])
    """
    count, n = tours.shape
    used = np.zeros((count, n, n), dtype=bool)
    later = np.arange(n) >= steps[:, None]
    states = np.broadcast_to(np.arange(count)[:, None], tours.shape)
    used[states[later], tours[later], np.roll(tours, -1, axis=1)[later]] = True
    return used | used.transpose(0, 2, 1) if undirected else used


def completion_costs(states: DecisionStates, tours: Int64[np.ndarray, "state n"]) -> Int64[np.ndarray, " state"]:
    """Cost of each tour from its state's current city on."""
    following = np.roll(tours, -1, axis=1)
    arcs = states.weights[np.arange(len(states))[:, None], tours, following]
    later = np.arange(tours.shape[1]) >= states.steps[:, None]
    return np.asarray(np.where(later, arcs, 0).sum(axis=1, dtype=np.int64))
