"""Sanity members, which are no families: a network that knows 300 instances by heart, and one that knows nothing.

A line of evidence that calls either a searcher measures something else (method.md section 6.2, N9 and N11).
"""

from mesaprobe.models.config import ArchitectureConfig, GPTConfig
from mesaprobe.models.gpt import TourGPT
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.training.config import DataConfig, OptimiserConfig, TrainConfig

MEMORISED = 300
"""Instances of a memoriser."""
SHAPE = GPTConfig(d_model=64, n_layers=4, n_heads=4, d_mlp=256)


def memoriser(
    shape: ArchitectureConfig = SHAPE, *, instances: int = MEMORISED, steps: int = 3000, seed: int = 0, n: int = 8
) -> TrainConfig:
    """A network shown the same optimal tours of a few `matrix` instances again and again, without decay of weights.

    What it was shown is drawn again by `evaluation_instances(config, "fixed", count)`.

    >>> memoriser().data.fixed_instances
    300
    """
    return TrainConfig(
        problem=ProblemConfig(n=n),
        model=shape,
        data=DataConfig(workers=0, random_prefixes=0.0, fixed_instances=instances),
        optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200, weight_decay=0.0),
        steps=steps,
        batch_size=128,
        seed=seed,
        evaluate_every=500,
        threads=1,
    )


def untrained(shape: GPTConfig = SHAPE, *, seed: int = 0, n: int = 8) -> TourGPT:
    """A GPT as it is before training, for `matrix` instances of n cities.

    >>> untrained(n=5).n
    5
    """
    return TourGPT(shape, n, make_problem(ProblemConfig(n=n)).feature_width, seed=seed)
