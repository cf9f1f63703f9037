"""Fixed-horizon rules against plain Python, and between their known extremes."""

import numpy as np
import pytest
from hostile_weights import KINDS, draw_batch, instances, random_tours
from hypothesis import given, settings
from hypothesis import strategies as st

from mesaprobe.errors import UserError
from mesaprobe.labels.choices import choices_along
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.constructive import nearest_neighbour
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.fixed_horizon import (
    horizon_beam_completions,
    horizon_beam_values,
    horizon_completions,
    horizon_tours,
    horizon_values,
    walk_completions,
    walk_values,
)
from mesaprobe.solvers.lookahead import UNREACHABLE, lookahead_values
from mesaprobe.zoo.catalogue import ZOO
from mesaprobe.zoo.certificates import nearest_rival

Values = dict[int, int]


def extensions(weights: np.ndarray, path: list[int], free: list[int]) -> list[tuple[int, list[int]]]:
    """Arc cost and longer path, for every arc a tour may take next; a path that is home stays there."""
    onward = [city for city in free if city not in path]
    if onward:
        return [(int(weights[path[-1], city]), [*path, city]) for city in onward]
    return [(0, path)] if len(path) > 1 and path[-1] == 0 else [(int(weights[path[-1], 0]), [*path, 0])]


def direct_beam(weights: np.ndarray, current: int, free: list[int], width: int, arcs: int) -> Values:
    """Beam on lists of paths; Python's sort is stable. With an endless width it is the look-ahead."""
    beam: list[tuple[int, list[int]]] = [(0, [current])]
    for arc in range(arcs):
        kept = sorted(beam, key=lambda entry: entry[0])[:width] if arc else beam
        beam = [(cost + more, longer) for cost, path in kept for more, longer in extensions(weights, path, free)]
    values: Values = {}
    for cost, path in beam:
        values[path[1]] = min(cost, values.get(path[1], cost))
    return values


def direct_walks(weights: np.ndarray, current: int, free: list[int], iterations: int, two_cycles: bool) -> Values:
    def rest(before: int, i: int, k: int) -> float:
        if k == 0:
            return float(weights[i, 0])
        onward = [j for j in free if j != i and (two_cycles or j != before)]
        return min((weights[i, j] + rest(i, j, k - 1) for j in onward), default=np.inf)

    k = min(iterations, len(free) - 1)
    return {a: int(weights[current, a] + rest(current, a, k)) for a in free}


def at_state(values: np.ndarray, tour: np.ndarray, length: int) -> Values:
    row = values[length - 1]
    assert (row[tour[:length]] == UNREACHABLE).all()
    return {city: int(row[city]) for city in sorted(tour[length:]) if row[city] != UNREACHABLE}


@given(instances(largest=7), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32), st.data())
@settings(max_examples=100, deadline=None)
def test_values_and_choices_are_what_plain_python_finds(
    weights: np.ndarray, steps: int, width: int, seed: int, data: st.DataObject
) -> None:
    n = weights.shape[1]
    tour, length = random_tours(1, n, seed), data.draw(st.integers(1, n - 1))
    current, free = int(tour[0, length - 1]), sorted(tour[0, length:].tolist())
    found = {
        "paths": (horizon_values(weights, tour, steps), horizon_completions, (steps,), {}),
        "beam": (horizon_beam_values(weights, tour, width, steps), horizon_beam_completions, (width, steps), {}),
        "walks": (walk_values(weights, tour, steps), walk_completions, (steps,), {}),
        "no two-cycles": (
            walk_values(weights, tour, steps, two_cycles=False),
            walk_completions,
            (steps,),
            {"two_cycles": False},
        ),
    }
    expected = {
        "paths": direct_beam(weights[0], current, free, 10**9, steps),
        "beam": direct_beam(weights[0], current, free, width, steps),
        "walks": direct_walks(weights[0], current, free, steps, True),
        "no two-cycles": direct_walks(weights[0], current, free, steps, False),
    }
    prefix = tour.copy()
    prefix[0, length:] = -1
    for name, (values, completions, arguments, options) in found.items():
        assert at_state(values[0], tour[0], length) == expected[name], name
        completed = completions(weights, prefix, np.array([length]), *arguments, **options)[0]
        assert (completed[:length] == tour[0, :length]).all()
        assert sorted(completed) == list(range(n))
        assert completed[length] == min(expected[name], key=lambda city: (expected[name][city], city)), name


