"""Exact dynamic programming (Held and Karp 1962; Bellman 1962), batched, with the value of every decision.

The table is filled backwards: `T[R, j]` is the cheapest way to leave city j, visit every city of the set R
once and end at city 0. So one table answers every prefix of every tour, optimal or not: after a prefix with
current city j and unvisited set U, `V* = T[U, j]` and `Q*(a) = w[j, a] + T[U - {a}, a]`.

Speed comes from three things together: the inner minimum runs over all j at once in unrolled scalars that the
compiler turns into vector registers, set bits are found by counting trailing zeros, and sums are integers
held in float32 (exact below 2^24; larger weights take a float64 table, exact below 2^53).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from jaxtyping import Float64, Int32, Int64
from llvmlite import ir
from numba.extending import intrinsic

from mesaprobe.errors import UserError
from mesaprobe.solvers.weights import checked_weights

MAX_CITIES = 20
"""Largest n: the table of one instance takes 4 * 24 * 2^(n-1) bytes, 50 MB at n = 20."""

_WIDTHS = (8, 16, 24)


class OptimalTours(NamedTuple):
    """One optimal tour per instance and its cost."""

    tours: Int64[np.ndarray, "batch n"]
    costs: Int64[np.ndarray, " batch"]


class Rollouts(NamedTuple):
    """Tours with the exact value of every action at every decision along them.

    `action_values[b, t, a]` is Q*(s, a) = cost of going from `tours[b, t]` to a and then completing optimally
    back to city 0, after the prefix `tours[b, :t + 1]`; infinite where a is already visited.
    """

    tours: Int64[np.ndarray, "batch n"]
    action_values: Float64[np.ndarray, "batch decision n"]


def held_karp(weights: Int32[np.ndarray, "batch n n"]) -> OptimalTours:
    """An optimal tour from city 0 and its cost, for each instance; 2 <= n <= 20, symmetric or not.

    Where several tours are optimal, the one that names the lowest city first is returned.

    >>> w = np.array([[[0, 1, 9, 9], [9, 0, 1, 9], [9, 9, 0, 1], [1, 9, 9, 0]]], dtype=np.int32)
    >>> held_karp(w)
    OptimalTours(tours=array([[0, 1, 2, 3]]), costs=array([4]))
    """
    weights = _checked(weights)
    batch, n = weights.shape[:2]
    tours = np.zeros((batch, n), dtype=np.int64)
    costs = np.empty(batch, dtype=np.int64)
    _solve_batch(weights, tours, costs, *_workspace(weights))
    return OptimalTours(tours, costs)


def optimal_rollouts(
    weights: Int32[np.ndarray, "batch n n"],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    uniforms: Float64[np.ndarray, "batch n"],
) -> Rollouts:
    """Keep the first `lengths[b]` cities of `prefixes[b]`, then complete each tour optimally.

    Where several next cities are optimal, `uniforms[b, t]` in [0, 1) picks one of them, each with equal
    probability. Every decision on the way is labelled, those inside the given prefix too.
    `lengths` >= 1; prefixes start at city 0.
    """
    weights = _checked(weights)
    batch, n = weights.shape[:2]
    tours = np.ascontiguousarray(prefixes, dtype=np.int64).copy()
    values = np.full((batch, n - 1, n), np.inf)
    lengths = np.ascontiguousarray(lengths, dtype=np.int64)
    _roll_batch(weights, tours, lengths, uniforms, values, *_workspace(weights))
    return Rollouts(tours, values)


def action_values(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"]
) -> Float64[np.ndarray, "batch decision n"]:
    """Q*(s, a) for every decision along the given tours, which start at city 0 (see `Rollouts`).

    >>> w = np.array([[[0, 1, 9], [9, 0, 2], [3, 9, 0]]], dtype=np.int32)
    >>> action_values(w, np.array([[0, 1, 2]]))[0]
    array([[inf,  6., 27.],
           [inf, inf,  5.]])
    """
    lengths = np.full(len(tours), tours.shape[1])
    return optimal_rollouts(weights, tours, lengths, np.zeros(tours.shape)).action_values


def _checked(weights: np.ndarray) -> np.ndarray:
    """The weights as contiguous int32; UserError if they are no batch of square matrices of whole numbers >= 0, or have
    too few or too many cities."""
    shape = np.shape(weights)
    if len(shape) == 3 and shape[1] == shape[2] and not 2 <= shape[1] <= MAX_CITIES:
        raise UserError(f"dynamic programming takes 2 to {MAX_CITIES} cities, got {shape[1]}")
    return checked_weights(weights)


def _workspace(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The table and the transposed weights of one instance, reused for the whole batch."""
    n = weights.shape[1]
    width = next(width for width in _WIDTHS if width >= n - 1)
    largest = int(weights.max(initial=0))
    kind = np.float32 if n * largest < 2**24 else np.float64
    return np.zeros((width << (n - 1),), dtype=kind), np.zeros(width * width, dtype=kind), width


