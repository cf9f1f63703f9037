"""Moves of one far city in the plane: the search for one that moves the optimum, by dynamic programming on each."""

import numpy as np
from jaxtyping import Bool, Int32, Int64

from mesaprobe.labels.pairs.criteria import PairCriteria
from mesaprobe.labels.pairs.edits import Edits
from mesaprobe.labels.pairs.states import States, distances_from_current, far_cities, rank_classes
from mesaprobe.problems import Instances, ceil_distances

PROPOSALS = 16
"""Random moves tried per state."""

MATCHES = 64
"""Irrelevant twins tried per move."""


def relevant_moves(states: States, rng: np.random.Generator, criteria: PairCriteria) -> Edits:
    """Those of `PROPOSALS` random moves per state that make the optimal set another one by the margin.

    A proposal takes one far city, each with equal probability, to a uniform point of the grid, and leaves it far.
    """
    of = np.repeat(np.arange(len(states.lengths)), PROPOSALS)
    states = states.pick(of)
    cities = _random_cities(states.far, rng)
    points = rng.integers(0, states.instances.problem.config.grid + 1, size=(len(of), 2))
    edits, optimal, decided = _move(states, of, cities, points, criteria)
    return edits.pick(decided & ~(optimal & states.optimum.optimal).any(axis=1))


def irrelevant_moves(states: States, relevant: Edits, rng: np.random.Generator, criteria: PairCriteria) -> Edits:
    """Twins of the relevant moves, one state each: another far city moves as far (to a grid unit) in any direction.

    It stays far, with its distance to the current city in the rank class of that of the relevant twin's moved city,
    before and after the move; the optimal set and the margin stay.
    """
    of = np.repeat(np.arange(len(relevant.of)), MATCHES)
    states, relevant = states.pick(of), relevant.pick(of)
    rows, theirs = np.arange(len(of)), relevant.entries[:, 0, 0]
    others = states.far.copy()
    others[rows, theirs] = False
    cities = _random_cities(others, rng)
    angle = rng.uniform(0.0, 2.0 * np.pi, size=len(of))
    shift = relevant.sizes[:, :1] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = _points(states.instances)[rows, cities] + np.rint(shift).astype(np.int64)
    inside = ((points >= 0) & (points <= states.instances.problem.config.grid)).all(axis=1)
    of, states, relevant = of[inside], states.pick(inside), relevant.pick(inside)
    cities, theirs, points = cities[inside], theirs[inside], points[inside]
    edits, optimal, decided = _move(states, of, cities, points, criteria)
    keeps = decided & (optimal == states.optimum.optimal).all(axis=1)
    for ours, other in ((states.instances, states.instances), (edits.instances, relevant.instances)):
        keeps &= _class(states, ours, cities) == _class(states, other, theirs)
    return edits.pick(keeps)


def _move(
    states: States,
    of: Int64[np.ndarray, " edit"],
    cities: Int64[np.ndarray, " edit"],
    points: Int64[np.ndarray, "edit 2"],
    criteria: PairCriteria,
) -> tuple[Edits, Bool[np.ndarray, "edit n"], Bool[np.ndarray, " edit"]]:
    """The moves as edits, their optimal sets, and where the margin is kept and the moved city still far."""
    rows, old = np.arange(len(of)), _points(states.instances)
    new = old.copy()
    new[rows, cities] = points
    weights = ceil_distances(new)
    entries = np.full((len(of), 2, 2), -1, dtype=np.int64)
    entries[:, 0] = cities[:, None]
    sizes = np.zeros((len(of), 2))
    sizes[:, 0] = np.linalg.norm(new[rows, cities].astype(np.float64) - old[rows, cities], axis=1)
    optimal, margins = states.optimum_on(weights)
    far = far_cities(weights, states.prefixes, states.lengths, criteria.protected)[rows, cities]
    edits = Edits(of, Instances(states.instances.problem, weights, new), entries, sizes)
    return edits, optimal, far & (margins > criteria.margin)


def _class(states: States, instances: Instances, cities: Int64[np.ndarray, " edit"]) -> Int64[np.ndarray, " edit"]:
    """Rank class, among the distances of the base, of the distance from the current city to one city per state."""
    distances = distances_from_current(instances.weights, states.prefixes, states.lengths)
    return rank_classes(states.instances.weights, np.take_along_axis(distances, cities[:, None], axis=1))[:, 0]


def _points(instances: Instances) -> Int32[np.ndarray, "batch n 2"]:
    if instances.coordinates is None:
        raise ValueError("the cities of instances without coordinates cannot be moved")
    return instances.coordinates


def _random_cities(allowed: Bool[np.ndarray, "batch n"], rng: np.random.Generator) -> Int64[np.ndarray, " batch"]:
    return np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)