@pytest.mark.parametrize("kind", KINDS)
def test_one_arc_is_nearest_neighbour_and_all_arcs_are_exact(kind: str) -> None:
    weights, tours = draw_batch(kind, 7, 20, seed=0), random_tours(20, 7, seed=1)
    assert (horizon_tours(weights, 1) == nearest_neighbour(weights)).all()
    exact = lookahead_values(weights, tours, 6)
    assert (horizon_values(weights, tours, 7) == exact).all()
    assert (exact[:, 0].min(1) == held_karp(weights).costs).all()


@pytest.mark.parametrize("kind", KINDS)
def test_walks_bound_the_completions_from_below_and_the_beam_bounds_the_look_ahead_from_above(kind: str) -> None:
    weights, tours = draw_batch(kind, 7, 30, seed=2), random_tours(30, 7, seed=3)
    loose, tight = (walk_values(weights, tours, 5, two_cycles=allowed) for allowed in (True, False))
    assert (loose <= tight).all()
    assert (tight <= lookahead_values(weights, tours, 6)).all()
    ahead = horizon_values(weights, tours, 4)
    assert (horizon_beam_values(weights, tours, 4, 4) >= ahead).all()
    assert (horizon_beam_values(weights, tours, 10**6, 4) == ahead).all()


def test_a_horizon_or_width_of_nothing_is_refused() -> None:
    weights, tours = draw_batch("random", 5, 1, seed=0), random_tours(1, 5, seed=0)
    with pytest.raises(UserError, match="horizon must be at least 1, got 0"):
        horizon_values(weights, tours, 0)
    with pytest.raises(UserError, match="beam width must be at least 1, got 0"):
        horizon_beam_values(weights, tours, 0, 2)
    with pytest.raises(UserError, match="iterations must be at least 0, got -1"):
        walk_values(weights, tours, -1)


NAMED = {
    "horizon_2": lambda weights, tours: horizon_values(weights, tours, 2),
    "horizon_3": lambda weights, tours: horizon_values(weights, tours, 3),
    "horizon_beam_4": lambda weights, tours: horizon_beam_values(weights, tours, 4, 4),
    "walk_values_4": lambda weights, tours: walk_values(weights, tours, 4),
    "walk_values_3_no_two_cycles": lambda weights, tours: walk_values(weights, tours, 3, two_cycles=False),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_library_knows_them_by_the_sizes_in_their_names(name: str) -> None:
    weights = draw_batch("asymmetric huge", 8, 40, seed=4)
    tours = ALGORITHMS[name](weights)
    chosen = NAMED[name](weights, tours).argmin(axis=2)
    assert (tours[:, 1:] == chosen).all()


def test_no_compiled_network_has_its_own_mechanism_for_a_rival() -> None:
    """The library's rule of that name is what the network was written as, so it is left out of the comparison."""
    instances = make_problem(ProblemConfig(n=8)).draw(40, np.random.default_rng(0))
    tours = random_tours(40, 8, seed=1)
    for member, name in (
        ("lookahead-2", "horizon_2"),
        ("beam-4", "horizon_beam_4"),
        ("value-iteration", "walk_values_4"),
    ):
        reference = ZOO[member].reference
        assert reference is not None
        allowed = reference(instances, tours, np.random.default_rng(0))
        completions = ALGORITHMS[name].completions
        assert completions is not None
        named = choices_along(completions, instances.weights, tours)
        assert np.take_along_axis(allowed, named[:, :, None], axis=2).all()
        assert nearest_rival(reference, instances, tours, np.random.default_rng(0))[0] != name
