"""The miner: draw states, search each for an edit, keep the pairs that no heuristic and no imitator notices."""

from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.pairs.criteria import PairCriteria
from mesaprobe.labels.pairs.edits import Edits, irrelevant_edits, relevant_edits
from mesaprobe.labels.pairs.invisible import Imitator, heuristic_choices, heuristics_keep, imitator_keeps
from mesaprobe.labels.pairs.moves import irrelevant_moves, relevant_moves
from mesaprobe.labels.pairs.pairs import CounterfactualPairs, MinedPairs, PairYield
from mesaprobe.labels.pairs.states import States, far_cities, free_cities, optimum_of, prefix_costs
from mesaprobe.problems import Problem
from mesaprobe.solvers.exact.held_karp import optimal_rollouts

STATES_PER_ROUND = 2048
"""Fixed, so that asking for more pairs gives the same first ones."""

MAX_STATES_PER_PAIR = 500_000
"""The miner gives up when it keeps fewer than one pair in so many states."""


def mine_pairs(
    problem: Problem,
    count: int,
    rng: np.random.Generator,
    criteria: PairCriteria | None = None,
    imitator: Imitator | None = None,
) -> MinedPairs:
    """`count` >= 1 counterfactual pairs on freshly drawn instances, at most one per instance (method.md E3).

    For each instance a prefix is cut from one of its optimal tours (ties at random), at a length drawn from
    `criteria.lengths`. Raises UserError if the criteria leave no state, or almost no pair.

    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> mined = mine_pairs(make_problem(ProblemConfig(n=8)), 10, np.random.default_rng(0))
    >>> len(mined.pairs), bool((mined.pairs.old_optimal & mined.pairs.new_optimal).any())
    (10, False)
    """
    criteria = criteria or PairCriteria()
    if count < 1:
        raise UserError(f"the number of pairs must be at least 1, got {count}")
    if not problem.planar and problem.config.levels < 2:
        raise UserError("with problem.levels = 1 no entry can be changed; pairs need at least 2 levels")
    parts: list[CounterfactualPairs] = []
    found = PairYield()
    while found.kept < count:
        part, outcome = _round(problem, rng, criteria, imitator)
        parts.append(part)
        found += outcome
        if found.tried > MAX_STATES_PER_PAIR * max(found.kept, 1):
            raise UserError(
                f"the pair criteria keep almost nothing ({found.kept} of {found.tried} states of {problem.family} "
                f"with n = {problem.n}); lower the margin or the number of heuristics"
            )
    return MinedPairs(CounterfactualPairs.concatenate(parts)[:count], found)


class _Stage(IntEnum):
    """The criterion that stopped a state, named as in `PairYield`, in the order of the filters."""

    BASE_UNDECIDED = 0
    TOO_FEW_FAR = 1
    NO_FLIP = 2
    HEURISTIC_MOVES = 3
    NO_IRRELEVANT_TWIN = 4
    HEURISTIC_MOVES_ON_IRRELEVANT = 5
    IMITATOR_MOVES = 6
    KEPT = 7


