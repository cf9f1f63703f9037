"""Nuisance features: what simple rules already know of a candidate next city (method.md section 4, vector Z)."""

import numpy as np
from jaxtyping import Float64, Int64

from mesaprobe.labels.choices import heuristic_choices
from mesaprobe.problems import Instances
from mesaprobe.solvers.constructive import step_weights, unvisited
from mesaprobe.solvers.lookahead import UNREACHABLE, lookahead_values

LOCAL_NAMES = (
    "distance",
    "distance rank",
    "distance above nearest",
    "distance from candidate to its nearest free city",
    "... to its second nearest",
    "... to its third nearest",
    "distance from candidate to city 0",
    "mean distance from candidate to free cities",
    "cost completed by nearest neighbour, above the best candidate's",
    "rank of that cost",
    "cities left",
)
"""The first features; after them, for every rule of HEUR-v1 that applies, 1 where it goes to the candidate."""

COMPLETION_NAMES = ("cost completed by nearest neighbour, above the best candidate's", "rank of that cost")
"""Those of them that a rule tells by its whole completion; the others are distances and counts."""


def nuisance_features(
    instances: Instances, tours: Int64[np.ndarray, "batch n"], steps: slice
) -> Float64[np.ndarray, "batch step n k"]:
    """For each candidate next city at the decisions `steps` along the tours: `LOCAL_NAMES`, then rules' choices.

    Distances are in weight units. NaN marks visited cities, and neighbours that do not exist near the end.
    """
    weights = instances.weights
    free = unvisited(tours)[:, steps]
    n = free.shape[2]
    distance = np.where(free, step_weights(weights, tours)[:, steps], np.nan).astype(np.float64)
    onward = np.where(free[:, :, None, :], weights[:, None], np.nan).astype(np.float64)
    onward[:, :, np.arange(n), np.arange(n)] = np.nan
    nearest = np.sort(onward, axis=3)[:, :, :, :3]
    known = np.isfinite(onward)
    mean = np.where(known, onward, 0.0).sum(axis=3) / np.maximum(known.sum(axis=3), 1)
    values = lookahead_values(weights, tours, 1)[:, steps].astype(np.float64)
    values[values == UNREACHABLE] = np.nan
    columns = [
        distance,
        _ranks(distance),
        distance - np.nanmin(distance, axis=2, keepdims=True),
        *(nearest[:, :, :, k] for k in range(3)),
        np.broadcast_to(weights[:, None, :, 0], free.shape),
        mean,
        values - np.nanmin(values, axis=2, keepdims=True),
        _ranks(values),
        np.broadcast_to(free.sum(axis=2, keepdims=True), free.shape),
        *(chosen[..., None] == np.arange(n) for chosen in heuristic_choices(instances, tours, steps).values()),
    ]
    stacked = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=3)
    return np.where(free[:, :, :, None], stacked, np.nan)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank along the last axis, 0 for the smallest; equal values share the lowest rank; NaN stays NaN."""
    lower = (values[..., None, :] < values[..., :, None]).sum(axis=-1).astype(np.float64)
    return np.where(np.isnan(values), np.nan, lower)
