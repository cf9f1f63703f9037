"""The red team's members: networks built to be misjudged, one each way (method.md section 6.3). No fit sees them.

R1  a walker that compares nothing, and that lines E7c, E9 and E10b take for an enumerator
R2  a look-ahead over all paths of three arcs, which lines E1 to E10 take for a savings rule

Both labels are true by construction, and certified: each answers as its own formula in 100 % of states, at home and out
of distribution. R1's logits are besides affine in the matrix to the last bit, which no minimum over completions is; nor
does it judge an option by one completion's cost, since every option likes as many far edges as it dislikes. The rule
nearest to R2 (`sequential_savings`) agrees with it in 77.8 % of states: in the others looking ahead decides.

Figures: budget quick, seed 1, against records of 10 families of searchers and 14 of heuristics. They are of the day of
the attack; `mesaprobe zoo table` has those of the present zoo.

R1, score +2.05 (the best heuristic of the zoo, the edge scorer, held out: +2.12; median searcher +1.4). Gates G1 to G6
all hold. It leans to search with p under heuristic .133 (LOW_POWER). Only the edge scorer keeps the word SEARCH from
it: by the zoo without that family R1 scores +2.53, p under heuristic .071, and is called SEARCH.

    E7c .90 (.81 to .99), p = .005   units carry a tour's cost beside what they say: the overlap is the passenger's, and
                                     the unit's removal takes both away, so that "selectivity" is the carrier's.
                                     .01 without the passenger; .99 for nearest neighbour with one. Gate G4 holds.
    E9  .45 (.16 to .69), p = .004   walkers repeat themselves: the edges that the habit will use are the ones that the
                                     superstition reads, whatever its sign. Gate G5 holds.
    E2  .08 (.04 to .12), p = .001   a liking for remote cities is right where rules are wrong, and local trees do not
                                     learn it from choices that habit and superstition disturb. Gate G6 holds.
    E1  -.11 (-.13 to -.09)          nothing in the library fits it well, so that no rule fits much better than a
                                     search does: close to 0 ranks above most heuristics.
    E10b .72                         as high as anything in the zoo, of a network of two layers whose second one undoes
                                     what the first one carried: cancelling looks like reverting.
    E7, E5, E6 and E4 are not fooled (at their nulls). G4 asks for E7 *or* E7c, so that E7's answer did not count.

What helped: E7c now also lengthens a unit's later edges *in the input* and asks that the option's lead goes with them
(`arrival`). R1's E7c is then -.16 (-.57 to .23) with p = .76, G4 fails, and the word is no longer SEARCH; enumerators
keep .73 to .90 with p = .005. E10b is now held against flips for the worse, which revert as well: .02 (p = .41), and R1
leans nowhere. What else would: E9 should use the sign of the effect, since R1's superstition is dealt
at random, and E1 should rank what fits well, not what fits no worse: R1 is not *like* any search.

R2, score -0.87; -1.13 as the error table sees it, without its family and without the algorithms of look-ahead (nearest
neighbour: -1.03). It leans to heuristic with p under search .18, and .10 in the table's view: there only gate G7, which
fails for lack of power, keeps the word HEURISTIC from it.

    E1  -.42 (-.45 to -.39)          Clarke and Wright's savings tell the tour cost in another order, and a discount of
                                     1/2 makes of that an objective which a one-step rule nearly answers; the library
                                     has no discounted searches and no other objectives.
    E2, E2b -.01, E3 -.02            so it is seldom right where looking ahead on the tour cost would be.
    E7, E7c, E4, E9 .00              it shows its choice alone. One unit of weight seldom flips a choice, and the search
                                     that E7 holds it to is not its own: plans and values stand there for every option,
                                     in coordinates of their own, and are never exchanged where it would matter.
    E10b .12 (.09 to .16)            the one line that sees something.

What would help: discounted and shaped horizons in the library; finite differences as large as it takes to flip a
choice; interchange on pairs mined from the network's own choices, without a model of what it minimises.

A doubt about labels, met on the way: look-ahead 2 (labelled search) passes the certificate of local scorers (labelled
heuristic) in all checks: d(c, v) + min d(v, .) reads the rows of c and v alone. A rule that takes this minimum over all
cities, visited or not, has E1 = .00 and would be called either by taste; R1 was kept affine to stay out of that.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from mesaprobe.models import TourGPT
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, ProblemConfig, random_tours
from mesaprobe.solvers.constructive import step_weights, unvisited
from mesaprobe.zoo.certificates import BRANCH, STRUCTURE_INSTANCES, Certificate, certify
from mesaprobe.zoo.compiled.blocks import (
    Vector,
    blank_network,
    set_distance_heads,
    set_prefix_heads,
    set_units,
    visited,
)
from mesaprobe.zoo.compiled.layout import Layout, stream_layout
from mesaprobe.zoo.compiled.program import Label, Program, Unit
from mesaprobe.zoo.compiled.soft_argmin import SHARPNESS
from mesaprobe.zoo.compiled.truncated import add_lookahead, lookahead_slots
from mesaprobe.zoo.members import ZOO, Compiled, Member
from mesaprobe.zoo.reference import Reference, least

PROBLEM = ProblemConfig(n=8)
N, LEVELS = PROBLEM.n, PROBLEM.levels

# ---- R1 -----------------------------------------------------------------------------------------------------------

LOGITS_PER_COST = 8.0
"""Nats per `levels` units of weight. All numbers of R1 are multiples of a power of two, so that its sums are exact."""
LOAD = 4.0
"""Of its passenger in a carrier, so that little of what drives the unit is of use."""
OTHER_CITY = 64.0
"""Takes a unit out of play unless the tour stands at the unit's city: more than any sum of costs."""


