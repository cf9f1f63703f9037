"""Search by architecture, its states unsupervised: families tree_unroll and value_iteration_network.

A network that can name a city only by comparing continuations, trained end to end on optimal tours (`models.planners`).
What its states hold nobody has told it; that its choice is the least of the costs that it compares is true by
construction, and the certificate checks it on the weights that are kept.

The same shells as negatives (amendment 6), taught by walking rules: there the costs beyond the next arc have to say
nothing, or nothing but the next city's distance from city 0, and a rule that needs no comparison is all that is left.
(The tree never sees that distance, so it can't be taught the second rule. The iteration network could hold it, but
did not learn it; it is listed under discarded.)
"""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mesaprobe.models.config import PlannerConfig
from mesaprobe.models.planners import VISITED, Planner, others, soft_minimum
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import Instances, ProblemConfig, random_tours
from mesaprobe.training.config import DataConfig, OptimiserConfig, TrainConfig
from mesaprobe.zoo.members import ZOO, Member, Trained
from mesaprobe.zoo.reference import rule

TREE = PlannerConfig(kind="tree", width=32, d_mlp=64)
ITERATION = PlannerConfig(kind="iteration", n_layers=4, width=4, d_mlp=64)
TOLERANCE = 1e-4
"""Largest difference of two logits that count as equal, as a share of the largest."""


def planner(
    shape: PlannerConfig, steps: int, rate: float, *, teacher: str = "optimal", seed: int = 0, n: int = 8
) -> TrainConfig:
    """A planner trained on the choices of a teacher on `matrix` instances of n cities."""
    return TrainConfig(
        problem=ProblemConfig(n=n),
        model=shape,
        data=DataConfig(workers=0, random_prefixes=0.15),
        optimiser=OptimiserConfig(learning_rate=rate, warmup_steps=50),
        teacher=teacher,
        steps=steps,
        batch_size=64,
        seed=seed,
        evaluate_every=300,
        threads=1,
    )


def follows_compared_costs(
    subject: Subject, instances: Instances, rng: np.random.Generator
) -> Bool[np.ndarray, "batch step n"]:
    """Whether the logit of each free city is -s (d(c, a) + softmin of row a) when half of the costs that the last
    block compares come from another instance, at the n - 1 states along random tours (visited cities: True).

    The certificate of a planner: True everywhere. A network with any other way from the instance to its logits
    cannot have it.
    """
    assert isinstance(subject, ModuleSubject)
    network = subject.module
    assert isinstance(network, Planner)
    n = instances.problem.n
    tours = torch.from_numpy(random_tours(len(instances), n, rng)[:, :-1])
    source = instances.problem.draw(len(instances), rng)
    rows, other = torch.from_numpy(instances.features), torch.from_numpy(source.features)
    hook = f"blocks.{network.config.n_layers - 1}.hook_costs"
    own, theirs = (subject.activations(features, tours, [hook])[hook] for features in (rows, other))
    taken = torch.from_numpy(rng.random(own.shape) < 0.5)
    compared = torch.where(taken, theirs, own)

    def edit(activation: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        return compared

    with torch.no_grad():
        logits = network.run_with_hooks(rows, tours, fwd_hooks=[(hook, edit)])
        free = torch.nn.functional.one_hot(tours, n).cumsum(1) == 0
        left = others(free)
        onward = soft_minimum(compared, left | ~left.any(-1, keepdim=True), network.sharpness)
        onward = torch.where(left.any(-1), onward, rows[:, None, :, 0].expand_as(onward))
        now = rows.gather(1, tours[:, :, None].expand(-1, -1, n))
        expected = -network.unembed.log_scale.exp() * (now + onward + VISITED * ~free)
        largest = expected.where(free, torch.zeros(())).abs().amax(-1, keepdim=True)
        same = (logits - expected).abs() <= TOLERANCE * largest.clamp(min=1.0)
    return (same | ~free).numpy()


def _add(name: str, family: str, degree: int, mechanism: str, config: TrainConfig) -> None:
    ZOO.add(
        name,
        Member(
            name=name,
            family=family,
            role="search",
            degree=degree,
            mechanism=mechanism,
            recipe=Trained(config),
            reference=None,
            structure=follows_compared_costs,
        ),
    )


_add(
    "tree_unroll",
    "tree_unroll",
    3,
    "unrolls the next two arcs with a learnt transition and picks by the best learnt value of the states there",
    planner(TREE, 750, 2e-3),
)
_add(
    "value_iteration_network",
    "value_iteration_network",
    5,
    "iterates learnt values of free cities by soft minima and picks by them",
    planner(ITERATION, 800, 5e-3),
)
for _teacher, _shell, _shape, _rate, _attempts, _words in (
    ("nearest_neighbour", "tree_unroll", TREE, 2e-3, (1500, 6000), "the nearest unvisited city"),
    ("nearest_neighbour", "value_iteration_network", ITERATION, 5e-3, (1500,), "the nearest unvisited city"),
    (
        "sequential_savings",
        "value_iteration_network",
        ITERATION,
        5e-3,
        (1500,),
        "the unvisited city with the largest saving against two trips from city 0",
    ),
):
    for _suffix, _steps in zip(("", "-long"), _attempts, strict=False):
        ZOO.add(
            _name := f"{_teacher}-in-{_shell}{_suffix}",
            Member(
                name=_name,
                family=_teacher,
                role="heuristic",
                degree=1,
                mechanism=f"the shell of {_shell}, taught: {_words}",
                recipe=Trained(planner(_shape, _steps, _rate, teacher=_teacher)),
                reference=rule(_teacher),
            ),
        )
