"""The distance functions of TSPLIB (Reinelt 1991, "TSPLIB 95", section 2).

EUC_2D rounds to the nearest integer, CEIL_2D rounds up, ATT is the pseudo-Euclidean distance, GEO the
great-circle distance in km with degrees and minutes cut off, not rounded.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from mesaprobe.errors import UserError


def distances(coordinates: Float64[np.ndarray, "n 2"], weight_type: str) -> Float64[np.ndarray, "n n"]:
    """Whole-number distances with a zero diagonal; infinite or NaN where double precision overflows.

    >>> distances(np.array([[0.0, 0.0], [3.0, 4.2]]), "CEIL_2D")[0]
    array([0., 6.])
    """
    if weight_type not in DISTANCES:
        raise UserError(f"unknown edge weight type {weight_type!r}; known: EXPLICIT, {', '.join(DISTANCES)}")
    with np.errstate(over="ignore", invalid="ignore"):
        found = DISTANCES[weight_type](coordinates)
    np.fill_diagonal(found, 0)
    return found


def _euclidean(coordinates: np.ndarray) -> np.ndarray:
    difference = coordinates[:, None] - coordinates[None]
    return np.sqrt((difference**2).sum(axis=2))


def _pseudo_euclidean(coordinates: np.ndarray) -> np.ndarray:
    """ATT: sqrt(d^2 / 10), rounded to the nearest integer and then up if that fell short."""
    difference = coordinates[:, None] - coordinates[None]
    exact = np.sqrt((difference**2).sum(axis=2) / 10)
    rounded = np.floor(exact + 0.5)
    return rounded + (rounded < exact)


def _geographical(coordinates: np.ndarray) -> np.ndarray:
    """GEO: great circles on TSPLIB's earth; coordinates are latitude and longitude as degrees.minutes."""
    pi, radius = 3.141592, 6378.388
    degrees = np.trunc(coordinates)
    latitude, longitude = (pi * (degrees + 5 * (coordinates - degrees) / 3) / 180).T
    q1 = np.cos(longitude[:, None] - longitude)
    q2 = np.cos(latitude[:, None] - latitude)
    q3 = np.cos(latitude[:, None] + latitude)
    angle = np.arccos(np.clip(0.5 * ((1 + q1) * q2 - (1 - q1) * q3), -1, 1))
    return np.floor(radius * angle + 1)


DISTANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "EUC_2D": lambda coordinates: np.floor(_euclidean(coordinates) + 0.5),
    "CEIL_2D": lambda coordinates: np.ceil(_euclidean(coordinates)),
    "GEO": _geographical,
    "ATT": _pseudo_euclidean,
}