def _round(
    problem: Problem, rng: np.random.Generator, criteria: PairCriteria, imitator: Imitator | None
) -> tuple[CounterfactualPairs, PairYield]:
    """Try `STATES_PER_ROUND` states. All edits of a state go through the filters; the first survivor is its pair."""
    drawn, rules = _draw_states(problem, rng, criteria), criteria.rules(problem)
    stages = np.full(len(drawn.lengths), _Stage.BASE_UNDECIDED)
    rows = np.flatnonzero(drawn.optimum.margins > criteria.margin)
    stages[rows] = _Stage.TOO_FEW_FAR
    rows = rows[drawn.far[rows].sum(axis=1) >= criteria.far_needed(problem)]
    stages[rows] = _Stage.NO_FLIP
    find, match = (relevant_moves, irrelevant_moves) if problem.planar else (relevant_edits, irrelevant_edits)
    relevant = find(drawn.pick(rows), rng, criteria)

    rows = rows[relevant.of]  # from here on one row per edit
    stages[rows] = _Stage.HEURISTIC_MOVES
    choices = _base_choices(drawn, rows, rules)
    keeps = heuristics_keep(relevant.instances, drawn.prefixes[rows], drawn.lengths[rows], rules, choices)
    rows, relevant, choices = rows[keeps], relevant.pick(keeps), choices[keeps]
    stages[rows] = _Stage.NO_IRRELEVANT_TWIN
    irrelevant = match(drawn.pick(rows), relevant, rng, criteria)

    of = irrelevant.of  # from here on one row per irrelevant twin
    rows, relevant, choices = rows[of], relevant.pick(of), choices[of]
    stages[rows] = _Stage.HEURISTIC_MOVES_ON_IRRELEVANT
    keeps = heuristics_keep(irrelevant.instances, drawn.prefixes[rows], drawn.lengths[rows], rules, choices)
    rows = rows[keeps]
    stages[rows] = _Stage.IMITATOR_MOVES
    pairs = _assemble(drawn.pick(rows), relevant.pick(keeps), irrelevant.pick(keeps), choices[keeps], criteria)
    keeps = _imitator_keeps(pairs, imitator)
    rows, pairs = rows[keeps], pairs[keeps]
    stages[rows] = _Stage.KEPT
    _, first = np.unique(rows, return_index=True)
    return pairs[first], PairYield(
        tried=len(stages), **{stage.name.lower(): int((stages == stage).sum()) for stage in _Stage}
    )


def _draw_states(problem: Problem, rng: np.random.Generator, criteria: PairCriteria) -> States:
    """Fresh instances, each at a decision on one of its optimal tours."""
    instances = problem.draw(STATES_PER_ROUND, rng)
    weights, shape = instances.weights, (len(instances), problem.n)
    lengths = rng.choice(criteria.lengths(problem), size=len(instances))
    start, one = np.zeros(shape, dtype=np.int64), np.ones(len(instances), dtype=np.int64)
    rollouts = optimal_rollouts(weights, start, one, rng.random(shape))
    prefixes = np.where(np.arange(problem.n) < lengths[:, None], rollouts.tours, 0)
    values = rollouts.action_values[np.arange(len(instances)), lengths - 1]
    optimum = optimum_of(values, prefix_costs(weights, prefixes, lengths))
    return States(instances, prefixes, lengths, far_cities(weights, prefixes, lengths, criteria.protected), optimum)


def _base_choices(
    drawn: States, rows: Int64[np.ndarray, " edit"], rules: tuple[str, ...]
) -> Int64[np.ndarray, "edit rule"]:
    """What the heuristics do at the states `rows`, each state asked once."""
    asked, which = np.unique(rows, return_inverse=True)
    return heuristic_choices(drawn.instances[asked], drawn.prefixes[asked], drawn.lengths[asked], rules)[which]


def _assemble(
    states: States,
    relevant: Edits,
    irrelevant: Edits,
    choices: Int64[np.ndarray, "pairs rule"],
    criteria: PairCriteria,
) -> CounterfactualPairs:
    """The pairs, with the optima of both twins computed anew by dynamic programming."""
    after, beside = (states.optimum_on(edits.instances.weights) for edits in (relevant, irrelevant))
    return CounterfactualPairs(
        criteria=criteria,
        base=states.instances,
        relevant=relevant.instances,
        irrelevant=irrelevant.instances,
        prefixes=states.prefixes,
        lengths=states.lengths,
        entries=relevant.entries,
        irrelevant_entries=irrelevant.entries,
        edit_sizes=relevant.sizes,
        old_optimal=states.optimum.optimal,
        new_optimal=after.optimal,
        margins=np.stack([states.optimum.margins, after.margins, beside.margins], axis=1),
        heuristic_choices=choices,
    )


def _imitator_keeps(pairs: CounterfactualPairs, imitator: Imitator | None) -> Bool[np.ndarray, " pairs"]:
    if imitator is None or len(pairs) == 0:
        return np.ones(len(pairs), dtype=np.bool_)
    free = free_cities(pairs.prefixes, pairs.lengths)
    twins, shift = (pairs.relevant, pairs.irrelevant), pairs.criteria.max_log_odds_shift
    return imitator_keeps(imitator, pairs.base, twins, pairs.prefixes, pairs.lengths, free, shift)
