"""A run that can't fit into memory says so before it starts."""

import os

from mesaprobe.errors import UserError
from mesaprobe.problems import make_problem
from mesaprobe.training.config import TrainConfig


def training_bytes(config: TrainConfig) -> int:
    """Rough upper bound on the bytes of one step: batch, weights with optimiser state, activations."""
    n, shape, batch = config.problem.n, config.model, config.batch_size
    tokens = 2 * n
    data = batch * n * n * (4 + 4 + 8 + 4 + 8)  # weights, features, action values, targets, scratch
    per_block = 4 * shape.d_model * shape.head_width * shape.n_heads + 2 * shape.d_model * shape.d_mlp
    weights = 16 * (shape.n_layers * per_block + make_problem(config.problem).feature_width * shape.d_model)
    stream = tokens * (12 * shape.d_model + 3 * shape.d_mlp) + shape.n_heads * tokens * tokens
    return data + weights + 4 * batch * shape.n_layers * stream


def check_memory(config: TrainConfig) -> None:
    """Raise UserError if a step would need more memory than this machine has."""
    needed = training_bytes(config)
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise UserError(
            f"problem.n = {config.problem.n} with batch_size = {config.batch_size} needs about "
            f"{needed / 2**30:.0f} GiB, this machine has {available / 2**30:.0f} GiB; lower problem.n, batch_size "
            "or the model's size"
        )
