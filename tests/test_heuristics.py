"""Constructive rules do what their papers say, at the start and at any state; contracts of the whole library."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import ConvexHull

from mesaprobe.errors import UserError
from mesaprobe.problems import (
    Instances,
    Problem,
    ProblemConfig,
    canonical_tours,
    ceil_distances,
    make_problem,
    tour_costs,
)
from mesaprobe.solvers import constructive
from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1, Algorithm
from mesaprobe.solvers.beam import beam_tours
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.exact.reduced_cost_search import reduced_cost_search
from mesaprobe.solvers.fixed_horizon import horizon_tours
from mesaprobe.solvers.random_streams import instance_seeds, next_word
from mesaprobe.training.teachers import TEACHERS, random_prefixes_for
from mesaprobe.training.tie_breaks import with_ties_broken

LIBRARY = tuple(ALGORITHMS)
WITH_COMPLETIONS = tuple(name for name in LIBRARY if ALGORITHMS[name].completions is not None)


def matrices(n: int, largest: int, symmetric: bool, rng: np.random.Generator, count: int = 1) -> np.ndarray:
    weights = rng.integers(0, largest + 1, size=(count, n, n)).astype(np.int32)
    if symmetric:
        weights = np.triu(weights, 1) + np.triu(weights, 1).transpose(0, 2, 1)
    weights[:, np.arange(n), np.arange(n)] = 0
    return weights


@st.composite
def batches(draw: st.DrawFn, smallest: int = 2, symmetric: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Weights [2, n, n] and coordinates [2, n, 2]: matrices without structure, with ties and zeros, all equal, or
    from few points in the plane, some of them in the same place."""
    n = draw(st.integers(smallest, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    points = rng.integers(0, draw(st.sampled_from([1, 3, 1000])) + 1, size=(2, n, 2)).astype(np.int32)
    if draw(st.booleans()):
        return ceil_distances(points), points
    chosen = draw(st.booleans()) if symmetric is None else symmetric
    return matrices(n, draw(st.sampled_from([0, 1, 3, 64, 10**6])), chosen, rng, 2), points


def applicable(weights: np.ndarray, names: tuple[str, ...] = LIBRARY) -> list[Algorithm]:
    symmetric = bool((weights == weights.transpose(0, 2, 1)).all())
    return [ALGORITHMS[name] for name in names if symmetric or not ALGORITHMS[name].symmetric_only]


def random_prefixes(weights: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    batch, n = weights.shape[:2]
    prefixes = np.zeros((batch, n), dtype=np.int64)
    prefixes[:, 1:] = 1 + np.argsort(rng.random((batch, n - 1)), axis=1)
    return prefixes, rng.integers(1, n + 1, size=batch)


# --- every algorithm of the library ---


@given(batches())
@settings(max_examples=60, deadline=None)
def test_every_tour_is_legal_and_costs_at_least_the_optimum(batch: tuple[np.ndarray, np.ndarray]) -> None:
    weights, coordinates = batch
    optimum = held_karp(weights).costs
    for algorithm in applicable(weights):
        tours = algorithm(weights, coordinates, seed=1)
        assert tours.dtype == np.int64
        assert (tours[:, 0] == 0).all(), algorithm.name
        assert (np.sort(tours, axis=1) == np.arange(weights.shape[1])).all(), algorithm.name
        assert (tour_costs(weights, tours) >= optimum).all(), algorithm.name
        if algorithm.exact:
            assert (tour_costs(weights, tours) == optimum).all()


@given(batches(), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_completions_keep_the_prefix_and_with_city_0_alone_are_the_rule(
    batch: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    weights, _ = batch
    n = weights.shape[1]
    prefixes, lengths = random_prefixes(weights, np.random.default_rng(seed))
    behind = np.where(np.arange(n) < lengths[:, None], prefixes, -7)  # what stands behind the prefix is not read
    for algorithm in applicable(weights, WITH_COMPLETIONS):
        assert algorithm.completions is not None
        tours = algorithm.completions(weights, behind, lengths)
        assert (np.sort(tours, axis=1) == np.arange(n)).all(), algorithm.name
        assert (np.where(np.arange(n) < lengths[:, None], tours, -7) == behind).all(), algorithm.name
        plain = algorithm.completions(weights, prefixes, np.ones(len(weights), dtype=np.int64))
        assert (plain == algorithm(weights)).all(), algorithm.name


@given(batches())
@settings(max_examples=40, deadline=None)
def test_rules_that_agree_with_themselves_go_on_with_their_own_tour(batch: tuple[np.ndarray, np.ndarray]) -> None:
    """For greedy edge and savings because the forced edges are edges they choose; for walks by construction. Insertion
    makes no such promise: its early edges are split later."""
    weights, _ = batch
    own = ("nearest_neighbour", "greedy_edge", "savings", "mst_preorder", "lookahead_2", "horizon_3", "walk_values_4")
    for algorithm in applicable(weights, own):
        assert algorithm.completions is not None
        tours = algorithm(weights)
        for length in range(1, weights.shape[1] + 1):
            again = algorithm.completions(weights, tours, np.full(len(weights), length))
            assert (again == tours).all(), (algorithm.name, length)


@pytest.mark.parametrize("symmetric", [True, False])
def test_an_instance_gets_the_same_tour_whatever_else_is_in_the_batch(symmetric: bool) -> None:
    rng = np.random.default_rng(2)
    weights, other = matrices(7, 9, symmetric, rng, 12), matrices(7, 9, not symmetric, rng, 2)
    coordinates = rng.integers(0, 50, size=(12, 7, 2))
    for algorithm in applicable(weights):
        tours = algorithm(weights, coordinates, seed=3)
        parts = [algorithm(weights[rows], coordinates[rows], seed=3) for rows in (slice(0, 5), slice(5, 12))]
        assert (np.concatenate(parts) == tours).all(), algorithm.name
        if not algorithm.symmetric_only:
            mixed = algorithm(np.concatenate([other, weights]), np.concatenate([coordinates[:2], coordinates]), seed=3)
            assert (mixed[2:] == tours).all(), algorithm.name
        assert len(algorithm(weights[:0], coordinates[:0])) == 0
        if algorithm.randomised:
            runs = [algorithm(weights, coordinates, seed) for seed in range(20)]
            if algorithm.degree < 4:
                assert len({run.tobytes() for run in runs}) == len(runs), algorithm.name


@pytest.mark.parametrize("symmetric", [True, False])
def test_renaming_the_cities_renames_the_tours(symmetric: bool) -> None:
    """City 0 keeps its name; large weights leave no ties. Left out: randomised algorithms, which draw anew, OR-tools,
    which looks at indices, look-ahead and values of walks on symmetric weights, where both directions of a tour tie,
    and two rules that read city numbers (one in its gate, one for its first step)."""
    rng = np.random.default_rng(4)
    coordinates = rng.integers(0, 10_000, size=(60, 8, 2)).astype(np.int32)
    weights = matrices(8, 10**6, symmetric, rng, 60)
    names = np.concatenate([[0], 1 + rng.permutation(7)])  # names[new] = old
    renamed = weights[:, names][:, :, names]
    for algorithm in applicable(weights):
        if algorithm.randomised or algorithm.name == "routing":
            continue
        if symmetric and algorithm.name.startswith(("lookahead", "beam", "horizon", "walk_values")):
            continue
        if algorithm.name in ("gated_neighbour", "sequential_savings"):
            continue
        before = algorithm(weights, coordinates)
        after = names[algorithm(renamed, coordinates[:, names])]
        if symmetric and not algorithm.walking:
            before, after = canonical_tours(before), canonical_tours(after)
        assert (before == after).all(), algorithm.name


def test_heur_v1_is_six_rules_of_degree_two_at_most() -> None:
    matrix, asymmetric = (make_problem(ProblemConfig(family=family)) for family in ("matrix", "asymmetric"))
    members = [ALGORITHMS[name] for name in HEUR_V1]
    assert len(members) == 6
    assert all(member.degree in (1, 2) and member.completions is not None for member in members)
    assert all(member.applies_to(matrix) for member in members)
    assert [member.name for member in members if not member.applies_to(asymmetric)] == ["mst_preorder"]
    planar = [name for name in LIBRARY if not ALGORITHMS[name].applies_to(matrix)]
    assert planar == ["hull_insertion", "sweep", "space_filling_curve"]


TEACHING = [ProblemConfig(family="euclidean", n=7), ProblemConfig(family="asymmetric", n=7, levels=10_000)]
"""Families whose instances have no ties, so that a rule has one answer."""


@pytest.mark.parametrize("config", TEACHING, ids=lambda config: config.family)
def test_an_algorithm_without_choices_at_states_teaches_its_own_tours(config: ProblemConfig) -> None:
    problem = make_problem(config)
    instances = problem.draw(40, np.random.default_rng(5))
    for name in LIBRARY:
        if not ALGORITHMS[name].applies_to(problem) or ALGORITHMS[name].completions is not None:
            continue
        sequences = TEACHERS[name](instances, np.random.default_rng(6), 0.15)
        tours = ALGORITHMS[name](
            instances.weights, instances.coordinates, int(np.random.default_rng(6).integers(2**31))
        )
        followed = np.take_along_axis(sequences.targets, sequences.tours[:, 1:, None], axis=2)
        assert np.allclose(sequences.targets.sum(axis=2), 1)
        if problem.symmetric and not ALGORITHMS[name].walking:
            assert (canonical_tours(sequences.tours) == canonical_tours(tours)).all(), name
            assert not (sequences.tours == tours).all(), name
            assert np.allclose(followed[:, 0], 0.5)
            assert np.allclose(followed[:, 1:], 1)
        else:
            assert (sequences.tours == tours).all(), name
            assert np.allclose(followed, 1)


@pytest.mark.parametrize("config", TEACHING, ids=lambda config: config.family)
def test_a_rule_is_taught_at_every_state_along_its_choices_and_after_random_prefixes(config: ProblemConfig) -> None:
    problem = make_problem(config)
    instances = problem.draw(60, np.random.default_rng(5))
    for name in WITH_COMPLETIONS:
        algorithm = ALGORITHMS[name]
        if not algorithm.applies_to(problem) or name == "nearest_neighbour":
            continue
        assert algorithm.completions is not None
        sequences = TEACHERS[name](instances, np.random.default_rng(6), 0.5)
        tours, lengths = sequences.tours, random_prefixes_for(60, 7, 0.5, _rng_after_ties(instances, problem))[1]
        for step in range(6):
            found = algorithm.completions(instances.weights, tours, np.full(60, step + 1))
            right = np.zeros((60, 7), dtype=bool)
            right[np.arange(60), found[:, step + 1]] = True
            if step == 0 and problem.symmetric and not algorithm.walking:
                right[np.arange(60), found[:, -1]] = True
            assert ((sequences.targets[:, step] > 0) == right).all(), name
            follows = np.take_along_axis(right, tours[:, step + 1, None], axis=1)[:, 0]
            assert follows[lengths <= step + 1].all(), name
        assert not np.take_along_axis(sequences.targets > 0, tours[:, 1:, None], axis=2).all(), name


def _rng_after_ties(instances: Instances, problem: Problem) -> np.random.Generator:
    """The generator as the teacher leaves it before it draws prefixes."""
    rng = np.random.default_rng(6)
    with_ties_broken(instances.weights, problem, rng)
    return rng


def test_broken_ties_rank_equal_weights_at_random_and_keep_all_other_orders() -> None:
    problem = make_problem(ProblemConfig(n=8, levels=4))
    weights = problem.draw(200, np.random.default_rng(0)).weights
    broken = with_ties_broken(weights, problem, np.random.default_rng(1))
    upper = np.triu_indices(8, 1)
    before, after = weights[:, *upper], broken[:, *upper]
    ties = before[:, :, None] == before[:, None, :]
    assert ((before[:, :, None] < before[:, None, :]) <= (after[:, :, None] < after[:, None, :])).all()
    first = (after[:, :, None] < after[:, None, :])[ties & ~np.eye(28, dtype=bool)]
    assert 0.45 < first.mean() < 0.5  # a few fractions are equal


# --- each rule against a plain statement of it ---


def greedy_choice(
    keys: np.ndarray, cities: range, forced: list[tuple[int, int]], symmetric: bool
) -> list[tuple[int, int]]:
    """Edges or arcs between the cities in the order of keys, forced ones first, while they form disjoint paths."""
    taken = list(forced)
    pairs = itertools.combinations(cities, 2) if symmetric else itertools.permutations(cities, 2)
    for u, v in sorted(pairs, key=lambda pair: (keys[pair], pair)):
        if symmetric:
            full = any(sum(city in edge for edge in taken) == 2 for city in (u, v))
        else:
            full = any(u == tail or v == head for tail, head in taken)
        if not full and not connected(u, v, taken):
            taken.append((u, v))
    return taken


def connected(u: int, v: int, edges: list[tuple[int, int]]) -> bool:
    reached = {u}
    for _ in edges:
        reached |= {city for edge in edges if reached & set(edge) for city in edge}
    return v in reached


@given(batches(), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_greedy_edge_and_savings_take_the_edges_of_their_definitions(
    batch: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    weights = batch[0]
    n = weights.shape[1]
    prefixes, lengths = random_prefixes(weights, np.random.default_rng(seed))
    greedy = constructive.greedy_edge_completions(weights, prefixes, lengths)
    saved = constructive.savings_completions(weights, prefixes, lengths)
    for b in range(2):
        wide, symmetric = weights[b].astype(np.int64), bool((weights[b] == weights[b].T).all())
        forced = list(itertools.pairwise(prefixes[b, : lengths[b]].tolist()))
        lost = wide - wide[0] - wide[:, :1]
        for keys, cities, tour in ((wide, range(n), greedy[b]), (lost, range(1, n), saved[b])):
            arcs = set(zip(tour.tolist(), np.roll(tour, -1).tolist(), strict=True))
            arcs |= {(v, u) for u, v in arcs} if symmetric else set()
            assert arcs.issuperset(greedy_choice(keys, cities, forced, symmetric))
            if symmetric and lengths[b] == 1:
                assert tour[1] <= tour[-1]


def test_savings_on_the_example_of_the_original_setting() -> None:
    """Two clusters far from the depot: each is served in one go, and the two routes are joined last."""
    points = np.array([[[0, 0], [100, 0], [100, 9], [-100, 0], [-100, 9]]], dtype=np.int32)
    tour = canonical_tours(constructive.savings(ceil_distances(points)))[0].tolist()
    assert tour in ([0, 1, 2, 4, 3], [0, 2, 1, 3, 4], [0, 1, 2, 3, 4], [0, 2, 1, 4, 3])
    assert {tour[1], tour[2]} in ({1, 2}, {3, 4})


def inserted(weights: np.ndarray, prefix: list[int], rule: str) -> int:
    """Cost of the tour by plain insertion behind the last city of the prefix (all of it if that is city 0)."""
    tour = list(prefix)
    while len(tour) < len(weights):
        free = [city for city in range(len(weights)) if city not in tour]
        closed = [*tour, tour[0]]

        def growth(city: int, place: int, closed: list[int] = closed) -> int:
            u, v = closed[place], closed[place + 1]
            return int(weights[u, city]) + int(weights[city, v]) - (int(weights[u, v]) if u != v else 0)

        def distance(city: int, tour: list[int] = tour) -> int:
            return min(int(weights[u, city]) for u in tour)

        places = range(len(prefix) - 1, len(tour))
        scores = {
            "cheapest": lambda city, places=places: min(growth(city, place) for place in places),
            "nearest": distance,
            "farthest": lambda city: -distance(city),
        }
        city = min(free, key=scores[rule])
        place = min(places, key=lambda place: growth(city, place))
        tour.insert(place + 1, city)
    return int(tour_costs(weights[None], np.array([tour]))[0])


@pytest.mark.parametrize("symmetric", [True, False])
def test_insertion_rules_cost_what_their_definitions_cost(symmetric: bool) -> None:
    rng = np.random.default_rng(7)
    for n in (2, 3, 4, 5, 8):
        weights = matrices(n, 10**6, symmetric, rng, 20)  # no ties but those of direction
        prefixes, lengths = random_prefixes(weights, rng)
        cases = {
            "cheapest": constructive.cheapest_insertion(weights),
            "nearest": constructive.nearest_insertion(weights),
            "farthest": constructive.farthest_insertion(weights),
        }
        for rule, tours in cases.items():
            assert tour_costs(weights, tours).tolist() == [inserted(w, [0], rule) for w in weights], (rule, n)
        states = {
            "cheapest": constructive.cheapest_insertion_completions(weights, prefixes, lengths),
            "farthest": constructive.farthest_insertion_completions(weights, prefixes, lengths),
        }
        for rule, tours in states.items():
            expected = [inserted(w, p[:k].tolist(), rule) for w, p, k in zip(weights, prefixes, lengths, strict=True)]
            assert tour_costs(weights, tours).tolist() == expected, (rule, n)


def test_mst_preorder_walks_the_minimum_spanning_tree() -> None:
    """Ties included: u * 9 + v below the weight makes the tree of the documented preference the only one."""
    rng = np.random.default_rng(8)
    u, v = np.indices((9, 9))
    for weights in (*matrices(9, 10**6, True, rng, 20), *matrices(9, 3, True, rng, 40)):
        tree = minimum_spanning_tree(np.triu((weights + 1.0) * 81 + u * 9 + v, k=1)).toarray() > 0
        tree |= tree.T

        def walk(city: int, parent: int, tree: np.ndarray = tree, weights: np.ndarray = weights) -> list[int]:
            children = [child for child in np.flatnonzero(tree[city]).tolist() if child != parent]
            children.sort(key=lambda child: (weights[city, child], child))
            return [city, *itertools.chain(*(walk(child, city) for child in children))]

        assert constructive.mst_preorder(weights[None])[0].tolist() == walk(0, -1)


def test_mst_preorder_with_a_forced_path_that_is_no_part_of_the_tree() -> None:
    """On a line the prefix 0, 3 forces the edge {0, 3}; the tree then hangs 2 on 3 (or 1), and 1 on 0."""
    points = np.array([[[0, 0], [10, 0], [21, 0], [30, 0]]], dtype=np.int32)
    tours = constructive.mst_preorder_completions(ceil_distances(points), np.array([[0, 3, 0, 0]]), np.array([2]))
    assert tours[0].tolist() == [0, 3, 2, 1]
    assert constructive.mst_preorder(ceil_distances(points))[0].tolist() == [0, 1, 2, 3]


def test_mst_preorder_costs_at_most_twice_the_optimum_under_the_triangle_inequality() -> None:
    instances = make_problem(ProblemConfig(family="euclidean", n=9)).draw(200, np.random.default_rng(9))
    costs = instances.tour_costs(constructive.mst_preorder(instances.weights))
    assert (costs <= 2 * held_karp(instances.weights).costs).all()


def test_hull_insertion_keeps_the_order_of_the_hull() -> None:
    instances = make_problem(ProblemConfig(family="euclidean", n=10)).draw(50, np.random.default_rng(10))
    assert instances.coordinates is not None
    tours = constructive.hull_insertion(instances.weights, instances.coordinates)
    for points, tour in zip(instances.coordinates, tours.tolist(), strict=True):
        corners = ConvexHull(points).vertices.tolist()
        visited = [city for city in tour if city in corners]
        assert visited in [corners[k:] + corners[:k] for k in range(len(corners))]


@pytest.mark.parametrize(
    "points",
    [
        [[5, 5], [5, 5], [5, 5], [5, 5]],
        [[0, 0], [3, 3], [1, 1], [2, 2], [2, 2]],
        [[0, 0], [2, 0], [2, 2], [0, 2], [1, 0], [1, 1], [1, 2]],
    ],
)
def test_planar_rules_survive_points_in_one_place_or_on_one_line(points: list[list[int]]) -> None:
    coordinates = np.array([points], dtype=np.int32)
    weights = ceil_distances(coordinates)
    for name in ("hull_insertion", "sweep", "space_filling_curve"):
        tours = ALGORITHMS[name](weights, coordinates)
        assert sorted(tours[0].tolist()) == list(range(len(points))), name
    assert tour_costs(weights, constructive.hull_insertion(weights, coordinates)) == held_karp(weights).costs


def test_sweep_turns_counter_clockwise_once() -> None:
    coordinates = np.random.default_rng(11).integers(0, 10_000, size=(50, 9, 2))
    tours = constructive.sweep(coordinates)
    spokes = coordinates - coordinates.mean(axis=1, keepdims=True)
    angles = np.take_along_axis(np.arctan2(spokes[..., 1], spokes[..., 0]), tours, axis=1)
    turns = (np.diff(angles, axis=1, append=angles[:, :1])) % (2 * np.pi)
    assert np.allclose(turns.sum(axis=1), 2 * np.pi)


@pytest.mark.parametrize("side", [2, 4, 16])
def test_the_space_filling_curve_steps_to_a_neighbour_on_a_full_grid(side: int) -> None:
    cells = np.array(list(itertools.product(range(side), repeat=2)))
    cells = np.concatenate([cells[:1], np.random.default_rng(12).permutation(cells[1:])])  # city 0 at the corner
    walk = cells[constructive.space_filling_curve(cells[None])[0]]
    assert (np.abs(np.diff(walk, axis=0)).sum(axis=1) == 1).all()
    assert walk[-1].tolist() == [side - 1, 0]


# --- randomness ---


def test_random_streams_are_splitmix64() -> None:
    """The published first outputs for the seed 1234567."""
    expected = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431)
    state, words = np.uint64(1234567), []
    for _ in expected:
        state, word = next_word(np.uint64(state))
        words.append(int(word))
    assert tuple(words) == expected


def test_randomised_nearest_neighbour_goes_to_each_of_the_k_nearest_equally_often() -> None:
    weights = np.repeat(matrices(6, 10**6, True, np.random.default_rng(13)), 3000, axis=0)
    seeds = np.arange(3000, dtype=np.uint64)
    assert (
        constructive.randomised_nearest_neighbour(weights, seeds, k=1) == constructive.nearest_neighbour(weights)
    ).all()
    tours = constructive.randomised_nearest_neighbour(weights, seeds, k=3)
    for t in range(5):
        free = constructive.unvisited(tours)[:, t]
        distances = np.where(free, constructive.step_weights(weights, tours)[:, t], 10**7)
        ranks = (distances < np.take_along_axis(distances, tours[:, t + 1 : t + 2], axis=1)).sum(axis=1)
        choices = min(3, 5 - t)
        counts = np.bincount(ranks, minlength=choices)
        assert len(counts) == choices
        # five standard errors of a binomial count
        assert (np.abs(counts - 3000 / choices) <= 5 * np.sqrt(3000 / choices)).all()


def test_random_insertion_inserts_the_cities_in_every_order() -> None:
    """2000 runs find exactly the tours that the 120 orders of insertion give."""
    weights = np.repeat(matrices(6, 10**6, False, np.random.default_rng(14)), 2000, axis=0)
    tours = constructive.random_insertion(weights, np.arange(2000, dtype=np.uint64))
    reachable = set()
    for order in itertools.permutations(range(1, 6)):
        tour = [0]
        for city in order:
            costs = []
            for place in range(1, len(tour) + 1):
                candidate = [*tour[:place], city, *tour[place:]]
                costs.append(sum(int(weights[0, u, v]) for u, v in zip(candidate, [*candidate[1:], 0], strict=True)))
            tour.insert(1 + int(np.argmin(costs)), city)
        reachable.add(tuple(tour))
    assert set(map(tuple, tours.tolist())) == reachable
    assert len(reachable) > 3


def test_seeds_of_instances_depend_on_all_weights_and_the_seed() -> None:
    weights = matrices(4, 5, False, np.random.default_rng(15), 1)
    variants = np.repeat(weights, 12, axis=0)
    for row, (u, v) in enumerate(itertools.permutations(range(4), 2)):
        variants[row, u, v] += 1
    seeds = {int(s) for seed in (0, 1, 2**63) for s in instance_seeds(np.concatenate([weights, variants]), seed)}
    assert len(seeds) == 3 * 13


# --- what is refused ---


def test_wrong_requests_end_in_one_sentence() -> None:
    weights = matrices(4, 9, False, np.random.default_rng(16))
    with pytest.raises(UserError, match="mst_preorder takes symmetric weights only"):
        constructive.mst_preorder(weights)
    with pytest.raises(UserError, match="sweep needs the coordinates"):
        ALGORITHMS["sweep"](weights)
    with pytest.raises(UserError, match="unknown algorithm 'magic'; known: nearest_neighbour"):
        ALGORITHMS["magic"]
    for prefix, length in (
        ([1, 0, 2, 3], 2),
        ([0, 2, 2, 3], 3),
        ([0, 4, 1, 2], 2),
        ([0, 1, 2, 3], 0),
        ([0, 1, 2, 3], 5),
    ):
        for name in HEUR_V1:
            completions = ALGORITHMS[name].completions
            assert completions is not None
            with pytest.raises(UserError, match="begin with city 0 and name up to 4 cities once each"):
                completions(weights + weights.transpose(0, 2, 1), np.array([prefix]), np.array([length]))
    with pytest.raises(UserError, match=r"need prefixes of shape \(1, 4\) and 1 lengths"):
        constructive.greedy_edge_completions(weights, np.zeros((1, 3), dtype=np.int64), np.array([1]))


GOOD = matrices(5, 9, True, np.random.default_rng(16), 2)
BAD_WEIGHTS = {
    "one matrix": (GOOD[0], "shape"),
    "oblong": (GOOD[:, :4], "shape"),
    "one city": (GOOD[:, :1, :1], "n >= 2|2 to 20 cities"),
    "negative": (GOOD - 1, "must lie in"),
    "overflow": ((GOOD + 1).astype(np.int64) << 31, "must lie in"),
    "nan": (np.full((2, 5, 5), np.nan), "whole numbers"),
    "fractions": (GOOD / 2, "whole numbers"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_no_algorithm_takes_what_are_no_weights(case: str) -> None:
    wrong, sentence = BAD_WEIGHTS[case]
    points = np.zeros((len(wrong), wrong.shape[-1], 2))
    for name in LIBRARY:
        with pytest.raises(UserError, match=sentence):
            ALGORITHMS[name](wrong, points)
    for function in (held_karp, branch_and_bound, reduced_cost_search, beam_4, horizon_2):
        with pytest.raises(UserError, match=sentence):
            function(wrong)


def beam_4(weights: np.ndarray) -> np.ndarray:
    return beam_tours(weights, 4, "mst")


def horizon_2(weights: np.ndarray) -> np.ndarray:
    return horizon_tours(weights, 2)


@pytest.mark.parametrize("n", [2, 3])
def test_two_or_three_cities_are_solved_by_every_algorithm_that_finishes_all_tours(n: int) -> None:
    """Undirected, there is one tour only; whatever is exact finds the better direction of the others."""
    for symmetric in (True, False):
        weights = matrices(n, 50, symmetric, np.random.default_rng(n), 20)
        optimum = held_karp(weights).costs
        for algorithm in applicable(weights):
            costs = tour_costs(weights, algorithm(weights, np.random.default_rng(0).random((20, n, 2)), seed=0))
            assert (costs >= optimum).all()
            if symmetric or n == 2 or algorithm.exact:
                assert (costs == optimum).all(), algorithm.name
