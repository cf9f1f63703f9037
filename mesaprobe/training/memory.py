"""A run that can't fit into memory says so before it starts."""

import os

from mesaprobe.errors import UserError
from mesaprobe.problems import make_problem
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import TrainConfig


def training_bytes(config: TrainConfig) -> int:
    """Rough upper bound on the bytes of one step: batch, weights with optimiser state, activations."""
    n, batch = config.problem.n, config.batch_size
    data = batch * n * n * (4 + 4 + 8 + 4 + 8)  # weights, features, action values, targets, scratch
    features = make_problem(config.problem).feature_width
    weights, activations = config.model.floats(n, features)
    if ARMS[config.arm].decoder == "look_ahead":
        tokens = n + (n - 1) + (n - 1) * (n - 2) // 2  # a token for every state looked at, in place of 2 n in all
        activations = config.model.floats(-(-tokens // 2), features)[1]
    return data + 16 * weights + 4 * batch * activations


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
