"""The hard negative: a scorer of single candidates, trained on optimal tours (method.md section 6.2, N7).

It learns as much of optimal play as a fixed map of local features can hold. That it compares no completions is true
by construction, and the certificate checks it on the weights that are kept: no weight between two cities other than
city 0, the current city and the candidate may change the candidate's logit, not even in its last bit.
"""

import numpy as np
import torch
from jaxtyping import Bool

from mesaprobe.models.config import LocalScorerConfig
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances, ProblemConfig, random_tours
from mesaprobe.training.config import DataConfig, OptimiserConfig, TrainConfig

SHAPE = LocalScorerConfig(width=16, n_layers=4, d_mlp=64, neighbours=7)
"""At n = 8 the stream is as wide and as deep as that of the shipped subjects (4 layers, d_model 128), and the rows
are known whole, sorted."""


def local_scorer(shape: LocalScorerConfig = SHAPE, *, steps: int = 16_000, seed: int = 0, n: int = 8) -> TrainConfig:
    """A local scorer trained on the optimal actions of `matrix` instances of n cities."""
    return TrainConfig(
        problem=ProblemConfig(n=n),
        model=shape,
        data=DataConfig(workers=0, random_prefixes=0.15),
        optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=100),
        teacher="optimal",
        steps=steps,
        batch_size=256,
        seed=seed,
        evaluate_every=1000,
        threads=1,
    )


def ignores_far_weights(
    subject: Subject, instances: Instances, rng: np.random.Generator
) -> Bool[np.ndarray, "batch step n"]:
    """Whether the logit of each candidate survives, bit by bit, a fresh draw of all weights that touch neither it
    nor the current city nor city 0, at the n - 1 states along random tours.

    The certificate of a local scorer: True everywhere. A network that compares completions cannot have it. For
    problems whose features are the weights (`matrix`, `asymmetric`).
    """
    n = instances.problem.n
    tours = random_tours(len(instances), instances.problem.n, rng)
    redrawn = instances.problem.draw(len(instances), rng)
    prefixes = torch.from_numpy(tours[:, :-1])
    before = subject.logits(torch.from_numpy(instances.features), prefixes).numpy()
    same = np.empty(before.shape, dtype=bool)
    for step in range(n - 1):
        for candidate in range(n):
            kept = np.zeros((len(instances), n), dtype=bool)
            kept[:, [0, candidate]] = True
            np.put_along_axis(kept, tours[:, step : step + 1], True, axis=1)
            mixed = np.where(kept[:, :, None] | kept[:, None, :], instances.weights, redrawn.weights)
            features = torch.from_numpy(Instances(instances.problem, mixed).features)
            after = subject.logits(features, prefixes).numpy()
            same[:, step, candidate] = after[:, step, candidate] == before[:, step, candidate]
    return same
