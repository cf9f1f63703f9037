"""Members whose weights are written by hand, plain and in camouflage (method.md section 6.1)."""

import numpy as np
from jaxtyping import Bool, Int64

from mesaprobe.problems import Instances, ProblemConfig
from mesaprobe.zoo.compiled.choices import best_listed_choices
from mesaprobe.zoo.compiled.enumerators import best_of_k_enumerator, exhaustive_enumerator, first_edge_enumerator
from mesaprobe.zoo.compiled.nearest import nearest_neighbour_network
from mesaprobe.zoo.compiled.tours import listed_tours
from mesaprobe.zoo.members import ZOO, Compiled, Member
from mesaprobe.zoo.reference import Reference, optimal, rule

PROBLEM = ProblemConfig(n=8)
N, LEVELS = PROBLEM.n, PROBLEM.levels
LADDER = (16, 64, 256, 1024)
"""Numbers of listed tours: the same search at the quality of a bad and of a good heuristic."""


def best_listed(k: int) -> Reference:
    """The cheapest of k listed tours that keep the prefix, else nearest neighbour."""
    listed = listed_tours(N, k, 0)

    def allowed(
        instances: Instances,
        tours: Int64[np.ndarray, "batch n"],
        rng: np.random.Generator,  # noqa: ARG001  (nothing to draw)
    ) -> Bool[np.ndarray, "batch decision n"]:
        return best_listed_choices(instances.weights, tours, listed)

    return allowed


def _members() -> list[Member]:
    enumerates = "the cheapest of all tours that keep the prefix, compared in one soft argmin"
    found = [
        Member(
            "P1", "enumeration", "search", 5, enumerates, Compiled(lambda: exhaustive_enumerator(N, LEVELS)), optimal
        ),
        Member(
            "N6",
            "nearest_neighbour",
            "heuristic",
            1,
            "the nearest unvisited city, one unit per city",
            Compiled(lambda: nearest_neighbour_network(N, LEVELS)),
            rule("nearest_neighbour"),
        ),
        Member(
            "N6-in-P1",
            "nearest_neighbour",
            "heuristic",
            1,
            "P1's shell with one unit per tour, each of which knows its first edge only",
            Compiled(lambda: first_edge_enumerator(N, LEVELS)),
            rule("nearest_neighbour"),
        ),
    ]
    return found + [_best_of(k) for k in LADDER]


def _best_of(k: int) -> Member:
    return Member(
        f"P2-{k}",
        "enumeration",
        "search",
        5,
        f"the cheapest of {k} listed tours that keep the prefix",
        Compiled(lambda: best_of_k_enumerator(N, LEVELS, k=k)),
        best_listed(k),
    )


for _member in _members():
    ZOO.add(_member.name, _member)