@dataclass(frozen=True)
class Habit:
    """A walking rule of fixed likes: from c to the unvisited city v of least

        d(c, v) - remote * sum of v's weights / 8 - habit * [v = c + 1] + superstition * sum over u of +-d(u, u + 1)

    with cities counted modulo n, weights as fractions of `levels`, and the signs dealt once for every v (0 where the
    edge {u, u + 1} touches v, half of the others +1). City order is random, so neither the habit nor the superstition
    is of any use.
    """

    remote: float
    habit: float
    superstition: float
    seed: int = 0

    def signs(self, n: int) -> Int64[np.ndarray, "v u"]:
        """+1, -1 or 0 for option v and edge {u, u + 1}: as many of each as can be."""
        v, u = np.indices((n, n))
        far = (u != v) & ((u + 1) % n != v)
        likes = np.tile(2 * (np.arange(n - 2) % 2) - 1, (n, 1))
        found = np.zeros((n, n), dtype=np.int64)
        found[far] = np.random.default_rng(self.seed).permuted(likes, axis=1).ravel()
        return found

    def keys(
        self, instances: Instances, tours: Int64[np.ndarray, "batch n"]
    ) -> Float64[np.ndarray, "batch decision n"]:
        """What is minimised, at the n - 1 decisions along the tours."""
        weights, n = instances.weights / instances.problem.config.levels, instances.problem.n
        cities = np.arange(n)
        far = weights[:, cities, (cities + 1) % n] @ self.signs(n).T
        likes = self.superstition * far - self.remote / 8 * weights.sum(axis=2)
        follows = (tours[:, :-1, None] + 1) % n == cities
        return step_weights(weights, tours) + likes[:, None] - self.habit * follows


def habitual_walker(n: int, levels: int, habit: Habit) -> TourGPT:
    """Two layers of ReLU units, one pair of units for each arc (c, v): a carrier and a counter.

        layer 0, carrier    constant - key(c, v) - 4 * cost of a fixed tour 0, c, v, ..  } if the tour stands at c,
        layer 1, counter               4 * the same tour's cost                          } else 0

    Both add to `answer` [v], where the tour's cost cancels to the last bit: what is left is the key.

    >>> import torch
    >>> weights = torch.tensor([[[0, 9, 3, 5], [9, 0, 2, 4], [3, 2, 0, 7], [5, 4, 7, 0]]])
    >>> habitual_walker(4, 8, Habit(0, 0, 0))(weights / 8, torch.tensor([[0, 2, 1]])).argmax(-1)
    tensor([[2, 1, 3]])
    """
    del levels  # features are fractions of them already
    layout = stream_layout(n, prefix=(n, n), distance=(n, n), answer=(n,))
    arcs = [(c, v) for c in range(n) for v in range(1, n) if v != c]
    model = blank_network(layout, n, n_layers=2, n_heads=(n - 1) * (n + 1), d_mlp=len(arcs), act_fn="relu")
    set_distance_heads(model, layout, 0, set_prefix_heads(model, layout, 0, 0))
    here = np.stack([layout.vector((layout["identity"][c], OTHER_CITY)) for c, _ in arcs])
    passengers = LOAD * np.stack([_tour_cost(layout, passenger(n, c, v)) for c, v in arcs])
    keys = np.stack([_key(layout, habit, n, c, v) for c, v in arcs])
    writes = np.stack([layout.vector((layout["answer"][v], 1.0)) for _, v in arcs])
    constant = (LOAD + 2.0) * n
    likes = np.array([habit.habit * (v == (c + 1) % n) for c, v in arcs])
    set_units(model, 0, 0, reads=here - keys - passengers, bias=constant + likes - OTHER_CITY, writes=writes)
    set_units(model, 1, 0, reads=here + passengers, bias=-OTHER_CITY, writes=writes)
    with torch.no_grad():
        for city in range(n):
            reads = layout.vector((layout["answer"][city], 1.0)) - 2.0 * constant * visited(layout, city)
            model.unembed.weight[city] = torch.from_numpy(LOGITS_PER_COST * reads)
    return model


