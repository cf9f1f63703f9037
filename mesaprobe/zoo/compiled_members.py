"""Members whose weights are written by hand, each plain and in three disguises (method.md section 6.1)."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int64

from mesaprobe.models.gpt import TourGPT
from mesaprobe.problems import Instances, ProblemConfig, make_problem, random_tours
from mesaprobe.solvers.fixed_horizon import horizon_beam_completions, horizon_values, walk_values
from mesaprobe.zoo.compiled.beam_search import beam_network
from mesaprobe.zoo.compiled.camouflage import noise_finetuned, rotated, with_harmless_noise
from mesaprobe.zoo.compiled.choices import best_listed_choices
from mesaprobe.zoo.compiled.enumerators import best_of_k_enumerator, exhaustive_enumerator, first_edge_enumerator
from mesaprobe.zoo.compiled.nearest import nearest_neighbour_network
from mesaprobe.zoo.compiled.tours import listed_tours
from mesaprobe.zoo.compiled.truncated import lookahead_network
from mesaprobe.zoo.compiled.value_iteration import value_iteration_network
from mesaprobe.zoo.compiled.walking import KEYS, NEAREST, Key, walking_rule_network
from mesaprobe.zoo.members import ZOO, Compiled, Member
from mesaprobe.zoo.reference import Policy, Reference, least, optimal, rule

PROBLEM = ProblemConfig(n=8)
N, LEVELS = PROBLEM.n, PROBLEM.levels
LADDER = (16, 64, 256, 1024)
"""Numbers of listed tours: the same search at the quality of a bad and of a good heuristic."""
HIDDEN_SEARCHER = 32
"""A number of listed tours that no fit sees."""
ITERATIONS = 4
CHECKED = 60
"""Instances on which the noise of a disguise is found harmless."""
FINETUNING_NOISE = 2.0**-14
FINETUNED = ("enumeration", "nearest_neighbour")
"""Families that stand this noise; programs of comparisons tolerate 2e-6 to 6e-5 of it only."""


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


def _search(name: str, family: str, degree: int, mechanism: str, build: Callable[[], TourGPT], of: Reference) -> Member:
    return Member(name, family, "search", degree, mechanism, Compiled(build), of)


def _best_of(k: int) -> Member:
    mechanism = f"the cheapest of {k} listed tours that keep the prefix"
    return _search(f"P2-{k}", "enumeration", 5, mechanism, lambda: best_of_k_enumerator(N, LEVELS, k=k), best_listed(k))


def _lookahead(depth: int) -> Member:
    mechanism = f"the first city of the cheapest {depth} next arcs, found by comparing all paths"
    reference = least(partial(_horizon, depth), f"horizon_{depth}")
    return _search(
        f"lookahead-{depth}", "lookahead", 3, mechanism, lambda: lookahead_network(N, LEVELS, depth), reference
    )


def _horizon(depth: int, instances: Instances, tours: Int64[np.ndarray, "batch n"]) -> np.ndarray:
    return horizon_values(instances.weights, tours, depth)


def _walks(instances: Instances, tours: Int64[np.ndarray, "batch n"]) -> np.ndarray:
    return walk_values(instances.weights, tours, ITERATIONS)


def _plain() -> list[Member]:
    nearest = rule("nearest_neighbour")
    beam = Policy(partial(horizon_beam_completions, width=4, arcs=4), name="horizon_beam_4")
    return [
        _search(
            "P1",
            "enumeration",
            5,
            "the cheapest of all tours that keep the prefix, compared in one soft argmin",
            lambda: exhaustive_enumerator(N, LEVELS),
            optimal,
        ),
        *map(_best_of, LADDER),
        dataclasses.replace(_best_of(HIDDEN_SEARCHER), disguise="few tours"),
        *map(_lookahead, (2, 3)),
        _search("beam-4", "beam", 3, "a beam of 4 paths over the next 4 arcs", lambda: beam_network(N, LEVELS), beam),
        _search(
            "value-iteration",
            "value_iteration",
            5,
            "values of walks through the unvisited cities, one arc longer with each of 4 iterations",
            lambda: value_iteration_network(N, LEVELS, ITERATIONS),
            least(_walks, "walk_values_4"),
        ),
        Member(
            "N6",
            "nearest_neighbour",
            "heuristic",
            1,
            "the nearest unvisited city, one unit per city",
            Compiled(lambda: nearest_neighbour_network(N, LEVELS)),
            nearest,
        ),
        Member(
            "N6-in-P1",
            "nearest_neighbour",
            "heuristic",
            1,
            "P1's shell with one unit per tour, each of which knows its first edge only",
            Compiled(lambda: first_edge_enumerator(N, LEVELS)),
            nearest,
        ),
    ]


# ---- disguises ----------------------------------------------------------------------------------------------------


def _noisy(build: Callable[[], TourGPT], reference: Reference) -> TourGPT:
    """The most noise that changes no answer to an answer that the mechanism forbids, on instances of its own."""
    rng = np.random.default_rng([0xD15, 0])
    instances = make_problem(PROBLEM).draw(CHECKED, rng)
    tours = random_tours(len(instances), instances.problem.n, rng)
    allowed = reference(instances, tours, rng)
    features, prefixes = torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])
    return with_harmless_noise(build(), 0, features, prefixes, allowed).model


def _disguised(member: Member) -> list[Member]:
    assert isinstance(member.recipe, Compiled)
    assert member.reference is not None
    build, reference = member.recipe.build, member.reference
    recipes: dict[str, Callable[[], TourGPT]] = {
        "rotated": lambda: rotated(build(), 0),
        "noisy": lambda: _noisy(build, reference),
        "finetuned": lambda: noise_finetuned(build(), make_problem(PROBLEM), 0, scale=FINETUNING_NOISE),
    }
    return [
        dataclasses.replace(
            member,
            name=f"{member.name}-{disguise}",
            recipe=Compiled(recipe, repeatable=False),
            disguise=disguise,
        )
        for disguise, recipe in recipes.items()
        if disguise != "finetuned" or member.family in FINETUNED
    ]


SHELLS: dict[str, Callable[[Key], TourGPT]] = {
    "compiled": lambda key: walking_rule_network(N, LEVELS, key),
    "in-P1": lambda key: walking_rule_network(N, LEVELS, key, enumerator_shell=True),
    "in-lookahead-2": lambda key: lookahead_network(N, LEVELS, 2, rule=key),
    "in-lookahead-3": lambda key: lookahead_network(N, LEVELS, 3, rule=key),
    "in-value-iteration": lambda key: value_iteration_network(N, LEVELS, ITERATIONS, rule=key),
}
"""The small network of a walking rule, and the shapes of searchers: the classes must not differ in architecture."""


def _walking(name: str, shell: str) -> Member:
    key = KEYS.get(name, NEAREST)
    return Member(
        f"{name}-{shell}",
        name,
        "heuristic",
        1,
        f"{name.replace('_', ' ')}: the unvisited city of least key"
        + f", {shell.replace('-', ' ', 1)}" * (shell != "compiled"),
        Compiled(lambda: SHELLS[shell](key)),
        rule(name),
    )


for _name in ("nearest_neighbour", *KEYS):
    for _shell in SHELLS:
        if _name in KEYS or _shell not in ("compiled", "in-P1"):  # those two are N6 and N6-in-P1
            ZOO.add((_walker := _walking(_name, _shell)).name, _walker)

for _member in _plain():
    ZOO.add(_member.name, _member)
    if _member.name.split("-")[0] != "P2" or _member.name in ("P2-256", f"P2-{HIDDEN_SEARCHER}"):
        for _copy in _disguised(_member):
            ZOO.add(_copy.name, _copy)
