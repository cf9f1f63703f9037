"""The same questions about other objectives on the same instance: the objective-swapped controls.

A target of the shortest tour has a twin of equal combinatorial difficulty that is irrelevant to the task: the
same target of the longest tour, or of the bottleneck tour, whose largest weight is as small as it can be. A code
that is merely rich decodes both (method.md section 4).

Longest tours are shortest tours of mirrored weights: with w' = mirror - w, a path of k edges costs k * mirror
minus its length.
"""

from typing import Literal, NamedTuple, TypeAlias, get_args

import numba
import numpy as np
from jaxtyping import Float64, Int32, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.remaining import chosen_steps, fill_table, make_table, remaining_cities, unvisited_at
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.solvers.weights import checked_weights

Objective: TypeAlias = Literal["shortest", "longest", "bottleneck"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)


class Mirrored(NamedTuple):
    """Weights whose shortest tours are the longest tours of the given ones."""

    weights: Int32[np.ndarray, "batch n n"]
    mirror: Int64[np.ndarray, " batch"]
    """Smallest plus largest weight of each instance, so that the mirrored weights lie in the same range."""


def mirrored_weights(weights: Int32[np.ndarray, "batch n n"]) -> Mirrored:
    """Each weight w between different cities becomes (smallest + largest of the instance) - w; n >= 2.

    >>> mirrored_weights(np.array([[[0, 1, 5], [1, 0, 2], [5, 2, 0]]], dtype=np.int32)).weights[0]
    array([[0, 5, 1],
           [5, 0, 4],
           [1, 4, 0]], dtype=int32)
    """
    weights = checked_weights(weights)
    between = ~np.eye(weights.shape[1], dtype=np.bool_)
    entries = weights[:, between].astype(np.int64)
    mirror = entries.min(axis=1) + entries.max(axis=1)
    turned = np.where(between, mirror[:, None, None] - weights, 0)
    return Mirrored(turned.astype(np.int32), mirror)


def edges_left(n: int, steps: slice) -> Int64[np.ndarray, " step"]:
    """How many edges are still to be walked at each decision, the one home to city 0 included.

    >>> edges_left(8, slice(1, 4))
    array([7, 6, 5])
    """
    return n - chosen_steps(n, steps)


def objective_values(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"], steps: slice, objective: Objective
) -> Float64[np.ndarray, "batch step n"]:
    """Q*(s, a) at the decisions `steps` along the tours, by dynamic programming; a is the next city.

    | objective | value, of all ways from the current city to a, through the other unvisited ones and to city 0 |
    |---|---|
    | shortest | the least length; inf for visited cities |
    | longest | the greatest length; -inf for visited cities |
    | bottleneck | the least largest weight; inf for visited cities |

    >>> weights = np.array([[[0, 1, 9], [9, 0, 2], [3, 9, 0]]], dtype=np.int32)
    >>> [objective_values(weights, np.array([[0, 1, 2]]), slice(0, 1), name)[0, 0, 1:].tolist() for name in OBJECTIVES]
    [[6.0, 27.0], [6.0, 27.0], [3.0, 9.0]]
    """
    if objective == "shortest":
        return action_values(weights, tours)[:, steps]
    if objective == "longest":
        turned, mirror = mirrored_weights(weights)
        most = mirror[:, None] * edges_left(weights.shape[1], steps)
        return most[:, :, None] - action_values(turned, tours)[:, steps]
    if objective == "bottleneck":
        return _bottleneck_values(weights, tours, steps)
    raise UserError(f"unknown objective {objective!r}; known: {', '.join(OBJECTIVES)}")


def _bottleneck_values(weights: np.ndarray, tours: np.ndarray, steps: slice) -> np.ndarray:
    weights, tours = checked_weights(weights), np.ascontiguousarray(tours, dtype=np.int64)
    batch, n = tours.shape
    chosen = chosen_steps(n, steps)
    values = np.full((batch, len(chosen), n), np.inf)
    _bottleneck_batch(weights, tours, chosen, make_table(n, int(chosen[0]) + 1), values)
    return values


@numba.njit(cache=True, nogil=True)
def _bottleneck_batch(weights, tours, chosen, table, values):  # type: ignore[no-untyped-def]
    start, m = chosen[0] + 1, table.shape[1]
    for b in range(len(tours)):
        left = remaining_cities(weights[b], tours[b], start)
        fill_table(left, True, table)
        for i in range(len(chosen)):
            free, current = unvisited_at(chosen[i], start, m), tours[b, chosen[i]]
            for a in range(m):
                if free >> a & 1:
                    city = left.cities[a]
                    values[b, i, city] = max(np.int64(weights[b, current, city]), table[free ^ (1 << a), a])
