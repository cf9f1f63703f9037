"""Layerwise dynamic programming: value iteration on walks over the unvisited cities (P5 of method.md section 6.1).

    f_0(i) = w(i, 0),   f_k(i) = min over unvisited j != i of w(i, j) + f_(k-1)(j),   value(a) = w(current, a) + f_K(a)

    stage       slot                what it holds
    compare k   rank_k [i, j]       how many ways on from i beat going to j, in ticks; k - 1 arcs and home follow
    choose k    plan_k [m, i, j]    1 if j is the best (m = 0) or second best (m = 1) city to go to from i
    take k      rest_k [p, i]       f_k(i) for a walk that does not go straight back to p; p = 0 forbids nothing
    take K      value [a]           w(current, a) + rest_K [0, a], the logit of a up to its sign

The second best is needed where the best would be a return. With `two_cycles` nothing is forbidden: m = p = 0 only.
A state with `left` unvisited cities stops at k = left - 1, so that no walk is longer than the rest of the tour: from
there on rest_k is carried over.
"""

from collections.abc import Iterator

from mesaprobe.errors import UserError
from mesaprobe.models import TourGPT
from mesaprobe.zoo.compiled.blocks import Vector
from mesaprobe.zoo.compiled.program import Label, Program, Unit
from mesaprobe.zoo.compiled.soft_argmin import SHARPNESS
from mesaprobe.zoo.compiled.truncated import first_arc_units
from mesaprobe.zoo.compiled.walking import Key


def value_iteration_network(
    n: int,
    levels: int,
    iterations: int,
    *,
    two_cycles: bool = True,
    sharpness: float = SHARPNESS,
    rule: Key | None = None,
) -> TourGPT:
    """Takes a city of least value after `iterations` >= 1, at every state; without `two_cycles` no walk goes i, j, i.

    Equals `solvers.fixed_horizon.walk_completions` but for the order among equals. With a `rule` the same network
    walks by it (`Program`).

    >>> import torch
    >>> weights = torch.tensor([[[0, 1, 2, 9], [1, 0, 9, 9], [2, 9, 0, 1], [9, 9, 1, 0]]])
    >>> value_iteration_network(4, 9, 2)(weights / 9, torch.tensor([[0, 2, 3]])).argmax(-1)
    tensor([[2, 3, 1]])
    """
    program = value_iteration_program(n, levels, iterations, two_cycles=two_cycles, sharpness=sharpness, rule=rule)
    return program.network()


def value_iteration_program(
    n: int,
    levels: int,
    iterations: int,
    *,
    two_cycles: bool = True,
    sharpness: float = SHARPNESS,
    rule: Key | None = None,
) -> Program:
    """The stages of `value_iteration_network`; its `places()` are the slots of the table above."""
    if iterations < 1 or n < 4:
        raise UserError(f"value iteration takes 1 iteration or more and 4 cities or more, got {iterations} and {n}")
    slots: dict[str, list[Label]] = {}
    for k in range(1, iterations + 1):
        forgetful = two_cycles or k == iterations  # the values need no more than p = 0
        arcs: list[Label] = [(i, j) for i in range(1, n) for j in _following(n, i)]
        slots[f"rank_{k}"] = arcs
        slots[f"plan_{k}"] = [(m, *arc) for m in range(1 if forgetful else 2) for arc in arcs]
        slots[f"rest_{k}"] = [(p, i) for p in range(1 if forgetful else n) for i in range(1, n) if i != p]
    program = Program(n, levels, arcs=iterations + 2, slots=slots, sharpness=sharpness, heads=n, rule=rule)
    for k in range(1, iterations + 1):
        _add_iteration(program, k, two_cycles=two_cycles, last=k == iterations)
    return program


def _following(n: int, i: int) -> list[int]:
    return [j for j in range(1, n) if j != i]


def _add_iteration(program: Program, k: int, *, two_cycles: bool, last: bool) -> None:
    n = program.n
    costs = {(i, j): _cost(program, k, i, j, two_cycles) for i in program.cities for j in _following(n, i)}

    def compare() -> Iterator[Unit]:
        for i in program.cities:
            ways = [(i, j) for j in _following(n, i)]
            yield from program.rank([costs[way] for way in ways], [program.at(f"rank_{k}", *way) for way in ways])

    def choose() -> Iterator[Unit]:
        for way in costs:
            plans = [program.at(f"plan_{k}", m, *way) for m in range(1 if two_cycles or last else 2)]
            yield from program.choose(program.count(f"rank_{k}", *way), plans)

    def take() -> Iterator[Unit]:
        for p in range(1 if two_cycles or last else n):
            for i in program.cities:
                if i != p:
                    target = program.at(f"rest_{k}", p, i) + (program.at("value", i) if last else 0.0)
                    yield from _take_units(program, costs, k, p, i, target)
        if last:
            yield from first_arc_units(program)

    program.stage(compare(), fills=(f"rank_{k}",))
    program.stage(choose(), fills=(f"plan_{k}",))
    program.stage(take(), fills=(f"rest_{k}", "value") if last else (f"rest_{k}",))


def _take_units(
    program: Program, costs: dict[tuple[int, int], Vector], k: int, p: int, i: int, target: Vector
) -> Iterator[Unit]:
    """rest_k [p, i]: the best way on but to p if the walk still may go k arcs, else rest_(k-1)."""
    too_long = program.left_at_most(k)
    for j in _following(program.n, i):
        if j == p:
            continue
        not_best = program.one - program.at(f"plan_{k}", 0, i, j)
        yield program.take(costs[i, j], not_best + too_long, target, arcs=k + 1)
        if p:
            not_second = program.one - program.at(f"plan_{k}", 1, i, j)
            best_is_free = program.one - program.at(f"plan_{k}", 0, i, p)
            yield program.take(costs[i, j], not_second + best_is_free + too_long, target, arcs=k + 1)
    yield program.take(_rest(program, k - 1, p, i), program.left_at_least(k + 1), target, arcs=k)


def _rest(program: Program, k: int, p: int, i: int) -> Vector:
    return program.at(f"rest_{k}", p, i) if k else program.at("distance", i, 0)


def _cost(program: Program, k: int, i: int, j: int, two_cycles: bool) -> Vector:
    """Cost of going from i to j with k - 1 arcs and home to follow."""
    rest = _rest(program, k - 1, 0 if two_cycles else i, j)
    return program.at("distance", i, j) + rest + program.ruled_out * program.at("visited", j)
