"""A constructive rule that was learnt: the looped shell adds edges by a score fitted to optimal tours.

It is to greedy edge what the local scorer is to nearest neighbour (method.md section 6.2, N7): a negative as good as
its architecture can be. That it compares no completions is true by construction, and the certificate checks it on the
weights that are kept: the score of an edge depends on no weight but those that touch its ends or city 0, not even in
the last bit; every loop adds one edge and removes none; and what is named stands beside the current city.
"""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from mesaprobe.models.building_steps import owners, pairs
from mesaprobe.models.config import TourBuilderConfig
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.models.tour_builder import TourBuilder
from mesaprobe.problems import Instances, ProblemConfig, random_tours
from mesaprobe.training.config import OptimiserConfig
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import OptimalEdges


def edge_scorer(*, steps: int = 3000, loops: int = 8, seed: int = 0, n: int = 8) -> Course:
    """An edge scorer of `matrix` instances of n cities."""
    return Course(
        lesson=OptimalEdges(),
        problem=ProblemConfig(n=n),
        model=TourBuilderConfig(n_layers=loops, steps="edges", d_mlp=32),
        optimiser=OptimiserConfig(learning_rate=1e-2, warmup_steps=50),
        steps=steps,
        batch_size=32,
        evaluate_every=100,
        seed=seed,
    )


def scores_edges_alone(
    subject: Subject, instances: Instances, rng: np.random.Generator
) -> Bool[np.ndarray, "check batch t"]:
    """At the n - 1 states along random tours, three kinds of checks, one after the other. For every loop and edge:
    does its score survive a fresh draw of all weights that touch neither its ends nor city 0? For every loop: is the
    partial tour behind it the one before it and one allowed edge? And is a neighbour of the current city named?

    The certificate of an edge scorer: True everywhere. For problems whose features are the weights (`matrix`).
    """
    assert isinstance(subject, ModuleSubject)
    network = subject.module
    assert isinstance(network, TourBuilder)
    n, loops, steps = network.n, network.config.n_layers, network.steps
    tours = torch.from_numpy(random_tours(len(instances), n, rng)[:, :-1])
    features, redrawn = torch.from_numpy(instances.features), instances.problem.draw(len(instances), rng).weights
    hooks = ["blocks.0.hook_resid_pre", *(f"blocks.{loop}.hook_resid_post" for loop in range(loops))]
    seen = subject.activations(features, tours, hooks)
    partials = [seen[hook][:, n:].unflatten(2, (n, n)) for hook in hooks]
    checks: list[Tensor] = []
    with torch.no_grad():
        before = [network.scores(features, partials[loop], loop) for loop in range(loops)]
        for ends in zip(*pairs(n), strict=True):
            kept = np.isin(np.arange(n), [0, *ends])
            mixed = np.where(kept[:, None] | kept, instances.weights, redrawn)
            shown = torch.from_numpy(Instances(instances.problem, mixed).features)
            for loop in range(loops):
                same = network.scores(shown, partials[loop], loop) == before[loop]
                checks.append((same | ~_adds(partials[loop], ends)).all(-1))
    for old, new in itertools.pairwise(partials):
        shares = torch.eye(steps.count(n))[:, None, None]
        after = torch.stack([steps.taken(old, share.expand(*old.shape[:2], -1)) for share in shares], dim=2)
        checks.append(((after == new[:, :, None]).all(-1).all(-1) & steps.allowed(old)).any(-1))
    named = subject.logits(features, tours).argmax(-1, keepdim=True)
    checks.append(steps.following(partials[-1]).gather(-1, named)[..., 0])
    return torch.stack(checks).numpy()


def _adds(partial: Tensor, ends: tuple[int, int]) -> Tensor:
    """Which steps add the edge between two cities, [batch, t, step]."""
    owner, (i, j) = owners(partial), pairs(partial.shape[-1])
    touched = owner[..., list(ends)].sum(-1)
    return F.pad((touched[..., i] + touched[..., j]) > 1.5, (1, 0))
