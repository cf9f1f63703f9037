"""Programs of ReLU units at the decode token: stages that compare, choose and add, written into a network.

All arithmetic happens at the decode token, on slots of the residual stream that are written once and never erased.
Costs are in units of `levels`, so that a distance lies in [0, 1]; u = 1 / levels is one unit of weight.

    compare   [y < x]           two units: 2/u * (relu(x - y - u/4) - relu(x - y - 3u/4)), for whole multiples x, y of u
    rank      of an option      how many options beat it; among equals the earlier one wins
    choose    [rank = k]        from [rank < m] = 2 relu(m - 1/4 - rank) - 2 relu(m - 3/4 - rank)
    take      sum_i [i chosen] x_i = sum_i relu(x_i - gate * (1 - chosen_i)) with a gate above all costs, which are >= 0
    lesser    min(x, y) = x - relu(x - y)

All steps saturate, so that small errors (rounding in a rotated stream, noisy weights) end where an option is chosen.
Outcomes and ranks stand in the stream in units of `TICK`.

Layer 0 (and further ones if heads are few) fetches what the programs read: slot `visited` [city] from one head that
attends to the tour tokens alike, slot `distance` [u, v] from one head for each u, which attends to u's city token.
The stages follow, each in as many layers as it needs. The last one fills slot `value` [city], a cost for every city;
ruled-out ones cost more than any path. Logits = -value, `sharpness` nats per unit of weight. City tokens run the same
layers, and nothing reads what they compute.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int64

from mesaprobe.models import TourGPT
from mesaprobe.zoo.compiled.blocks import Vector, blank_network, city_token, set_head, set_units
from mesaprobe.zoo.compiled.layout import Layout, stream_layout
from mesaprobe.zoo.compiled.soft_argmin import Scores
from mesaprobe.zoo.compiled.walking import Key

Label: TypeAlias = tuple[int, ...]
"""What one coordinate of a slot is about, e.g. the path (a, b)."""
Unit: TypeAlias = tuple[Vector, Vector]
"""What a hidden unit reads (its bias comes from slot `one`), and what it adds to the stream per unit of activation."""
TICK = 0.125
"""Size of one outcome in the stream. An outcome is the difference of two large numbers: at full size their rounding, in
a rotated stream, reaches the costs; much smaller, noise on the weights that read it reaches the choices."""


@dataclass(frozen=True)
class Place:
    """Where a quantity stands, at the decode token: `cache[hook][:, decode, coordinates[i]]` is about `labels[i]`.

    It is complete at `hook` and stays unchanged in all later layers.
    """

    hook: str
    coordinates: Int64[np.ndarray, " label"]
    labels: tuple[Label, ...]


class Program:
    """Collects the stages of a network; `network()` writes them down, `places()` says where what is.

    `arcs`: how many arcs the longest compared cost has, each penalised up to `penalties` times; what rules options out
    follows from them. `slots`: the labels of each slot of its own. `heads` per layer: fewer make smaller networks,
    whose matrix arrives later, row u in layer u // heads. `sharpness`: nats between values that differ by one unit of
    weight. With a `rule` the same stages compare paths whose later arcs all cost nothing, and the first arc costs the
    rule's key: a walking rule in the shell of a searcher.
    """

    def __init__(
        self,
        n: int,
        levels: int,
        *,
        arcs: int,
        slots: Mapping[str, Sequence[Label]],
        sharpness: float,
        heads: int,
        penalties: int = 1,
        rule: Key | None = None,
    ) -> None:
        self.n, self.levels, self.heads, self.cities = n, levels, heads, range(1, n)
        self.rule = rule
        self.logits_per_cost = Scores(n, levels, sharpness).nats
        self.ruled_out = arcs + 1.0
        """Penalty of what must not be chosen: more than any path of `arcs` arcs costs."""
        self._most_per_arc = 1.0 + penalties * self.ruled_out
        own: dict[str, Sequence[Label]] = {
            "visited_mean": [(c,) for c in self.cities],
            "visited": [(c,) for c in self.cities],
            "distance": [(u, v) for u in self.cities for v in range(n) if u != v],
            **slots,
            "value": [(c,) for c in self.cities],
        }
        self.layout: Layout = stream_layout(n, **{name: (len(labels),) for name, labels in own.items()})
        own |= {name: [(c,) for c in range(n)] for name in ("feature", "identity", "position")}
        self._labels = {name: tuple(labels) for name, labels in own.items()}
        self._index = {name: {label: i for i, label in enumerate(labels)} for name, labels in own.items()}
        self._stages: list[tuple[list[Unit], tuple[str, ...]]] = []
        self.one: Vector = self.layout.vector((self.layout["one"], 1.0))
        self.zero: Vector = self.layout.vector()
        self.stage(self._visited_units(), fills=("visited",))

    def at(self, slot: str, *label: int) -> Vector:
        """The direction of one coordinate of a slot; distances read as nothing where a rule stands in for search."""
        if slot == "distance" and self.rule is not None:
            return self.zero
        return self.layout.vector((self.layout[slot][self._index[slot][label]], 1.0))

    def first_arc(self, city: int) -> Vector:
        """What going to a city now costs: its distance, or the rule's key (shifted to be at least 0)."""
        rule = self.rule
        if rule is None:
            return self.at("feature", city)
        row = [self.layout["distance"][self._index["distance"][city, v]] for v in range(self.n) if v != city]
        return self.layout.vector(
            (self.layout["feature"][city], rule.own),
            (row[0], rule.depot),
            (np.array(row), rule.mean / (self.n - 1)),
            (self.layout["one"], rule.shift),
        )

    def count(self, slot: str, *label: int) -> Vector:
        """Reads a coordinate that counts comparisons."""
        return self.at(slot, *label) / TICK

    def left_at_most(self, count: int) -> Vector:
        """1 if at most `count` cities are unvisited, which the position tells."""
        return sum((self.at("position", t) for t in range(max(0, self.n - 1 - count), self.n)), self.zero)

    def left_at_least(self, count: int) -> Vector:
        """1 if at least `count` cities are unvisited."""
        return self.one - self.left_at_most(count - 1)

    def stage(self, units: Iterable[Unit], *, fills: Sequence[str]) -> None:
        """Units that may all work side by side, after those of the earlier stages; and which slots they complete."""
        self._stages.append((list(units), tuple(fills)))

    def compare(self, x: Vector, y: Vector, outcome: Vector) -> list[Unit]:
        """Count 1 in the direction `outcome` if y is less than x."""
        quarter = self.one / (4.0 * self.levels)
        counted = 2.0 * self.levels * TICK * outcome
        return [(x - y - quarter, counted), (x - y - 3.0 * quarter, -counted)]

    def rank(self, costs: Sequence[Vector], ranks: Sequence[Vector]) -> list[Unit]:
        """Count for every option those that beat it."""
        units = [(self.one, sum((i * rank for i, rank in enumerate(ranks)), self.zero) * TICK)]
        for i, j in itertools.combinations(range(len(costs)), 2):
            units += self.compare(costs[i], costs[j], ranks[i] - ranks[j])
        return units

    def choose(self, rank: Vector, targets: Sequence[Vector]) -> list[Unit]:
        """Add targets[k] if the rank is k."""
        units: list[Unit] = []
        for m, target in enumerate(targets, 1):
            below = 2.0 * (
                target - targets[m] if m < len(targets) else target
            )  # [rank = k] = [rank < k + 1] - [.. < k]
            units += [((m - 0.25) * self.one - rank, below), ((m - 0.75) * self.one - rank, -below)]
        return units

    def take(self, cost: Vector, misses: Vector, target: Vector, *, arcs: int) -> Unit:
        """Add the cost (of so many arcs, at least 0) to the target if `misses` is 0, nothing if it is 1 or more."""
        return cost - (arcs * self._most_per_arc + 1.0) * misses, target

    def lesser(self, x: Vector, y: Vector, target: Vector) -> list[Unit]:
        """Add min(x, y) to the target; both are at least 0."""
        return [(x, target), (x - y, -target)]

    def network(self) -> TourGPT:
        """The program as a network of ReLU units without normalisation."""
        width = self._width()
        layers = self._layers(width)
        model = blank_network(self.layout, self.n, n_layers=len(layers), n_heads=self.heads, d_mlp=width, act_fn="relu")
        self._set_heads(model)
        idle = (self.zero, self.zero)
        for layer, units in enumerate(layers):
            reads, writes = (np.stack(side) for side in zip(*units, *[idle] * (width - len(units)), strict=True))
            set_units(model, layer, 0, reads=reads, bias=0.0, writes=writes)
        answers = [2.0 * self.ruled_out * self.one, *(self.at("value", city) for city in self.cities)]
        with torch.no_grad():
            model.unembed.weight.copy_(torch.from_numpy(-self.logits_per_cost * np.stack(answers)))
        return model

    def places(self) -> dict[str, Place]:
        """Every slot that a stage fills, by name; `distance` too."""
        width, done = self._width(), -1
        hooks = {"distance": f"blocks.{(self.n - 1) // self.heads}.hook_resid_mid"}
        for units, fills in self._stages:
            done += -(-len(units) // width)
            hooks |= dict.fromkeys(fills, f"blocks.{done}.hook_resid_post")
        return {name: Place(hook, self.layout[name], self._labels[name]) for name, hook in hooks.items()}

    def _visited_units(self) -> Iterable[Unit]:
        """The head's mean is 0, or count / length >= 1 / n, of which 2 n times the mean, cut off at 1, makes 0 or 1."""
        for city in self.cities:
            amount = 2.0 * self.n * self.at("visited_mean", city)
            yield amount, self.at("visited", city)
            yield amount - self.one, -self.at("visited", city)

    def _set_heads(self, model: TourGPT) -> None:
        """Head 0 of layer 0 finds the visited cities; the following ones, `heads` a layer, the matrix row by row."""
        layout, tour = self.layout, self.layout.vector((self.layout["position"], 1.0))
        cities = layout["identity"][1:]
        set_head(model, 0, 0, matches=[(self.one, tour)], source=cities, target=layout["visited_mean"])
        for u in self.cities:
            layer, head = divmod(u, self.heads)
            others = [v for v in range(self.n) if v != u]
            rows = [layout["distance"][self._index["distance"][u, v]] for v in others]
            match = (self.one, city_token(layout, u))
            set_head(model, layer, head, matches=[match], source=layout["feature"][others], target=np.array(rows))

    def _width(self) -> int:
        """d_mlp: the width with the least layers x weights, among those that some stage fills to the last unit."""
        widths = {-(-len(units) // parts) for units, _ in self._stages for parts in range(1, 9)}

        def burden(width: int) -> int:
            layers = len(self._layers(width))
            return layers * layers * (2 * width + 4 * self.heads * self.n)

        return min(sorted(widths), key=burden)

    def _layers(self, width: int) -> list[list[Unit]]:
        starts = [(units, range(0, len(units), width)) for units, _ in self._stages]
        return [units[start : start + width] for units, firsts in starts for start in firsts]


class Contests:
    """Outcomes of all comparisons among labelled options, a coordinate of a slot for each pair.

    For options of which different ones are compared in different contexts. `labels_of(about, options)` are the labels
    of those coordinates, prefixed by what the contest is about.
    """

    def __init__(self, program: Program, slot: str, about: Label, costs: Mapping[int, Vector]) -> None:
        self._program, self._slot, self._about, self.costs = program, slot, about, dict(costs)

    @staticmethod
    def labels_of(about: Label, options: Iterable[int]) -> list[Label]:
        """(*about, i, j) for each pair of options in their order: `TICK` there means that j is cheaper than i."""
        return [(*about, i, j) for i, j in itertools.combinations(options, 2)]

    def units(self) -> list[Unit]:
        """Compare all pairs."""
        return [
            unit
            for i, j in itertools.combinations(self.costs, 2)
            for unit in self._program.compare(
                self.costs[i], self.costs[j], self._program.at(self._slot, *self._about, i, j)
            )
        ]

    def rank(self, option: int, *, without: Sequence[int] = ()) -> Vector:
        """Reads how many other options beat this one; the earlier one among equals."""
        order = [other for other in self.costs if other not in without]
        place = order.index(option)
        lost = [self._program.one - self._won(other, option) for other in order[:place]]
        lost += [self._won(option, other) for other in order[place + 1 :]]
        return sum(lost, self._program.zero)

    def _won(self, i: int, j: int) -> Vector:
        return self._program.count(self._slot, *self._about, i, j)
