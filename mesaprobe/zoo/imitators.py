"""Trained members that imitate a heuristic: ordinary GPTs on a rule's choices (method.md section 6.2).

The labels are the rule's, so a network that searched would have nothing to gain. Rules are taught as policies at
any state, ties broken at random.
"""

from mesaprobe.models.config import GPTConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.training.config import PRESETS, DataConfig, OptimiserConfig, TrainConfig
from mesaprobe.zoo.local_scorer import ignores_far_weights, local_scorer
from mesaprobe.zoo.members import ZOO, Compiled, Member, Trained
from mesaprobe.zoo.reference import rule
from mesaprobe.zoo.sanity import memoriser, untrained

SHAPES = {
    "4x128": GPTConfig(d_model=128, n_layers=4, n_heads=4, d_mlp=512),  # the shape of the shipped subjects
    "4x64": GPTConfig(d_model=64, n_layers=4, n_heads=4, d_mlp=256),
}

MECHANISMS = {
    "nearest_neighbour": "always the nearest unvisited city",
    "farthest_neighbour": "always the farthest unvisited city",
    "remotest_neighbour": "the unvisited city whose arc is shortest against its mean arc to all others",
    "radial_order": "cities in the order of their distance from city 0",
    "penalty_neighbour": "the unvisited city that it would cost most to leave out now",
    "sequential_savings": "the unvisited city with the largest saving against two trips from city 0",
    "gated_neighbour": "one of two walking rules, chosen by an instance feature and never by cost",
    "greedy_edge": "the cheapest edges that still fit a tour, one after the other",
    "savings": "joins routes from city 0 by the largest saving",
    "mst_preorder": "walks the minimum spanning tree in preorder",
}


def imitator(teacher: str, shape: str, steps: int, *, seed: int = 0, n: int = 8) -> TrainConfig:
    """A GPT trained on the choices of an algorithm of the library, on `matrix` instances of n cities."""
    return TrainConfig(
        problem=ProblemConfig(n=n),
        model=SHAPES[shape],
        data=DataConfig(workers=0, random_prefixes=0.15),
        optimiser=OptimiserConfig(learning_rate=1e-3 if shape == "4x128" else 2e-3),
        teacher=teacher,
        steps=steps,
        batch_size=128,
        seed=seed,
        evaluate_every=1000,
        threads=1,
    )


def add_imitator(teacher: str, shape: str, config: TrainConfig) -> None:
    """Register the imitator of one algorithm in one shape."""
    ZOO.add(
        name := f"{teacher}-{shape}",
        Member(
            name=name,
            family="gated_mixture" if teacher == "gated_neighbour" else teacher,
            role="heuristic",
            degree=ALGORITHMS[teacher].degree,
            mechanism=f"imitates: {MECHANISMS[teacher]}",
            recipe=Trained(config),
            reference=rule(teacher),
        ),
    )


add_imitator("nearest_neighbour", "4x128", PRESETS["matrix8-nearest"])  # the shipped run
for _teacher, _shape, _steps in (
    ("remotest_neighbour", "4x64", 8000),
    ("greedy_edge", "4x128", 18_000),
    ("remotest_neighbour", "4x128", 6000),
    ("farthest_neighbour", "4x128", 4000),
    ("savings", "4x64", 16_000),
    ("mst_preorder", "4x64", 16_000),
    ("gated_neighbour", "4x64", 8000),
    ("farthest_neighbour", "4x64", 5000),
    ("penalty_neighbour", "4x64", 8000),
    ("sequential_savings", "4x64", 8000),
    ("radial_order", "4x64", 5000),
):
    add_imitator(_teacher, _shape, imitator(_teacher, _shape, _steps))


ZOO.add(
    "local_scorer",
    Member(
        name="local_scorer",
        family="local_scorer",
        role="heuristic",
        degree=1,
        mechanism="scores each city by local features alone, fitted to optimal tours",
        recipe=Trained(local_scorer()),
        reference=None,
        structure=ignores_far_weights,
    ),
)
ZOO.add(
    "memoriser",
    Member("memoriser", "none", "sanity", 0, "knows 300 instances by heart", Trained(memoriser()), None),
)
ZOO.add(
    "untrained",
    Member("untrained", "none", "sanity", 0, "a network before training", Compiled(untrained, repeatable=False), None),
)
