"""States on a network's own tours, what it answers there, and the nuisance Z (method.md section 4)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from mesaprobe.labels.nuisance import COMPLETION_NAMES, LOCAL_NAMES, nuisance_features
from mesaprobe.labels.objectives import mirrored_weights
from mesaprobe.labels.remaining import chosen_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, tour_costs
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.constructive import unvisited
from mesaprobe.solvers.known_rules import known_rules

CHUNK = 1024
OUTPUT_COLUMNS = 4
"""At the end of `candidate_nuisance`: the output's log-chance of the candidate, and `output_features`."""


@dataclass(frozen=True, eq=False)
class Walk:
    """A network's greedy walk from given prefixes on, visited cities masked."""

    tours: Int64[np.ndarray, "batch length"]
    log_chances: Float64[np.ndarray, "batch step n"]
    """Of the next city, at the last city of the prefix and at each city named after it but the last; NaN where
    visited."""


def follow(
    subject: Subject, features: Float[Tensor, "batch n f"], prefixes: Int64[np.ndarray, "batch t"], length: int
) -> Walk:
    """Name the most likely unvisited city until the tour has `length` cities; one pass over the batch a city."""
    parts = [
        _follow(subject, part, start, length)
        for part, start in zip(features.split(CHUNK), torch.from_numpy(prefixes).split(CHUNK), strict=True)
    ]
    tours, chances = (torch.cat(pieces).numpy() for pieces in zip(*parts, strict=True))
    return Walk(tours.astype(np.int64), np.where(np.isfinite(chances), chances, np.nan))


def _follow(
    subject: Subject, features: Tensor, tours: Int[Tensor, "batch t"], length: int
) -> tuple[Int[Tensor, "batch length"], Float[Tensor, "batch step n"]]:
    chances = []
    while tours.shape[1] < length:
        visited = torch.zeros(features.shape[:2], dtype=torch.bool).scatter(1, tours, value=True)
        logits = subject.next_city_logits(features, tours).cpu().masked_fill(visited, -torch.inf)
        chances.append(logits.double().log_softmax(-1))
        tours = torch.cat([tours, logits.argmax(1, keepdim=True)], dim=1)
    return tours, torch.stack(chances, dim=1)


@dataclass(frozen=True, eq=False)
class States:
    """Consecutive states, from the root on, along the network's own tours."""

    instances: Instances
    features: Float[Tensor, "batch n f"]
    tours: Int64[np.ndarray, "batch n"]
    """What the network named up to the last of the states; then the cities left, in the order of their numbers."""
    log_chances: Float64[np.ndarray, "batch step n"]
    """Of the next city at each state; NaN where visited."""

    @property
    def steps(self) -> slice:
        """All the states: step t has the prefix `tours[:, :t + 1]`."""
        return slice(0, self.log_chances.shape[1])


def observe(subject: Subject, instances: Instances, steps: int) -> States:
    """The states at steps 0 to `steps` - 1 of the network's greedy tours."""
    features = torch.from_numpy(instances.features)
    walk = follow(subject, features, np.zeros((len(features), 1), dtype=np.int64), steps + 1)
    left = np.ones((len(features), features.shape[1]), dtype=np.bool_)
    np.put_along_axis(left, walk.tours, False, axis=1)
    rest = np.nonzero(left)[1].reshape(len(features), -1)
    return States(instances, features, np.concatenate([walk.tours, rest], axis=1), walk.log_chances)


def mirrored(states: States) -> States:
    """The same states with weights whose shortest tours are the longest ones of the true weights."""
    weights = mirrored_weights(states.instances.weights).weights
    return replace(states, instances=replace(states.instances, weights=weights))


