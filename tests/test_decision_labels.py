"""Labels of decision states against exhaustive search, under renaming of cities, and at their edges."""

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from mesaprobe.errors import UserError
from mesaprobe.labels import (
    BoundLabels,
    CompletionLabels,
    DecisionLabels,
    ValueLabels,
    best_tours,
    bound_labels,
    completion_labels,
    decision_steps,
    instance_difficulty,
    instance_tiers,
    label_decisions,
    lookahead_needs,
    mirrored_weights,
    near_optimal_counts,
    relative_margins,
    tie_table,
    value_labels,
)
from mesaprobe.labels.completions import write_shares
from mesaprobe.labels.remaining import MAX_CITIES
from mesaprobe.labels.throughput import states_per_second
from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1
from mesaprobe.solvers.bounds.lower_bounds import state_bounds
from mesaprobe.solvers.constructive import nearest_cities
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound_trace
from mesaprobe.solvers.exact.held_karp import action_values, held_karp
from mesaprobe.solvers.lookahead import UNREACHABLE, lookahead_values

CASES = [("matrix", 64), ("matrix", 2), ("asymmetric", 64), ("asymmetric", 2), ("euclidean", 64)]
"""Families, with many ties where there are two levels."""

OBJECTIVES = ("shortest", "longest", "bottleneck")


def draw(family: str, n: int, count: int, levels: int = 64, seed: int = 0) -> tuple[Instances, np.ndarray]:
    """Instances and random tours from city 0 on them."""
    rng = np.random.default_rng(seed)
    config = ProblemConfig(family=family, n=n, levels=levels, grid=10 if seed == 7 else 10_000)
    instances = make_problem(config).draw(count, rng)
    tours = np.zeros((count, n), dtype=np.int64)
    tours[:, 1:] = np.argsort(rng.random((count, n - 1)), axis=1) + 1
    return instances, tours


# ---- exhaustive search ------------------------------------------------------------------------------------------


def worth(weights: np.ndarray, way: list[int], objective: str) -> int:
    """What a way costs, so that less is better."""
    steps = [int(weights[u, v]) for u, v in itertools.pairwise(way)]
    return {"shortest": sum(steps), "longest": -sum(steps), "bottleneck": max(steps)}[objective]


def best_ways(weights: np.ndarray, prefix: list[int], objective: str) -> dict[int, tuple[int, list[list[int]]]]:
    """For every next city the worth of its best ways home from the current city, and all of these ways."""
    free = [city for city in range(len(weights)) if city not in prefix]
    found: dict[int, tuple[int, list[list[int]]]] = {}
    for order in itertools.permutations(free):
        way = [prefix[-1], *order, 0]
        value = worth(weights, way, objective)
        best, ways = found.get(order[0], (value + 1, []))
        if value < best:
            found[order[0]] = (value, [way])
        elif value == best:
            ways.append(way)
    return found


def edge_shares(ways: list[list[int]], n: int, undirected: bool) -> np.ndarray:
    """Share of the ways that use each edge."""
    uses = np.zeros((n, n), dtype=np.int64)
    for way in ways:
        for u, v in itertools.pairwise(way):
            uses[u, v] += 1
            if undirected:
                uses[v, u] += 1
    return uses / max(len(ways), 1)


def check_state(
    weights: np.ndarray, prefix: list[int], values: ValueLabels, plans: CompletionLabels, at: tuple
) -> None:
    """Values and completions of one state against all ways home."""
    objective, undirected, place = at
    n = len(weights)
    found = best_ways(weights, prefix, objective)
    sign = -1 if objective == "longest" else 1
    best = min(value for value, _ in found.values())
    others = [value for value, _ in found.values() if value > best]
    second = min(others, default=None)
    for city in range(n):
        value, ways = found.get(city, (None, []))
        assert values.action_values[place][city] == (sign * np.inf if value is None else sign * value)
        assert values.regrets[place][city] == (np.inf if value is None else value - best)
        assert values.optimal[place][city] == (value == best)
        assert values.runner_up[place][city] == (value is not None and value == second)
        assert plans.counts[place][city] == len(ways)
        np.testing.assert_allclose(plans.edges[place][city], edge_shares(ways, n, undirected), rtol=1e-6)
    assert values.state_values[place] == sign * best
    assert values.margins[place] == (np.inf if second is None else second - best)
    for shares, level in ((plans.chosen, best), (plans.runner_up, second)):
        ways = [way for value, ways in found.values() if value == level for way in ways]
        np.testing.assert_allclose(shares[place], edge_shares(ways, n, undirected), rtol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("family", "levels"), CASES)
