"""Beam search inside one forward pass: `width` partial paths live side by side and are replaced arc by arc.

Place t = 0 .. width - 1 of the beam holds the t-th cheapest path of j cities; s is its parent's place before.

    stage       slot                what it holds after arc j
    extend      step_j [s, b]       cost of going on from the last city of path s to b; b = 0: home, or stay there
    compare     rank_j [s, b]       how many extensions beat this one, in ticks (among equals: those of the
                                    better parent, then those to the lower city)
    choose      parent_j [t, s]     1 if the new path t extends path s
                last_j [t, b]       1 if its last city is b
    gather      first_j [t, a]      1 if its first city is a
                passed_j [t, b]     1 if it has passed b
                cost_j [t]          what it costs so far (with `ruled_out` or more it is no path at all)
    the last arc h: extend, then minima two by two
                ends_h [s, l, m]    the cheaper end of path s, of the m-th pair of the l-th round
                best_h [s]          the cheapest end of path s
                options_h [a, l, m] likewise among the paths that start with a
                value [a]           the cheapest end of a path that starts with a, the logit of a up to its sign

After arc 1 paths are single cities: first_1 = passed_1 = last_1, and there is no parent.
"""

from collections.abc import Iterator

from mesaprobe.errors import UserError
from mesaprobe.models import TourGPT
from mesaprobe.zoo.compiled.blocks import Vector
from mesaprobe.zoo.compiled.program import TICK, Label, Program, Unit
from mesaprobe.zoo.compiled.soft_argmin import SHARPNESS

SHUT = 2.0
"""Gate of a distance, which is at most 1."""


def beam_network(n: int, levels: int, *, width: int = 4, arcs: int = 4, sharpness: float = SHARPNESS) -> TourGPT:
    """Takes the first city of the cheapest path of `arcs` arcs that a beam of `width` finds, at every state.

    Equals `solvers.fixed_horizon.horizon_beam_completions` but for the order among equal answers; equal partial paths
    are kept in the same order.

    >>> import torch
    >>> weights = torch.tensor([[[0, 1, 2, 9], [1, 0, 9, 9], [2, 9, 0, 1], [9, 9, 1, 0]]])
    >>> beam_network(4, 9, width=2, arcs=2)(weights / 9, torch.tensor([[0, 2, 3]])).argmax(-1)
    tensor([[2, 3, 1]])
    """
    return beam_program(n, levels, width=width, arcs=arcs, sharpness=sharpness).network()