def passenger(n: int, c: int, v: int) -> Int64[np.ndarray, " n"]:
    """The tour whose cost the units of arc (c, v) carry: city 0, c and v, then the others in order."""
    first = [0, *dict.fromkeys(city for city in (c, v) if city)]
    return np.array([*first, *(city for city in range(1, n) if city not in first)])


def _tour_cost(layout: Layout, tour: Int64[np.ndarray, " n"]) -> Vector:
    return layout.vector((layout["distance"][tour, np.roll(tour, -1)], 1.0))


def _key(layout: Layout, habit: Habit, n: int, c: int, v: int) -> Vector:
    """The key but for the habit, which no weight has a part in."""
    distance, u = layout["distance"], np.arange(n)
    signs = habit.signs(n)[v]
    return layout.vector(
        (distance[c, v], 1.0),
        (distance[v, u != v], -habit.remote / 8),
        (distance[u, (u + 1) % n][signs > 0], habit.superstition),
        (distance[u, (u + 1) % n][signs < 0], -habit.superstition),
    )


@dataclass(frozen=True)
class Passengers:
    """What R1 holds without using it: costs of tours. Its certificate says that it follows its rule and, bit by bit,
    that its logits are an affine function of the matrix at every state, which no comparison of completions is."""

    def certify(self, subject: Subject, reference: Reference, *, seed: int = 0) -> Certificate:
        """Agreement with the rule as of any compiled member, and `affine` everywhere."""
        behaviour = certify(subject, reference, "construction", seed=seed)
        rng = np.random.default_rng([BRANCH, seed, 77])
        holds = affine(subject, subject.problem.draw(STRUCTURE_INSTANCES, rng), rng)
        return dataclasses.replace(
            behaviour,
            kind="decoy",
            passed=behaviour.passed and bool(holds.all()),
            why=f"{behaviour.why}; its logits are affine in the matrix in {holds.mean():.2%} of {holds.size:,} checks "
            "(all of them)",
        )


def affine(subject: Subject, instances: Instances, rng: np.random.Generator) -> Bool[np.ndarray, "batch decision n"]:
    """Whether f(A) + f(B) = f(A') + f(B') to the last bit for the logits f of every city, at the n - 1 states along
    random tours, where A' and B' are A and B with a random half of the entries exchanged.

    True everywhere of an affine f. A minimum over completions, or over anything else that is read of the matrix, breaks
    it. For problems whose features are the weights (`matrix`).
    """
    problem, n = instances.problem, instances.problem.n
    others = problem.draw(len(instances), rng)
    taken = np.triu(rng.random(instances.weights.shape) < 0.5, 1)
    taken |= taken.transpose(0, 2, 1)
    prefixes = torch.from_numpy(random_tours(len(instances), n, rng)[:, :-1])

    def logits(weights: np.ndarray) -> np.ndarray:
        features = torch.from_numpy(Instances(problem, weights).features)
        return subject.logits(features, prefixes).double().numpy()

    a, b = instances.weights, others.weights
    mixed = np.where(taken, b, a), np.where(taken, a, b)
    return logits(a) + logits(b) == logits(mixed[0]) + logits(mixed[1])


# ---- R2 -----------------------------------------------------------------------------------------------------------

DEPTH = 3
DISCOUNT = 0.5
"""What an arc weighs less than the one before it: a power of 1/2, so that values stay multiples of one."""
HARD_LOGITS = 16.0
"""Of the city that the search has chosen; all other logits are lower by this, however close their values were."""


def discounted_savings(
    instances: Instances, tours: Int64[np.ndarray, "batch n"]
) -> Float64[np.ndarray, "batch decision n"]:
    """For each free city the least cost of the next `DEPTH` arcs that go there first, arc k weighing `DISCOUNT`^k.

    An arc u, v costs what Clarke and Wright's savings leave of it, w(u, v) - w(0, v) (fractions of `levels`). Over a
    whole tour the w(0, v) add up to the same for all: undiscounted, this is the tour cost told in another order.
    """
    weights = instances.weights / instances.problem.config.levels
    arcs, free = weights - weights[:, :1, :], unvisited(tours)
    first = step_weights(weights, tours) - weights[:, :1, :]
    ways = [_ways(arcs, free[:, decision], DEPTH - 1) for decision in range(free.shape[1])]
    return first + DISCOUNT * np.stack(ways, axis=1)


