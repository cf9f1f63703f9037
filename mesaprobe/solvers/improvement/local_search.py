"""Local search on whole tours: 2-opt, Or-opt and 3-opt from any start (Croes 1958; Lin 1965; Or 1976).

Moves are costed exactly on asymmetric weights too, where a reversed path has another cost. Every tour is
rotated to city 0 first and stays there.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Int32, Int64

from mesaprobe.problems import tour_costs
from mesaprobe.solvers.constructive import greedy_edge, nearest_neighbour
from mesaprobe.solvers.improvement.moves import descend
from mesaprobe.solvers.improvement.trajectory import Trajectory, checked_tours, padded
from mesaprobe.solvers.weights import checked_weights

Rule: TypeAlias = Literal["best", "first"]


@dataclass(frozen=True)
class Neighbourhood:
    """Which tours one move reaches."""

    two_opt: bool
    """Replace two edges: reverse a path of the tour. On asymmetric weights either of the two paths between them."""
    longest_segment: int
    """Move a path of up to this many cities elsewhere, in either direction; 0 for no such moves."""


TWO_OPT = Neighbourhood(two_opt=True, longest_segment=0)
OR_OPT = Neighbourhood(two_opt=False, longest_segment=3)
TWO_OPT_OR_OPT = Neighbourhood(two_opt=True, longest_segment=3)
THREE_OPT = Neighbourhood(two_opt=True, longest_segment=np.iinfo(np.int64).max)
"""All segments: on symmetric weights these are all tours that differ in at most three edges, i.e. full 3-opt. On
asymmetric weights, where a tour and its reverse differ, the reverses of segment moves are left out."""

NEIGHBOURHOODS = {"two_opt": TWO_OPT, "or_opt": OR_OPT, "two_opt_or_opt": TWO_OPT_OR_OPT, "three_opt": THREE_OPT}


def local_search(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    neighbourhood: Neighbourhood = TWO_OPT_OR_OPT,
    rule: Rule = "best",
) -> Int64[np.ndarray, "batch n"]:
    """Move to a cheaper neighbour until there is none; the local optima, from city 0.

    `best` takes the cheapest neighbour; `first` takes the first cheaper one, and begins each scan anew. Both
    scan 2-opt moves before segment moves and each in the order of positions from city 0, shorter segments
    first; among equals the first counts.

    >>> square = np.array([[[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]], dtype=np.int32)
    >>> local_search(square, np.array([[0, 2, 1, 3]]), TWO_OPT)
    array([[0, 1, 2, 3]])
    """
    final, _ = _run(weights, tours, neighbourhood, rule, 0)
    return final


def local_search_trajectory(
    weights: Int32[np.ndarray, "batch n n"],
    tours: Int64[np.ndarray, "batch n"],
    neighbourhood: Neighbourhood = TWO_OPT_OR_OPT,
    rule: Rule = "best",
) -> Trajectory:
    """The same search with every tour on the way: one move lies between consecutive ones."""
    _, moves = _run(weights, tours, neighbourhood, rule, 0)
    trace, _ = _run(weights, tours, neighbourhood, rule, int(moves.max(initial=0)) + 1)
    return padded(trace, moves + 1)


def starting_tours(weights: Int32[np.ndarray, "batch n n"]) -> Int64[np.ndarray, "batch n"]:
    """The cheaper of nearest neighbour and greedy edge, each after 2-opt and Or-opt: where exact solvers start."""
    first, second = (local_search(weights, construct(weights)) for construct in (nearest_neighbour, greedy_edge))
    return np.where((tour_costs(weights, first) <= tour_costs(weights, second))[:, None], first, second)


def _run(
    weights: np.ndarray, tours: np.ndarray, neighbourhood: Neighbourhood, rule: Rule, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The final tours (steps = 0) or the first `steps` tours of every run, and how many moves were made."""
    if rule not in get_args(Rule):
        raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
    weights = checked_weights(weights)
    final = checked_tours(weights, tours)
    batch, n = final.shape
    trace = np.zeros((batch, steps, n), dtype=np.int64)
    moves = np.zeros(batch, dtype=np.int64)
    longest = min(neighbourhood.longest_segment, n)
    descend(weights, final, neighbourhood.two_opt, longest, rule == "first", trace, moves)
    return (trace if steps else final), moves