def test_values_and_completions_equal_exhaustive_search(family: str, levels: int, objective: str) -> None:
    for n, count in ((4, 6), (6, 6)):
        instances, tours = draw(family, n, count, levels)
        undirected = instances.problem.symmetric
        values = value_labels(instances.weights, tours, slice(0, n - 1), objective)
        plans = completion_labels(instances.weights, tours, slice(0, n - 1), undirected, objective)
        for b, t in itertools.product(range(count), range(n - 1)):
            prefix = tours[b, : t + 1].tolist()
            check_state(instances.weights[b], prefix, values, plans, (objective, undirected, (b, t)))
    if levels == 2:
        assert plans.counts.max() > 2, "the sample must hold states with many optimal completions"


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_values_and_completions_of_seven_cities_with_coinciding_points(objective: str) -> None:
    instances, tours = draw("euclidean", 7, 3, seed=7)
    steps = slice(1, 3)
    values = value_labels(instances.weights, tours, steps, objective)
    plans = completion_labels(instances.weights, tours, steps, True, objective)
    for b, i in itertools.product(range(3), range(2)):
        prefix = tours[b, : i + 2].tolist()
        check_state(instances.weights[b], prefix, values, plans, (objective, True, (b, i)))


def test_arcs_of_a_symmetric_instance_keep_the_direction_of_the_walk() -> None:
    instances, tours = draw("matrix", 6, 10, levels=2)
    arcs, edges = (completion_labels(instances.weights, tours, slice(0, 5), undirected) for undirected in (False, True))
    np.testing.assert_array_equal(arcs.counts, edges.counts)
    np.testing.assert_allclose(arcs.edges + arcs.edges.swapaxes(3, 4), edges.edges, rtol=1e-6)
    home = arcs.edges[..., 0].sum(axis=3)
    np.testing.assert_allclose(home, arcs.counts > 0, rtol=1e-6)


def test_completions_of_twenty_cities_are_counted_without_loss() -> None:
    weights = np.ones((1, 20, 20), dtype=np.int32)
    plans = completion_labels(weights, np.arange(20)[None], slice(6, 7), undirected=False)
    assert plans.counts[0, 0, 7] == 479001600, "12! orders of the other cities"
    assert plans.edges[0, 0, 7, 6, 7] == 1.0
    assert plans.edges[0, 0, 7, 0].max() == 0.0
    inner = plans.edges[0, 0, 7, 8:, 8:]
    np.testing.assert_allclose(inner[~np.eye(12, dtype=bool)], 1 / 12, rtol=1e-6)


def test_a_share_is_one_only_if_all_completions_agree_and_zero_only_if_none_does() -> None:
    most = 10**17
    uses, shares = np.array([[0, 1], [most - 1, most]]), np.zeros((2, 2), dtype=np.float32)
    write_shares(uses, most, shares)
    assert shares[0, 0] == 0.0 < shares[0, 1]
    assert shares[1, 0] < 1.0 == shares[1, 1]


def test_at_the_first_step_the_runner_up_is_another_undirected_tour() -> None:
    instances, tours = draw("matrix", 7, 50)
    values = value_labels(instances.weights, tours, slice(0, 1))
    plans = completion_labels(instances.weights, tours, slice(0, 1), undirected=True)
    unique = near_optimal_counts(instances.weights, True, (0,))[:, 0] == 1
    assert unique.sum() > 25
    assert (values.optimal[unique, 0].sum(axis=1) == 2).all(), "both ends of the optimal tour"
    optimum = (plans.chosen[unique, 0] == 1).sum(axis=(1, 2))
    assert (optimum == 14).all(), "seven edges, each in both cells"
    assert ((plans.chosen == 1) & (plans.runner_up == 0)).any(axis=(1, 2, 3))[unique].all()


