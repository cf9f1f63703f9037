"""Rules that look at points in the plane: convex-hull insertion, angular sweep, space-filling curve.

All take coordinates [batch, n, 2], integer or not; whole numbers below 2^25 are handled without rounding.
"""

import numba
import numpy as np
from jaxtyping import Int32, Int64, Real

from mesaprobe.problems import rotate_to_city_zero
from mesaprobe.solvers.constructive.insertion import insert_cheapest

_HILBERT_ORDER = 16


def hull_insertion(
    weights: Int32[np.ndarray, "batch n n"], coordinates: Real[np.ndarray, "batch n 2"]
) -> Int64[np.ndarray, "batch n"]:
    """Begin with the convex hull, counter-clockwise; next comes the city whose best insertion makes the tour grow
    least.

    Points on an edge of the hull are inserted like inner ones. Growth is measured on the weights. Among equal
    cities the lowest is taken, and the place behind the lowest city.
    """
    x, y = np.ascontiguousarray(np.moveaxis(coordinates.astype(np.float64), 2, 0))
    cycles, lengths = np.zeros(x.shape, dtype=np.int64), np.empty(len(x), dtype=np.int64)
    _hulls(x, y, np.lexsort((y, x), axis=-1), cycles, lengths)
    return rotate_to_city_zero(insert_cheapest(weights, cycles, lengths))


def sweep(coordinates: Real[np.ndarray, "batch n 2"]) -> Int64[np.ndarray, "batch n"]:
    """From city 0 counter-clockwise, in the order of the angle at the centroid of all cities.

    Cities in the same direction come by distance, nearest first, then by index.
    """
    points = coordinates.astype(np.float64)
    # n times the vector from the centroid: whole numbers stay whole
    x, y = np.moveaxis(points.shape[1] * points - points.sum(axis=1, keepdims=True), 2, 0)
    return rotate_to_city_zero(np.lexsort((x * x + y * y, np.arctan2(y, x)), axis=-1))


def space_filling_curve(coordinates: Real[np.ndarray, "batch n 2"]) -> Int64[np.ndarray, "batch n"]:
    """From city 0 along the Hilbert curve (Bartholdi and Platzman 1982), and from its end to its beginning.

    The curve of order 16 fills the smallest square, with sides along the axes and its corner at the least x and
    y, that holds the cities; it begins there and ends at the greatest x. Cities in one of its 2^32 cells come by index.
    """
    points = coordinates.astype(np.float64)
    points = points - points.min(axis=1, keepdims=True)
    side = np.maximum(points.max(axis=(1, 2), keepdims=True), np.finfo(np.float64).tiny)
    cells = np.minimum(points / side * 2**_HILBERT_ORDER, 2**_HILBERT_ORDER - 1).astype(np.int64)
    return rotate_to_city_zero(np.argsort(_hilbert_positions(cells[..., 0], cells[..., 1]), axis=1, kind="stable"))


def _hilbert_positions(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Position of each cell along the curve, from its most significant quadrant down."""
    position = np.zeros_like(x)
    for level in reversed(range(_HILBERT_ORDER)):
        right, upper = (x >> level) & 1, (y >> level) & 1
        position = 4 * position + ((3 * right) ^ upper)
        # the curve inside a lower quadrant is mirrored at a diagonal
        mask = (1 << level) - 1
        turned = (upper == 0) & (right == 1)
        x, y = np.where(turned, mask - (x & mask), x & mask), np.where(turned, mask - (y & mask), y & mask)
        x, y = np.where(upper == 0, y, x), np.where(upper == 0, x, y)
    return position


@numba.njit(cache=True, nogil=True)
def _hulls(x, y, order, cycles, lengths):  # type: ignore[no-untyped-def]
    """Andrew's monotone chain: the corners of each hull, counter-clockwise from the leftmost point."""
    batch, n = x.shape
    chain = np.empty(2 * n, dtype=np.int64)
    for b in range(batch):
        size = 0
        for half in range(2):
            base = size
            for index in range(n):
                city = order[b, index if half == 0 else n - 1 - index]
                while size - base >= 2 and _turn(x[b], y[b], chain[size - 2], chain[size - 1], city) <= 0:
                    size -= 1
                chain[size] = city
                size += 1
            size -= 1  # the last point of one half is the first of the other
        lengths[b] = max(size, 1)
        cycles[b, : lengths[b]] = chain[: lengths[b]]


@numba.njit(cache=True, nogil=True)
def _turn(x, y, a, b, c):  # type: ignore[no-untyped-def]
    """Positive if the way a - b - c turns left."""
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