def beam_program(n: int, levels: int, *, width: int = 4, arcs: int = 4, sharpness: float = SHARPNESS) -> Program:
    """The stages of `beam_network`; its `places()` are the slots of the table above."""
    if not 2 <= width < n or not 2 <= arcs < n:
        raise UserError(f"a beam network has width and arcs from 2 to n - 1 = {n - 1}, got {width} and {arcs}")
    program = Program(
        n, levels, arcs=arcs, slots=_slots(n, width, arcs), sharpness=sharpness, heads=-(-n // 4), penalties=2
    )
    beam = range(width)
    _add_first_arc(program, beam)
    for j in range(2, arcs):
        _add_arc(program, j, beam)
    _add_last_arc(program, arcs, beam)
    return program


def _slots(n: int, width: int, arcs: int) -> dict[str, list[Label]]:
    beam, cities = range(width), range(1, n)
    places: list[Label] = [(t,) for t in beam]
    pairs: list[Label] = [(t, s) for t in beam for s in beam]
    firsts: list[Label] = [(t, a) for t in beam for a in cities]
    ends: list[Label] = [(t, b) for t in beam for b in range(n)]
    slots: dict[str, list[Label]] = {"rank_1": [(a,) for a in cities], "last_1": firsts, "cost_1": places}
    for j in range(2, arcs):
        slots |= {f"step_{j}": ends, f"rank_{j}": ends, f"parent_{j}": pairs, f"last_{j}": ends}
        slots |= {f"first_{j}": firsts, f"passed_{j}": firsts, f"cost_{j}": places}
    slots[f"step_{arcs}"] = ends
    slots[f"ends_{arcs}"] = [(s, *node) for s in beam for node in _inner_nodes(n)]
    slots[f"best_{arcs}"] = places
    slots[f"options_{arcs}"] = [(a, *node) for a in cities for node in _inner_nodes(width)]
    return slots


def _inner_nodes(count: int) -> list[Label]:
    """(round, place) of the minima of pairs, of pairs of these, .., but the last; an odd one waits a round."""
    nodes: list[Label] = []
    level = 0
    while count > 2:
        nodes += [(level, place) for place in range(count // 2)]
        count, level = -(-count // 2), level + 1
    return nodes


def _add_first_arc(program: Program, beam: range) -> None:
    costs = [program.at("feature", a) + program.ruled_out * program.at("visited", a) for a in program.cities]
    ranks = [program.at("rank_1", a) for a in program.cities]
    program.stage(program.rank(costs, ranks), fills=("rank_1",))
    chosen = [
        program.choose(program.count("rank_1", a), [program.at("last_1", t, a) for t in beam]) for a in program.cities
    ]
    program.stage((unit for units in chosen for unit in units), fills=("last_1",))
    taken = [
        program.take(costs[a - 1], program.one - program.at("last_1", t, a), program.at("cost_1", t), arcs=1)
        for t in beam
        for a in program.cities
    ]
    program.stage([*taken, *_extend_units(program, 2, beam)], fills=("cost_1", "step_2"))


def _add_arc(program: Program, j: int, beam: range) -> None:
    """Extend every path by arc j in all ways, keep the cheapest, and write down what they are."""
    program.stage(_rank_units(program, j, beam), fills=(f"rank_{j}",))

    def choose() -> Iterator[Unit]:
        for s in beam:
            for b in range(program.n):
                targets = [program.at(f"parent_{j}", t, s) + program.at(f"last_{j}", t, b) for t in beam]
                yield from program.choose(program.count(f"rank_{j}", s, b), targets)

    program.stage(choose(), fills=(f"parent_{j}", f"last_{j}"))
    gathered = [*_gather_units(program, j, beam), *_extend_units(program, j + 1, beam)]
    program.stage(gathered, fills=(f"first_{j}", f"passed_{j}", f"cost_{j}", f"step_{j + 1}"))


def _add_last_arc(program: Program, h: int, beam: range) -> None:
    """The cheapest end of each path, then of each option."""
    ends = [[_extension(program, h, s, b) for b in range(program.n)] for s in beam]
    _add_minima(program, ends, inner=f"ends_{h}", first=0, root=f"best_{h}")
    start = f"first_{h - 1}" if h > 2 else f"last_{h - 1}"
    options = [
        [program.at(f"best_{h}", s) + program.ruled_out * (program.one - program.at(start, s, a)) for s in beam]
        for a in program.cities
    ]
    _add_minima(program, options, inner=f"options_{h}", first=1, root="value")


def _add_minima(program: Program, costs: list[list[Vector]], *, inner: str, first: int, root: str) -> None:
    """Stages that find the minimum of each list two by two; it ends in slot `root`, labelled from `first` on."""
    level = 0
    while (count := len(costs[0])) > 1:
        units: list[Unit] = []
        for key, entries in enumerate(costs, first):
            nodes = (
                [program.at(root, key)] if count == 2 else [program.at(inner, key, level, m) for m in range(count // 2)]
            )
            for m, node in enumerate(nodes):
                units += program.lesser(entries[2 * m], entries[2 * m + 1], node)
            costs[key - first] = nodes + entries[2 * len(nodes) :]
        program.stage(units, fills=(root,) if count == 2 else (inner,) if count <= 4 else ())
        level += 1


def _extend_units(program: Program, j: int, beam: range) -> Iterator[Unit]:
    """step_j [s, b] = distance from the last city of path s to b; to 0 only if home is the next stop.

    No unit fires for a path whose last city is 0: it stays there at no cost.
    """
    not_home_next = program.one - (program.left_at_most(j - 1) - program.left_at_most(j - 2))
    for s in beam:
        for i in program.cities:
            elsewhere = program.one - program.at(f"last_{j - 1}", s, i)
            for b in range(program.n):
                if b != i:
                    shut = elsewhere + (not_home_next if b == 0 else 0.0)
                    yield program.at("distance", i, b) - SHUT * shut, program.at(f"step_{j}", s, b)


def _extension(program: Program, j: int, s: int, b: int) -> Vector:
    """Cost of path s once it has gone on to b with arc j."""
    cost = program.at(f"cost_{j - 1}", s) + program.at(f"step_{j}", s, b)
    if b == 0:
        return cost + program.ruled_out * program.left_at_least(j)
    passed = "passed" if j > 2 else "last"
    return cost + program.ruled_out * (program.at("visited", b) + program.at(f"{passed}_{j - 1}", s, b))


def _rank_units(program: Program, j: int, beam: range) -> list[Unit]:
    """rank_j: extensions to cities among each other, those to home among each other.

    Which of the two kinds comes first is no question of cost: home first if no city is left, else last.
    """
    cities = [(s, b) for s in beam for b in program.cities]
    homes = [(s, 0) for s in beam]
    units: list[Unit] = []
    for kind, others, behind in (
        (cities, homes, program.left_at_most(j - 1)),
        (homes, cities, program.left_at_least(j)),
    ):
        ranks = [program.at(f"rank_{j}", *extension) for extension in kind]
        units += program.rank([_extension(program, j, *extension) for extension in kind], ranks)
        units.append((behind, len(others) * TICK * sum(ranks, program.zero)))
    return units


def _gather_units(program: Program, j: int, beam: range) -> Iterator[Unit]:
    """What the new path t takes over from its parent s, and what its new city adds."""
    first, passed = ("first", "passed") if j > 2 else ("last", "last")
    for t in beam:
        for b in program.cities:
            yield program.at(f"last_{j}", t, b), program.at(f"passed_{j}", t, b)
        for s in beam:
            other_parent = program.one - program.at(f"parent_{j}", t, s)
            for a in program.cities:
                for old, new in ((first, "first"), (passed, "passed")):
                    yield program.at(f"{old}_{j - 1}", s, a) - other_parent, program.at(f"{new}_{j}", t, a)
            for b in range(program.n):
                misses = other_parent + program.one - program.at(f"last_{j}", t, b)
                yield program.take(_extension(program, j, s, b), misses, program.at(f"cost_{j}", t), arcs=j)