# ---- bounds -----------------------------------------------------------------------------------------------------


def nearest_walk(weights: np.ndarray, prefix: list[int]) -> int:
    """Cost of going on from the prefix to the nearest free city (the lowest among equals), and home at last."""
    current, total = prefix[-1], 0
    free = [city for city in range(len(weights)) if city not in prefix]
    while free:
        following = min(free, key=lambda city: weights[current, city])
        total += int(weights[current, following])
        free.remove(following)
        current = following
    return total + int(weights[current, 0])


@pytest.mark.parametrize("objective", ["shortest", "longest"])
@pytest.mark.parametrize(("family", "levels"), CASES)
def test_bounds_incumbents_and_pruning_follow_their_definitions(family: str, levels: int, objective: str) -> None:
    n, steps = 7, slice(0, 6)
    instances, tours = draw(family, n, 20, levels)
    weights = instances.weights
    labels = bound_labels(weights, tours, steps, objective=objective)
    walked, mirror = (weights, np.zeros(20)) if objective == "shortest" else mirrored_weights(weights)
    for b, t in itertools.product(range(20), range(n - 1)):
        prefix = tours[b, : t + 1].tolist()
        left, spent = n - t, sum(int(weights[b, u, v]) for u, v in itertools.pairwise(prefix))

        def back(cost: int, b: int = b, left: int = left) -> int:
            """In lengths of the given weights."""
            return cost if objective == "shortest" else left * int(mirror[b]) - cost

        assert labels.prefix_costs[b, t] == spent
        incumbent = back(nearest_walk(walked[b], prefix))
        assert labels.incumbents[b, t] == incumbent
        for k, kind in enumerate(labels.kinds):
            bound = state_bounds(walked[b : b + 1], tours[b : b + 1], np.array([t + 1]), kind)[0]
            assert labels.bounds[b, t, k] == back(bound)
            for city in range(n):
                if city in prefix:
                    assert labels.action_bounds[b, t, city, k] == 0
                    assert not labels.prune[b, t, city, k]
                    continue
                through = np.array([*prefix, city, *(c for c in range(n) if c not in prefix and c != city)])
                onward = int(walked[b, city, 0])
                if t < n - 2:
                    onward = state_bounds(walked[b : b + 1], through[None], np.array([t + 2]), kind)[0]
                onward = back(walked[b, prefix[-1], city] + onward)
                assert labels.action_bounds[b, t, city, k] == onward
                hopeless = spent + onward >= spent + incumbent
                if objective == "longest":
                    hopeless = spent + onward <= spent + incumbent
                assert labels.prune[b, t, city, k] == hopeless


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_bounds_hold_and_what_is_pruned_cannot_beat_the_incumbent(family: str, levels: int) -> None:
    instances, tours = draw(family, 9, 100, levels)
    steps = decision_steps(instances.problem)
    for objective, sign in (("shortest", 1), ("longest", -1)):
        labels = bound_labels(instances.weights, tours, steps, objective=objective)
        values = value_labels(instances.weights, tours, steps, objective)
        free = np.isfinite(values.action_values)
        assert (sign * (values.state_values[:, :, None] - labels.bounds) >= 0).all()
        assert (sign * (labels.incumbents - values.state_values) >= 0).all()
        exact = np.where(free, values.action_values, 0)
        assert (sign * (exact[..., None] - labels.action_bounds) >= 0)[free].all()
        better = free & (sign * (labels.incumbents[:, :, None] - exact) > 0)
        assert better.any()
        assert not labels.prune[better].any()
        assert labels.prune.any()