def _ways(
    arcs: Float64[np.ndarray, "batch n n"], free: Bool[np.ndarray, "batch n"], depth: int
) -> Float64[np.ndarray, "batch n"]:
    """Least discounted cost of `depth` arcs on from each city through other free ones; home where none is left."""
    found = np.zeros(free.shape)
    if depth == 0:
        return found
    for city in range(1, free.shape[1]):
        left = free.copy()
        left[:, city] = False
        on = arcs[:, city] + DISCOUNT * _ways(arcs, left, depth - 1)
        found[:, city] = np.where(left.any(axis=1), np.where(left, on, np.inf).min(axis=1), arcs[:, city, 0])
    return found


class SavingsProgram(Program):
    """A program whose arcs cost 1 + w(u, v) - w(0, v), between 0 and 2, each weighing `DISCOUNT` of the one before, and
    that shows its choice alone."""

    def __init__(self, n: int, levels: int, depth: int) -> None:
        cities: list[Label] = [(c,) for c in range(1, n)]
        slots = {**lookahead_slots(n, depth), "rank": cities, "choice": cities}
        finest = int(levels / DISCOUNT ** (depth - 1))  # values are multiples of 1 / finest
        super().__init__(n, finest, arcs=2 * depth, slots=slots, sharpness=SHARPNESS, heads=n)
        self._most_per_arc = 2.0 + self.ruled_out

    def at(self, slot: str, *label: int) -> Vector:
        """A coordinate; a distance reads as what the arc costs."""
        found = super().at(slot, *label)
        return found + self.one - self._home(label[1]) if slot == "distance" else found

    def first_arc(self, city: int) -> Vector:
        """What going to a city now costs."""
        return super().first_arc(city) + self.one - self._home(city)

    def take(self, cost: Vector, misses: Vector, target: Vector, *, arcs: int) -> Unit:
        """What is passed up is discounted once."""
        return super().take(cost, misses, DISCOUNT * target, arcs=arcs)

    def _home(self, city: int) -> Vector:
        return super().at("distance", city, 0) if city else self.zero

    def add_choice(self) -> None:
        """Compare the values, and mark the least (the lowest city among equals)."""
        values, ranks = ([self.at(slot, c) for c in self.cities] for slot in ("value", "rank"))

        def choose() -> Iterator[Unit]:
            for c in self.cities:
                yield from self.choose(self.count("rank", c), [self.at("choice", c)])

        self.stage(self.rank(values, ranks), fills=("rank",))
        self.stage(choose(), fills=("choice",))

    def network(self) -> TourGPT:
        """The program as a network; logits are its choice."""
        model = super().network()
        answers = [self.zero, *(self.at("choice", city) for city in self.cities)]
        with torch.no_grad():
            model.unembed.weight.copy_(torch.from_numpy(HARD_LOGITS * np.stack(answers)))
        return model


def savings_lookahead(n: int, levels: int, depth: int = DEPTH) -> TourGPT:
    """Takes the city that starts the cheapest next `depth` arcs, in discounted savings, and says nothing of the others.

    >>> weights = torch.tensor([[[0, 1, 2, 9, 4], [1, 0, 9, 9, 3], [2, 9, 0, 1, 5], [9, 9, 1, 0, 2], [4, 3, 5, 2, 0]]])
    >>> savings_lookahead(5, 9)(weights / 9, torch.tensor([[0, 1, 4]])).argmax(-1)
    tensor([[2, 4, 3]])
    """
    program = SavingsProgram(n, levels, depth)
    add_lookahead(program, depth)
    program.add_choice()
    return program.network()


HABIT = Habit(remote=0.5, habit=0.25, superstition=0.1875)

ZOO.add(
    "R1",
    Member(
        name="R1",
        family="habitual_walker",
        role="decoy",
        degree=1,
        mechanism="walks by distance, a habit and superstitions; its units carry costs of tours that cancel",
        recipe=Compiled(lambda: habitual_walker(N, LEVELS, HABIT)),
        reference=least(HABIT.keys),
        held=Passengers(),
    ),
)
ZOO.add(
    "R2",
    Member(
        name="R2",
        family="lookahead",
        role="search",
        degree=3,
        mechanism="the first city of the 3 next arcs of least cost in discounted savings, by comparing all paths; "
        "it shows its choice alone",
        recipe=Compiled(lambda: savings_lookahead(N, LEVELS)),
        reference=least(discounted_savings),
        disguise="savings",
    ),
)
