"""What the compiled networks must choose, computed from the integer weights without any network."""

import numpy as np
from jaxtyping import Bool, Int32, Int64

from mesaprobe.problems import tour_costs
from mesaprobe.solvers.constructive import step_weights, unvisited


def nearest_choices(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Bool[np.ndarray, "batch decision n"]:
    """All nearest unvisited cities (ties included), at each of the n - 1 decisions along the tours.

    >>> weights = np.array([[[0, 9, 3, 3], [9, 0, 2, 4], [3, 2, 0, 7], [3, 4, 7, 0]]], dtype=np.int32)
    >>> nearest_choices(weights, np.array([[0, 2, 1, 3]])).astype(int)[0].tolist()
    [[0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1]]
    """
    distances = np.where(unvisited(tours), step_weights(weights, tours).astype(np.float64), np.inf)
    return distances == distances.min(axis=2, keepdims=True)


def best_listed_choices(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    listed: Int64[np.ndarray, "k n"],
) -> Bool[np.ndarray, "batch decision n"]:
    """Where the cheapest listed tours that keep the prefix go next (ties included), else the nearest cities.

    >>> weights = np.array([[[0, 9, 3, 3], [9, 0, 2, 4], [3, 2, 0, 7], [3, 4, 7, 0]]], dtype=np.int32)
    >>> listed = np.array([[0, 1, 2, 3], [0, 1, 3, 2]])
    >>> best_listed_choices(weights, np.array([[0, 1, 2, 3], [0, 3, 1, 2]]), listed).argmax(2).tolist()
    [[1, 2, 3], [1, 1, 2]]
    """
    (batch, n), k = tours.shape, len(listed)
    costs = np.stack([tour_costs(weights, np.broadcast_to(tour, tours.shape)) for tour in listed], axis=1)
    choices = nearest_choices(weights, tours)
    fits = np.ones((batch, k), dtype=bool)
    for step in range(n - 1):
        fits &= tours[:, step, None] == listed[:, step]
        fitting = np.where(fits, costs.astype(np.float64), np.inf)
        best = fits & (fitting == fitting.min(axis=1, keepdims=True))
        following = (best[:, :, None] & (listed[:, step + 1, None] == np.arange(n))).any(axis=1)
        choices[:, step] = np.where(fits.any(axis=1, keepdims=True), following, choices[:, step])
    return choices


def no_listed_tour(
    tours: Int64[np.ndarray, "batch n"], listed: Int64[np.ndarray, "k n"]
) -> Bool[np.ndarray, "batch decision"]:
    """At which decisions along the tours no listed tour keeps the prefix, so that the network falls back on the
    nearest neighbour. The mean over given states is the fallback rate there.

    >>> no_listed_tour(np.array([[0, 2, 1, 3]]), np.array([[0, 2, 3, 1]])).tolist()
    [[False, False, True]]
    """
    same = tours[:, None, :-1] == listed[None, :, :-1]
    return np.logical_not(np.logical_and.accumulate(same, axis=2).any(axis=1))