# ---- best tours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["shortest", "longest"])
@pytest.mark.parametrize(("family", "levels"), CASES)
def test_the_best_tours_equal_a_sorted_list_of_all(family: str, levels: int, objective: str) -> None:
    n, k = 7, 5
    instances, tours = draw(family, n, 10, levels)
    undirected = instances.problem.symmetric
    found = best_tours(instances.weights, tours, slice(0, 6), undirected, k, objective)
    for b, t in itertools.product(range(10), range(6)):
        prefix = tours[b, : t + 1].tolist()
        rest = sorted(set(range(n)) - set(prefix))
        every = [[*prefix, *order] for order in itertools.permutations(rest)]
        if undirected and t == 0:
            every = [tour for tour in every if tour[1] < tour[-1]]
        ranked = sorted((worth(instances.weights[b], [*tour, 0], objective), tour) for tour in every)
        kept = min(k, len(ranked))
        assert found.tours[b, t, :kept].tolist() == [tour for _, tour in ranked[:kept]]
        assert (found.tours[b, t, kept:] == -1).all()
        sign = -1 if objective == "longest" else 1
        assert found.costs[b, t, :kept].tolist() == [sign * cost for cost, _ in ranked[:kept]]
        assert (found.costs[b, t, kept:] == UNREACHABLE).all()
        assert found.cut[b, t] == (len(ranked) > k and ranked[k][0] == ranked[k - 1][0])
    assert found.cut.any() or levels > 2


def test_the_best_tours_of_many_cities_and_of_equal_ones() -> None:
    instances, tours = draw("matrix", 18, 2)
    found = best_tours(instances.weights, tours, slice(0, 2), undirected=True, k=30)
    np.testing.assert_array_equal(found.costs[:, 0, 0], held_karp(instances.weights).costs)
    assert (np.diff(found.costs, axis=2) >= 0).all()
    np.testing.assert_array_equal(np.sort(found.tours, axis=3), np.broadcast_to(np.arange(18), found.tours.shape))
    assert len(np.unique(found.tours[0, 0], axis=0)) == 30
    again = [worth(instances.weights[0], [*tour, 0], "shortest") for tour in found.tours[0, 0]]
    assert found.costs[0, 0].tolist() == again
    equal = best_tours(np.ones((1, 18, 18), dtype=np.int32), np.arange(18)[None], slice(0, 1), undirected=True, k=3)
    assert equal.tours[0, 0, :, -3:].tolist() == [[15, 16, 17], [15, 17, 16], [16, 15, 17]]
    assert equal.cut.all()


# ---- look-ahead need --------------------------------------------------------------------------------------------


def needs_by_enumeration(weights: np.ndarray, tours: np.ndarray, values: np.ndarray) -> np.ndarray:
    """d* from the values that look-ahead of every depth gives, each computed by enumeration."""
    depths = [lookahead_values(weights, tours, depth) for depth in range(1, tours.shape[1])]
    picks = [nearest_cities(weights, tours), *(depth == depth.min(axis=2, keepdims=True) for depth in depths)]
    optimal = values == values.min(axis=2, keepdims=True)
    return np.argmax([(~pick | optimal).all(axis=2) for pick in picks], axis=0)


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_needs_from_one_table_equal_needs_by_enumeration(family: str, levels: int) -> None:
    instances, tours = draw(family, 8, 40, levels)
    weights = instances.weights
    values = action_values(weights, tours)
    expected = needs_by_enumeration(weights, tours, values)
    np.testing.assert_array_equal(lookahead_needs(weights, tours, values, slice(0, 7)), expected)
    np.testing.assert_array_equal(lookahead_needs(weights, tours, values, slice(2, 5, 2)), expected[:, 2:5:2])
    assert expected.max() >= 3


def test_needs_refuse_the_values_of_other_instances() -> None:
    instances, tours = draw("matrix", 6, 5)
    wrong = np.full((5, 5, 6), np.inf)
    wrong[:, :, 0] = 1.0  # city 0 is never free
    with pytest.raises(ValueError, match="action_values are not those of these weights and tours"):
        lookahead_needs(instances.weights, tours, wrong, slice(0, 5))