def output_features(log_chances: Float64[np.ndarray, "*batch n"]) -> Float64[np.ndarray, "*batch 3"]:
    """What the output says of a whole state: log-chance of the first choice, its lead on the second, entropy."""
    ranked = np.sort(np.where(np.isnan(log_chances), -np.inf, log_chances), axis=-1)
    entropy = -np.nansum(np.exp(log_chances) * log_chances, axis=-1)
    return np.stack([ranked[..., -1], ranked[..., -1] - ranked[..., -2], entropy], axis=-1)


def candidate_nuisance(states: States) -> Float64[np.ndarray, "batch step n k"]:
    """Z(s, a): rules' features (`labels.nuisance_features`), the output's log-chance of a, and `output_features`."""
    rules = nuisance_features(states.instances, states.tours, states.steps)
    state = np.broadcast_to(output_features(states.log_chances)[:, :, None], (*states.log_chances.shape, 3))
    return np.concatenate([rules, states.log_chances[..., None], state], axis=3)


def nested_columns(width: int) -> dict[str, Int64[np.ndarray, " k"]]:
    """Columns of a `candidate_nuisance` of this width, by growing set: each holds the ones before it.

    Local distances, then what rules complete and choose as well, then the network's output as well.

    >>> {name: len(columns) for name, columns in nested_columns(21).items()}
    {'local distances': 9, 'and rules': 17, 'and output': 21}
    """
    every = np.arange(width)
    completed = np.isin(every, [LOCAL_NAMES.index(name) for name in COMPLETION_NAMES])
    output = every >= width - OUTPUT_COLUMNS
    local = (every < len(LOCAL_NAMES)) & ~completed
    return {"local distances": every[local], "and rules": every[~output], "and output": every}


def rule_costs(states: States) -> Float64[np.ndarray, "batch step rule"]:
    """What each known rule that applies would still pay from every state to the end."""
    weights, tours, n = states.instances.weights, states.tours, states.tours.shape[1]
    spent = np.cumsum(weights[np.arange(len(tours))[:, None], tours[:, :-1], tours[:, 1:]], axis=1)
    columns = []
    for name in known_rules(states.instances.problem):
        completions = ALGORITHMS[name].completions
        assert completions is not None
        whole = [
            tour_costs(weights, completions(weights, tours, np.full(len(tours), step + 1)))
            for step in chosen_steps(n, states.steps)
        ]
        columns.append(np.stack(whole, axis=1))
    before = np.concatenate([np.zeros((len(tours), 1)), spent], axis=1)[:, states.steps]
    return np.stack(columns, axis=2) - before[:, :, None]


def state_nuisance(states: States) -> Float64[np.ndarray, "batch step k"]:
    """Z(s) of targets that belong to a whole state: sorted distances and the output; no costs of completions.

    From the current city to the cities left, from those to city 0, quantiles of all distances that may still be used,
    the sums of each city's nearest and second nearest, `output_features`, and how many cities are left.
    """
    weights, n = states.instances.weights.astype(np.float64), states.tours.shape[1]
    free = unvisited(states.tours)[:, states.steps]
    current = states.tours[:, states.steps]
    rows = np.arange(len(weights))[:, None]
    ahead = np.sort(np.where(free, weights[rows, current], np.nan), axis=2)
    home = np.sort(np.where(free, weights[:, None, :, 0], np.nan), axis=2)
    usable = free.copy()
    usable[:, :, 0] = True
    np.put_along_axis(usable, current[..., None], True, axis=2)
    pairs = usable[..., None] & usable[:, :, None] & ~np.eye(n, dtype=np.bool_)
    distances = np.where(pairs, weights[:, None], np.nan)
    nearest = np.sort(distances, axis=3)[..., :2]
    quantiles = np.nanquantile(distances.reshape(*free.shape[:2], -1), np.linspace(0, 1, 11), axis=2)
    return np.concatenate(
        [
            ahead[..., : n - 1],
            home[..., : n - 1],
            np.moveaxis(quantiles, 0, 2),
            np.nansum(nearest, axis=2),
            output_features(states.log_chances),
            free.sum(axis=2, keepdims=True),
        ],
        axis=2,
    )
