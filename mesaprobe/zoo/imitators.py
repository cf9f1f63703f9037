"""Recipes of trained members that imitate a heuristic: ordinary GPTs on a rule's choices (method.md section 6.2).

The labels are the rule's, so a network that searched would have nothing to gain. Each recipe is a `TrainConfig`;
the run is repeatable from its seed. Rules are taught as policies at any state, ties broken at random.
"""

from mesaprobe.models.config import GPTConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.training.config import DataConfig, OptimiserConfig, TrainConfig

SHIPPED = GPTConfig(d_model=128, n_layers=4, n_heads=4, d_mlp=512)
"""The shape of the shipped subjects."""
SMALL = GPTConfig(d_model=64, n_layers=4, n_heads=4, d_mlp=256)


def imitator(rule: str, shape: GPTConfig, steps: int, *, seed: int = 0, n: int = 8) -> TrainConfig:
    """A GPT trained on the choices of an algorithm of the library, on `matrix` instances of n cities."""
    return TrainConfig(
        problem=ProblemConfig(n=n),
        model=shape,
        data=DataConfig(workers=0, random_prefixes=0.15),
        optimiser=OptimiserConfig(learning_rate=2e-3 if shape.d_model < 128 else 1e-3),
        teacher=rule,
        steps=steps,
        batch_size=128,
        seed=seed,
        evaluate_every=1000,
        threads=1,
    )