# ---- instances --------------------------------------------------------------------------------------------------


def all_tour_costs(weights: np.ndarray) -> np.ndarray:
    n = len(weights)
    return np.array([worth(weights, [0, *rest, 0], "shortest") for rest in itertools.permutations(range(1, n))])


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_nearly_optimal_tours_are_counted_exactly(family: str, levels: int) -> None:
    percents = (0, 1, 5, 20, 100)
    for n in (4, 7):
        instances, _ = draw(family, n, 15, levels)
        counts = near_optimal_counts(instances.weights, instances.problem.symmetric, percents)
        for weights, row in zip(instances.weights, counts, strict=True):
            costs = all_tour_costs(weights)
            expected = [int((100 * costs <= (100 + percent) * costs.min()).sum()) for percent in percents]
            assert row.tolist() == [count // (2 if instances.problem.symmetric else 1) for count in expected]


def test_as_many_tours_as_there_are_when_all_are_equal() -> None:
    weights = np.full((1, 14, 14), 5, dtype=np.int32)
    assert near_optimal_counts(weights, undirected=False, percents=(0, 5)).tolist() == [[6227020800] * 2]  # 13!
    nothing = np.zeros((1, 8, 8), dtype=np.int32)
    assert near_optimal_counts(nothing, undirected=True).tolist() == [[2520, 2520]]  # 7! / 2


@pytest.mark.parametrize(("family", "n"), [("matrix", 8), ("asymmetric", 9), ("euclidean", 10)])
def test_tiers_follow_their_definition(family: str, n: int) -> None:
    instances, _ = draw(family, n, 400)
    optimum = held_karp(instances.weights).costs
    tiers = instance_tiers(instances, optimum)
    rules = [name for name in HEUR_V1 if family != "asymmetric" or name != "mst_preorder"]
    for b in range(400):
        weights = instances.weights[b : b + 1]
        costs = {name: worth(weights[0], [*ALGORITHMS[name](weights)[0], 0], "shortest") for name in rules}
        improved = worth(weights[0], [*ALGORITHMS["two_opt_or_opt"](weights)[0], 0], "shortest")
        if costs["nearest_neighbour"] == optimum[b]:
            expected = 0
        elif optimum[b] in costs.values():
            expected = 1
        elif improved == optimum[b]:
            expected = 2
        else:
            least = min(*costs.values(), improved)
            expected = 4 if Fraction(int(least), int(optimum[b])) >= Fraction(105, 100) else 3
        assert tiers[b] == expected
    assert set(tiers) >= ({0, 1, 2} if family == "euclidean" else {0, 1, 2, 3, 4})


def test_failing_by_exactly_five_percent_is_far() -> None:
    instances, _ = draw("matrix", 8, 200)
    names = [*HEUR_V1, "two_opt_or_opt"]
    best = np.min([instances.tour_costs(ALGORITHMS[name](instances.weights)) for name in names], axis=0)
    exact = best % 21 == 0
    assert exact.sum() >= 3
    assert set(instance_tiers(instances[exact], best[exact] * 20 // 21)) == {4}
    assert set(instance_tiers(instances[exact], best[exact] * 20 // 21 + 1)) == {3}


def test_difficulty_is_that_of_the_instance() -> None:
    instances, _ = draw("matrix", 7, 20)
    labels = instance_difficulty(instances)
    for b, weights in enumerate(instances.weights):
        trace = branch_and_bound_trace(weights)
        assert labels.nodes[b] == len(trace)
        assert labels.finding_nodes[b] == trace.finding_nodes
        entered = [int(trace.depths[i]) for i in range(len(trace)) if trace.events[i] in (0, 2)]
        steps_back = [before - after + 1 for before, after in itertools.pairwise(entered)]
        assert labels.backtracks[b] == sum(back > 0 for back in steps_back)
        assert labels.deepest_backtrack[b] == max([0, *steps_back])
    np.testing.assert_array_equal(labels.near_optimal, near_optimal_counts(instances.weights, True, (0, 1, 5)))
    np.testing.assert_array_equal(labels.tiers, instance_tiers(instances, held_karp(instances.weights).costs))


# ---- the bundle -------------------------------------------------------------------------------------------------


def test_the_bundle_holds_what_was_asked_for_and_nothing_else() -> None:
    instances, tours = draw("matrix", 8, 30)
    every = label_decisions(instances, tours)
    assert every.steps.tolist() == [1, 2, 3]
    for name in ("values", "completions", "bounds", "needs", "best_tours", "difficulty"):
        assert getattr(every, name) is not None
        alone = label_decisions(instances, tours, which=[name])
        assert [field for field in vars(alone) if getattr(alone, field) is not None] == ["objective", "steps", name]
    some = label_decisions(instances, tours, steps=slice(2, 3))
    np.testing.assert_array_equal(some.completions.edges, every.completions.edges[:, 1:2])
    np.testing.assert_array_equal(some.bounds.prune, every.bounds.prune[:, 1:2])
    np.testing.assert_array_equal(some.needs, every.needs[:, 1:2])


def test_no_instances_have_no_labels() -> None:
    instances, tours = draw("matrix", 8, 2)
    for objective in OBJECTIVES:
        labels = label_decisions(instances[:0], tours[:0], objective=objective)
        assert labels.values.regrets.shape == (0, 3, 8)
        assert labels.completions.edges.shape == (0, 3, 8, 8, 8)


def test_twins_of_the_longest_tour_are_labels_of_mirrored_weights() -> None:
    instances, tours = draw("asymmetric", 8, 30)
    turned, mirror = mirrored_weights(instances.weights)
    between = ~np.eye(8, dtype=bool)
    np.testing.assert_array_equal((turned + instances.weights)[:, between], np.tile(mirror[:, None], (1, 56)))
    assert turned[:, between].min() >= instances.weights[:, between].min()
    twin = label_decisions(instances, tours, objective="longest")
    plain = label_decisions(Instances(instances.problem, turned), tours)
    np.testing.assert_array_equal(twin.values.regrets, plain.values.regrets)
    np.testing.assert_array_equal(twin.completions.edges, plain.completions.edges)
    np.testing.assert_array_equal(twin.bounds.prune, plain.bounds.prune)
    np.testing.assert_array_equal(twin.needs, plain.needs)
    assert twin.difficulty is None
    assert label_decisions(instances, tours, objective="bottleneck").needs is None


def test_what_an_objective_lacks_ends_in_one_sentence() -> None:
    instances, tours = draw("matrix", 6, 2)
    questions: list[tuple[Callable[[], object], str]] = [
        (lambda: label_decisions(instances, tours, which=["needs"], objective="bottleneck"), "has no labels 'needs'"),
        (lambda: label_decisions(instances, tours, which=["colour"]), "has no labels 'colour'; it has values, "),
        (lambda: label_decisions(instances, tours, objective="scenic"), "unknown objective 'scenic'; known: shortest"),
        (lambda: value_labels(instances.weights, tours, slice(0, 2), "scenic"), "unknown objective 'scenic'"),
        (lambda: bound_labels(instances.weights, tours, slice(0, 2), objective="bottleneck"), "not 'bottleneck'"),
        (lambda: best_tours(instances.weights, tours, slice(0, 2), True, objective="bottleneck"), "not 'bottleneck'"),
        (lambda: best_tours(instances.weights, tours, slice(0, 2), True, k=0), "k must be at least 1, got 0"),
        (lambda: label_decisions(instances, tours, steps=slice(4, 2)), "steps must name decisions of 0..4"),
        (lambda: near_optimal_counts(instances.weights, True, (101,)), "percents must lie in 0..100"),
    ]
    for question, sentence in questions:
        with pytest.raises(UserError, match=sentence):
            question()
    skew, walks = draw("asymmetric", 6, 2)
    with pytest.raises(UserError, match="defined on symmetric weights only"):
        completion_labels(skew.weights, walks, slice(0, 2), undirected=True)
    with pytest.raises(UserError, match="on symmetric weights with n >= 3 only"):
        near_optimal_counts(skew.weights, undirected=True)
    n = MAX_CITIES + 1
    with pytest.raises(UserError, match="at most 20 cities, got 21"):
        near_optimal_counts(np.ones((1, n, n), dtype=np.int32), undirected=True)


# ---- metamorphic ------------------------------------------------------------------------------------------------


def renamed(instances: Instances, tours: np.ndarray, seed: int) -> tuple[Instances, np.ndarray, np.ndarray]:
    """The same instances and tours with other numbers for all cities but 0, and the new number of each."""
    n = tours.shape[1]
    new = np.concatenate([[0], np.random.default_rng(seed).permutation(n - 1) + 1])
    old = np.argsort(new)
    coordinates = None if instances.coordinates is None else instances.coordinates[:, old]
    moved = Instances(instances.problem, np.ascontiguousarray(instances.weights[:, old][:, :, old]), coordinates)
    return moved, new[tours], new


def assert_renamed(before: DecisionLabels, after: DecisionLabels, new: np.ndarray, families: tuple[str, ...]) -> None:
    """Every array of `before`, its city axes renamed, is that of `after`."""
    city_axes = {
        "action_values": (2,), "regrets": (2,), "optimal": (2,), "counts": (2,), "action_bounds": (2,), "prune": (2,),
        "edges": (2, 3, 4), "chosen": (2, 3),
    }  # fmt: skip
    for family in families:
        pair = (getattr(before, family), getattr(after, family))
        if family == "needs":
            np.testing.assert_array_equal(*pair)
            continue
        for name, array in vars(pair[0]).items():
            if name == "kinds":
                continue
            axes = city_axes.get(name, (2, 3) if name == "runner_up" and array.ndim == 4 else ())
            axes = (2,) if name == "runner_up" and array.ndim == 3 else axes
            other = getattr(pair[1], name)
            for axis in axes:
                other = np.take(other, new, axis=axis)
            np.testing.assert_array_equal(array, other, err_msg=name)


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_renaming_cities_renames_values_and_completions_ties_and_all(family: str, levels: int) -> None:
    instances, tours = draw(family, 8, 30, levels)
    again, walks, new = renamed(instances, tours, seed=1)
    for objective in OBJECTIVES:
        before, after = (
            label_decisions(*states, which=["values", "completions"], objective=objective)
            for states in ((instances, tours), (again, walks))
        )
        assert_renamed(before, after, new, ("values", "completions"))
    symmetric = instances.problem.symmetric
    ranked, again_ranked = (
        best_tours(states[0].weights, states[1], slice(0, 7), symmetric)
        for states in ((instances, tours), (again, walks))
    )
    np.testing.assert_array_equal(again_ranked.costs, ranked.costs)
    np.testing.assert_array_equal(again_ranked.cut, ranked.cut)
    np.testing.assert_array_equal(
        near_optimal_counts(again.weights, symmetric), near_optimal_counts(instances.weights, symmetric)
    )


@pytest.mark.parametrize("family", ["matrix", "asymmetric"])
def test_renaming_cities_renames_every_label_where_no_weights_are_equal(family: str) -> None:
    instances, tours = draw(family, 8, 30, levels=10_000_000)
    again, walks, new = renamed(instances, tours, seed=2)
    before, after = label_decisions(instances, tours), label_decisions(again, walks)
    # the path that subgradient ascent takes depends on the order of the cities; what it bounds does not
    drop = before.bounds.kinds.index("ascent")
    bounds = [
        BoundLabels(
            kinds=labels.bounds.kinds,
            prefix_costs=labels.bounds.prefix_costs,
            bounds=np.delete(labels.bounds.bounds, drop, axis=2),
            action_bounds=np.delete(labels.bounds.action_bounds, drop, axis=3),
            incumbents=labels.bounds.incumbents,
            prune=np.delete(labels.bounds.prune, drop, axis=3),
        )
        for labels in (before, after)
    ]
    before, after = (
        DecisionLabels(labels.objective, labels.steps, labels.values, labels.completions, bound, labels.needs)
        for labels, bound in zip((before, after), bounds, strict=True)
    )
    assert_renamed(before, after, new, ("values", "completions", "bounds", "needs"))


@pytest.mark.parametrize(("family", "levels"), CASES)
def test_a_constant_on_all_roads_at_one_city_shifts_costs_and_moves_no_choice(family: str, levels: int) -> None:
    n, extra = 7, 1000
    instances, tours = draw(family, n, 30, levels)
    steps = slice(1, 4)
    before = value_labels(instances.weights, tours, steps)
    plans = completion_labels(instances.weights, tours, steps, undirected=False)
    bounds = bound_labels(instances.weights, tours, steps, ["assignment"]).bounds
    for city in range(n):
        weights = instances.weights.copy()
        weights[:, city] += extra
        weights[:, :, city] += extra
        weights[:, city, city] = 0
        after = value_labels(weights, tours, steps)
        free = np.isfinite(before.action_values[:, :, city])
        ends = (tours[:, steps] == city).astype(int) + (city == 0)
        touched = np.where(free, 2, ends)  # roads at the city on the rest of any tour
        np.testing.assert_array_equal(after.state_values, before.state_values + extra * touched)
        np.testing.assert_array_equal(after.regrets, before.regrets)
        moved = completion_labels(weights, tours, steps, undirected=False)
        np.testing.assert_array_equal(moved.edges, plans.edges)
        shifted = bound_labels(weights, tours, steps, ["assignment"]).bounds
        np.testing.assert_array_equal(shifted[..., 0], bounds[..., 0] + extra * touched)


# ---- margins and ties -------------------------------------------------------------------------------------------


def test_margins_are_fractions_of_the_best_tour_with_the_prefix() -> None:
    instances, tours = draw("matrix", 6, 20)
    margins = relative_margins(instances.weights, tours, action_values(instances.weights, tours))
    for b, t in itertools.product(range(20), range(5)):
        prefix = tours[b, : t + 1].tolist()
        values = sorted({value for value, _ in best_ways(instances.weights[b], prefix, "shortest").values()})
        spent = sum(int(instances.weights[b, u, v]) for u, v in itertools.pairwise(prefix))
        expected = (values[1] - values[0]) / (spent + values[0]) if len(values) > 1 else np.inf
        assert margins[b, t] == expected


def test_shares_of_ties_equal_exhaustive_counts() -> None:
    config = ProblemConfig(n=6, levels=3)
    row = tie_table([config], 40, seed=5)[0]
    problem, rng = make_problem(config), np.random.default_rng([5, 0])
    weights = problem.draw(40, rng).weights
    tied = [(costs == costs.min()).sum() > 2 for costs in map(all_tour_costs, weights)]
    assert row.tied_instances == np.mean(tied)
    assert (row.instances, row.states) == (40, 40)
    assert 0 < row.tied_actions <= row.tied_completions <= 1
    only = tie_table([ProblemConfig(n=6, levels=1), ProblemConfig("asymmetric", 6, levels=10_000_000)], 20, seed=0)
    assert (only[0].tied_instances, only[0].tied_actions, only[0].tied_completions) == (1.0, 1.0, 1.0)
    assert (only[1].tied_instances, only[1].tied_actions, only[1].tied_completions) == (0.0, 0.0, 0.0)


def test_shares_of_ties_need_decisions() -> None:
    with pytest.raises(UserError, match="need instances with decisions, got 10 matrix with n = 5"):
        tie_table([ProblemConfig(n=5)], 10, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["matrix", "asymmetric", "euclidean"])
def test_thousands_of_states_are_labelled_per_second(family: str) -> None:
    assert states_per_second(ProblemConfig(family, n=10)) > 1500, "2,000 are asked for; a quarter is left to noise"
