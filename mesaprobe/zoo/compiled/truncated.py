"""Depth-limited look-ahead without completion: every path of a few arcs is judged, the best of each group is passed up.

    stage           slot                what it holds, for every partial path of j cities (a, b, ..)
    compare j       wins_j [.., e, f]   1 tick if going on to f is cheaper than to e (the rest included)
    choose j        plan_j [.., e]      1 at the city that this partial path goes on to at best; e = 0: home
    take j          rest_j [..]         what the path costs beyond its j cities; rest_1 is the way on after a
    take 1          value [a]           w(current, a) + rest_1 [a], the logit of a up to its sign

Stages run from the deepest paths upwards (dynamic programming over the tree of paths). Plans and rests stand there for
*every* option a, chosen and rejected alike, and the values are read off the plans. Deepest comparisons do not depend
on how the path got there: they are labelled by its last city only.
"""

from collections.abc import Iterator
from itertools import permutations

from mesaprobe.errors import UserError
from mesaprobe.models import TourGPT
from mesaprobe.zoo.compiled.blocks import Vector
from mesaprobe.zoo.compiled.program import Contests, Label, Program, Unit
from mesaprobe.zoo.compiled.soft_argmin import SHARPNESS
from mesaprobe.zoo.compiled.walking import Key


def lookahead_network(
    n: int, levels: int, depth: int, *, sharpness: float = SHARPNESS, rule: Key | None = None
) -> TourGPT:
    """Takes a city that starts the cheapest next `depth` arcs (2 or 3) of a tour, at every state.

    Equals `solvers.fixed_horizon.horizon_completions` but for the order among equals. With a `rule` the same network
    walks by it (`Program`).

    >>> import torch
    >>> weights = torch.tensor([[[0, 1, 2, 9], [1, 0, 9, 9], [2, 9, 0, 1], [9, 9, 1, 0]]])
    >>> lookahead_network(4, 9, 2)(weights / 9, torch.tensor([[0, 2, 3]])).argmax(-1)
    tensor([[2, 3, 1]])
    """
    return lookahead_program(n, levels, depth, sharpness=sharpness, rule=rule).network()


def lookahead_program(
    n: int, levels: int, depth: int, *, sharpness: float = SHARPNESS, rule: Key | None = None
) -> Program:
    """The stages of `lookahead_network`; its `places()` are the slots of the table above."""
    if depth not in (2, 3) or n < depth + 2:
        raise UserError(f"look-ahead networks have depth 2 or 3 and at least depth + 2 cities, got {depth} and {n}")
    program = Program(n, levels, arcs=depth, heads=n, slots=lookahead_slots(n, depth), sharpness=sharpness, rule=rule)
    add_lookahead(program, depth)
    return program


def add_lookahead(program: Program, depth: int) -> None:
    """All stages up to slot `value`, in a program that has `lookahead_slots`; what an arc costs is the program's."""
    for j in range(depth - 1, 0, -1):
        _add_stages(program, j, depth)


def lookahead_slots(n: int, depth: int) -> dict[str, list[Label]]:
    """The labels of the slots of the table above."""
    slots: dict[str, list[Label]] = {}
    for j in range(depth - 1, 0, -1):
        groups = list(permutations(range(1, n), 1 if j == depth - 1 else j))
        slots[f"wins_{j}"] = [x for group in groups for x in Contests.labels_of(group, _options(n, group))]
        slots[f"plan_{j}"] = [(*path, e) for path in permutations(range(1, n), j) for e in _options(n, path)]
        slots[f"rest_{j}"] = list(permutations(range(1, n), j))
    return slots


def _options(n: int, path: Label) -> list[int]:
    """Where a path may go: home, or to a city that it does not hold."""
    return [0, *(city for city in range(1, n) if city not in path)]


def _add_stages(program: Program, j: int, depth: int) -> None:
    """Compare, choose and take for the partial paths of j cities."""
    n, cities = program.n, program.cities
    deepest = j == depth - 1
    groups = list(permutations(cities, 1 if deepest else j))
    contests = {
        group: Contests(
            program, f"wins_{j}", group, {e: _cost(program, group, e, j, deepest) for e in _options(n, group)}
        )
        for group in groups
    }
    program.stage((unit for contest in contests.values() for unit in contest.units()), fills=(f"wins_{j}",))

    def choose() -> Iterator[Unit]:
        for path in permutations(cities, j):
            contest = contests[path[-1:] if deepest else path]
            for e in _options(n, path):
                rank, target = contest.rank(e, without=path[:-1]), program.at(f"plan_{j}", *path, e)
                yield from program.choose(rank, [target])

    def take() -> Iterator[Unit]:
        for path in permutations(cities, j):
            target = program.at(f"rest_{j}", *path) + (program.at("value", *path) if j == 1 else 0.0)
            contest = contests[path[-1:] if deepest else path]
            for e in _options(n, path):
                yield program.take(
                    contest.costs[e], program.one - program.at(f"plan_{j}", *path, e), target, arcs=depth - j
                )
        if j == 1:
            yield from first_arc_units(program)

    program.stage(choose(), fills=(f"plan_{j}",))
    program.stage(take(), fills=(f"rest_{j}", "value") if j == 1 else (f"rest_{j}",))


def _cost(program: Program, path: Label, e: int, j: int, deepest: bool) -> Vector:
    """Cost of going on from a path of j cities to e; home is allowed only when no city is left."""
    arc = program.at("distance", path[-1], e)
    if e == 0:
        return arc + program.ruled_out * program.left_at_least(j + 1)
    return (
        arc + program.ruled_out * program.at("visited", e) + (0.0 if deepest else program.at(f"rest_{j + 1}", *path, e))
    )


def first_arc_units(program: Program) -> Iterator[Unit]:
    """Add to `value` [a] the cost of going there from the current city, and the penalty if a is visited."""
    for a in program.cities:
        yield program.first_arc(a), program.at("value", a)
        yield program.at("visited", a), program.ruled_out * program.at("value", a)
