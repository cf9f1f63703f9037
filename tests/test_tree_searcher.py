"""Branch and bound in a stream: the walk is exact, decisions are what is learnt, and states can be exchanged."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import torch

from mesaprobe.instruments.activations import residual_sites
from mesaprobe.instruments.lens import readout
from mesaprobe.models import network_subject
from mesaprobe.models.config import TreeSearcherConfig
from mesaprobe.models.tree_searcher import Node, TreeSearcher, look, place
from mesaprobe.problems import Instances, ProblemConfig, make_problem, random_tours
from mesaprobe.solvers.constructive import nearest_neighbour_completions
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course, read_course
from mesaprobe.training.lessons import SearchStates
from mesaprobe.training.search_states import exact_search
from mesaprobe.training.teaching import teach
from mesaprobe.zoo.branch_and_bound import Nodes, as_fractions
from mesaprobe.zoo.searcher_certificates import measure_states

N = 6
PROBLEM = make_problem(ProblemConfig(n=N))
LOOPS = 12


def drawn(count: int, seed: int = 0) -> tuple[Instances, np.ndarray]:
    rng = np.random.default_rng(seed)
    return PROBLEM.draw(count, rng), random_tours(count, N, rng)


def searched(instances: Instances, tours: np.ndarray, loops: int, *, first_only: bool = False) -> list[Node]:
    current, free = place(torch.from_numpy(tours[:, :-1]), N)
    return exact_search(as_fractions(instances.weights), current, free, loops, first_only=first_only)


def by_loops(weights: np.ndarray, prefix: list[int], loops: int) -> tuple[list[int] | None, float, bool, int]:
    """The same search written with a stack: best completion, its cost, whether it is done, and backtracks."""
    n = len(weights)
    best: list[int] | None = None
    best_cost = np.inf
    path: list[int] = []
    tried: list[set[int]] = [set()]
    backtracks = 0
    for _ in range(loops):
        cities = [prefix[-1], *path]
        left = [u for u in range(n) if u not in prefix and u not in path]
        spent = sum(weights[u, v] for u, v in itertools.pairwise(cities))
        bound = spent + sum(min(weights[v, w] for w in [*left, 0] if w != v) for v in [cities[-1], *left])
        go_on = bound < best_cost
        if go_on and not left:
            best, best_cost = list(path), bound
        level = len(path) if go_on and left else len(path) - 1
        before = len(path)
        while level >= 0:
            open_children = [u for u in range(n) if u not in prefix and u not in path[:level] and u not in tried[level]]
            if open_children:
                break
            level -= 1
        if level < 0:
            return best, best_cost, True, backtracks
        backtracks += level < before
        parent = [prefix[-1], *path][level]
        child = min(open_children, key=lambda u: (weights[parent, u], u))
        tried = [*tried[: level + 1], set()]
        tried[level].add(child)
        path = [*path[:level], child]
    return best, best_cost, False, backtracks


def test_the_negative_keeps_its_first_completion_which_is_the_nearest_neighbours() -> None:
    instances, tours = drawn(30)
    first, last = (searched(instances, tours, loops, first_only=True)[-1] for loops in (N, 3 * LOOPS))
    for t in range(N - 2):
        walked = nearest_neighbour_completions(instances.weights, tours, np.full(30, t + 1))
        assert (first.best[:, t, 0].argmax(-1).numpy() == walked[:, t + 1]).all()
    assert torch.equal(first.best, last.best)
    assert torch.equal(first.best_cost, last.best_cost)
    assert bool(last.pruned[:, : N - 3].all())  # it went on to other nodes and gave up each


def test_the_walk_is_that_of_a_stack() -> None:
    instances, tours = drawn(8)
    for loops in (3, 7, 15, 40):
        last = searched(instances, tours, loops)[-1]
        scale = 2 ** np.ceil(np.log2(float(instances.weights.max()) + 1))
        for b, t in np.ndindex(8, N - 1):
            best, cost, done, _ = by_loops(instances.weights[b].astype(float), list(tours[b, : t + 1]), loops)
            assert bool(last.done[b, t]) == done
            assert bool(last.found[b, t]) == (best is not None)
            if best is not None:
                held = last.best[b, t]
                assert held.argmax(-1)[: len(best)].tolist() == best
                assert float(last.best_cost[b, t]) * scale == cost


def test_with_time_enough_it_finds_the_optimum_and_is_done() -> None:
    instances, tours = drawn(20)
    last = searched(instances, tours, 400)[-1]
    values = action_values(instances.weights, tours).min(axis=2)
    scale = 2 ** np.ceil(np.log2(float(instances.weights.max()) + 1))
    assert last.done.all()
    assert (last.best_cost.numpy() * scale == values).all()


def test_it_backtracks_and_its_incumbent_only_gets_better() -> None:
    instances, tours = drawn(30)
    nodes = searched(instances, tours, 25)
    depth = torch.stack([node.depth.argmax(-1) for node in nodes])[:, :, 0]
    assert ((depth[1:] - depth[:-1]) < -1).any(0).float().mean() > 0.5
    found = torch.stack([torch.where(node.found > 0.5, node.best_cost, torch.inf) for node in nodes])
    assert (found[1:] <= found[:-1]).all()
    assert ((found[1:] < found[:-1]).sum(0) > 1).any()


def test_the_first_leaf_is_nearest_neighbour() -> None:
    instances, tours = drawn(30)
    leaf = searched(instances, tours, N)[-1]
    nearest = nearest_neighbour_completions(instances.weights, tours, np.ones(len(tours), dtype=np.int64))
    assert (leaf.best[:, 0].argmax(-1)[:, : N - 1].numpy() == nearest[:, 1:]).all()


def test_a_node_survives_the_stream() -> None:
    instances, tours = drawn(5)
    node = searched(instances, tours, 9)[-1]
    again = Node.unpacked(node.packed(N * 20), N)
    for name, part in node._asdict().items():
        assert torch.equal(part, getattr(again, name)), name


def by_hand() -> TreeSearcher:
    """A searcher whose judgement is exact: cheapest arc, nearest child, strict comparison."""
    network = TreeSearcher(TreeSearcherConfig(n_layers=LOOPS, d_mlp=4), N, N).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.judgement.arc.weight[0, 0] = 1.0
        network.judgement.child_arc.weight[0, 0] = -1.0
        network.judgement.comparison.weight[0, 0] = 1.0
        network.judgement.comparison.bias[0] = -0.5 / 64
        network.unembed.weight[torch.arange(N), 2 * N * N + torch.arange(N)] = 10.0
    return network


def test_a_searcher_with_exact_judgement_is_certified() -> None:
    subject, nodes = network_subject(by_hand(), PROBLEM, "by hand"), Nodes(LOOPS)
    instances, tours = drawn(100)
    allowed = nodes(instances, tours, np.random.default_rng(0))
    chosen = subject.logits(torch.from_numpy(instances.features), torch.from_numpy(tours[:, :-1])).argmax(-1).numpy()
    assert np.take_along_axis(allowed, chosen[:, :, None], axis=2).all()
    test = measure_states(subject, nodes, nodes)
    assert test.interchange_accuracy > 0.97, test.why
    assert test.error_agreement > 0.97, test.why


def test_a_searcher_is_looked_into_like_any_other_network() -> None:
    instances, tours = drawn(4)
    subject, shown = network_subject(by_hand(), PROBLEM, "by hand"), torch.from_numpy(tours[:, :3])
    features = torch.from_numpy(instances.features)
    assert len(residual_sites(subject, roles=("decode",))) == 1 + LOOPS
    hook = f"blocks.{LOOPS - 1}.hook_resid_post"
    stream = subject.activations(features, shown, [hook])[hook]
    torch.testing.assert_close(readout(subject)(stream[:, N:]), subject.logits(features, shown))
    first = "blocks.0.hook_resid_pre"
    other = subject.activations(features.flip(0), shown, [first])[first]
    swapped = subject.edited_logits(features, shown, {first: lambda activation, hook: other})  # noqa: ARG005
    torch.testing.assert_close(swapped, subject.next_city_logits(features.flip(0), shown))


def test_what_is_seen_at_a_node() -> None:
    instances, tours = drawn(6)
    current, free = place(torch.from_numpy(tours[:, :-1]), N)
    rows = as_fractions(instances.weights)
    visit = look(searched(instances, tours, 3)[-1], rows, current.double(), free)
    for b in range(6):
        nearest = nearest_neighbour_completions(instances.weights, tours, np.full(6, 2))[b]
        path = nearest[2:5]  # three cities beyond a prefix of two
        spent = sum(float(rows[b, u, v]) for u, v in itertools.pairwise([tours[b, 1], *path]))
        assert float(visit.spent[b, 1]) == spent
        assert visit.cities[b, 1].argmax(-1)[1:4].tolist() == path.tolist()
        left = set(range(N)) - set(tours[b, :2]) - set(path)
        assert set(torch.nonzero(visit.leaves[b, 1])[:, 0].tolist()) == {path[-1], *left}


def test_it_learns_to_decide(tmp_path: Path) -> None:
    course = Course(
        SearchStates(),
        ProblemConfig(n=N),
        TreeSearcherConfig(n_layers=8, d_mlp=8),
        optimiser=OptimiserConfig(learning_rate=2e-2, warmup_steps=10),
        steps=120,
        batch_size=8,
        evaluate_every=40,
    )
    rows: list[dict[str, float]] = []
    teach(course, tmp_path, rows.append)
    assert rows[-1]["child"] > 0.93
    assert rows[-1]["bound_error"] < 0.3 * rows[0]["bound_error"]
    assert rows[-1]["right_city"] > 0.8
    assert read_course(tmp_path / "config.json") == course
    assert dataclasses.replace(course, steps=1) != course