@intrinsic
def _lowest_bit(typing_context: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ARG001
    """Index of the lowest set bit (one machine instruction)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.int64(numba.int64), generate


def _unrolled_fill(width: int) -> Callable[..., None]:
    """A function that fills the table, with its `width` running minima as separate scalars."""
    lanes = range(width)
    source = "\n".join(
        [
            f"def fill_{width}(table, into, cities, big):",
            "    for subset in range(1, 1 << cities):",
            *[f"        best{j} = big" for j in lanes],
            "        bits = subset",
            "        while bits:",
            "            k = lowest_bit(bits)",
            "            bits &= bits - 1",
            f"            value = table[(subset ^ (1 << k)) * {width} + k]",
            f"            row = k * {width}",
            *[f"            best{j} = min(best{j}, into[row + {j}] + value)" for j in lanes],
            f"        row = subset * {width}",
            *[f"        table[row + {j}] = best{j}" for j in lanes],
        ]
    )
    scope: dict[str, Any] = {"lowest_bit": _lowest_bit, "min": min}
    # Compiled under this file's name, so that numba can keep the machine code beside it.
    exec(compile(source, __file__, "exec"), scope)
    # numba keeps the globals beside the machine code, and not all that lands in builtins can be pickled: OR-Tools, like
    # other pybind11 modules, puts a capsule there.
    del scope["__builtins__"]
    return numba.njit(cache=True, error_model="numpy", fastmath=True, nogil=True)(scope[f"fill_{width}"])


_fill_8, _fill_16, _fill_24 = (_unrolled_fill(width) for width in _WIDTHS)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _fill(weights, table, into, width):  # type: ignore[no-untyped-def]
    """Fill `table` for one instance. City c of 1..n-1 is bit c-1; rows of members of the set are meaningless."""
    cities = weights.shape[0] - 1
    big = table.dtype.type(1e30)
    for j in range(width):
        for k in range(width):
            into[k * width + j] = weights[j + 1, k + 1] if j < cities and k < cities else 0
        table[j] = weights[j + 1, 0] if j < cities else 0
    if width == 8:
        _fill_8(table, into, cities, big)
    elif width == 16:
        _fill_16(table, into, cities, big)
    else:
        _fill_24(table, into, cities, big)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _best_next(weights, table, width, current, unvisited, uniform, values):  # type: ignore[no-untyped-def]
    """Write Q* of each unvisited city into `values`; return an optimal city, ties picked by `uniform`."""
    best = np.inf
    ties = 0
    bits = unvisited
    while bits:
        k = _lowest_bit(bits)
        bits &= bits - 1
        value = np.float64(weights[current, k + 1]) + table[(unvisited ^ (1 << k)) * width + k]
        values[k + 1] = value
        if value < best:
            best, ties = value, 1
        elif value == best:
            ties += 1
    skip = min(int(uniform * ties), ties - 1)
    bits = unvisited
    while True:
        k = _lowest_bit(bits)
        bits &= bits - 1
        if values[k + 1] == best:
            if skip == 0:
                return k + 1
            skip -= 1


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _roll_batch(weights, tours, lengths, uniforms, values, table, into, width):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    for b in range(batch):
        _fill(weights[b], table, into, width)
        unvisited = (1 << (n - 1)) - 1
        for t in range(n - 1):
            choice = _best_next(weights[b], table, width, tours[b, t], unvisited, uniforms[b, t], values[b, t])
            if t + 1 >= lengths[b]:
                tours[b, t + 1] = choice
            unvisited ^= 1 << (tours[b, t + 1] - 1)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _solve_batch(weights, tours, costs, table, into, width):  # type: ignore[no-untyped-def]
    batch, n = tours.shape
    values = np.empty(n)
    for b in range(batch):
        _fill(weights[b], table, into, width)
        unvisited = (1 << (n - 1)) - 1
        for t in range(n - 1):
            tours[b, t + 1] = _best_next(weights[b], table, width, tours[b, t], unvisited, 0.0, values)
            if t == 0:
                costs[b] = np.int64(values[tours[b, 1]])
            unvisited ^= 1 << (tours[b, t + 1] - 1)
