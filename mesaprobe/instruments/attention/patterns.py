"""Attention patterns of every head, and what of them goes from the decode token to the cities."""

import re

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.models.subject import Subject

_PATTERN = re.compile(r"blocks\.(\d+)\.attn\.hook_pattern")


def attention_patterns(
    subject: Subject, features: Float[Tensor, "batch n f"], prefixes: Int[Tensor, "batch t"]
) -> Float[Tensor, "batch layer head query key"] | None:
    """Attention probabilities of every head in one pass over each prefix, on the CPU.

    None for a network without hook points named `blocks.L.attn.hook_pattern`.
    """
    names = pattern_hooks(subject)
    if not names:
        return None
    seen = subject.activations(features, prefixes, names)
    return torch.stack([seen[name] for name in names], dim=1).float().cpu()


def pattern_hooks(subject: Subject) -> list[str]:
    found = [(int(match[1]), name) for name in subject.hook_names if (match := _PATTERN.fullmatch(name))]
    return [name for _, name in sorted(found)]


def attention_to_cities(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch n"],
    steps: slice,
    *,
    chunk: int = 256,
) -> Float32[np.ndarray, "batch step layer head n"]:
    """Attention from the decode token of each state to every city's own (instance) token.

    Raises UserError for a network without attention patterns to read.
    """
    if not pattern_hooks(subject):
        raise UserError(f"{subject.name} has no hook points blocks.L.attn.hook_pattern: its attention can't be read")
    numbers, cities = range(tours.shape[1])[steps], list(subject.city_positions)
    parts = []
    for start in range(0, len(features), chunk):
        rows, columns = slice(start, start + chunk), []
        for column, step in enumerate(numbers):
            if column == 0 or not subject.sequential:
                last = numbers[-1] if subject.sequential else step
                seen = attention_patterns(subject, features[rows], tours[rows, : last + 1])
            assert seen is not None
            columns.append(seen[:, :, :, subject.decode_position(step + 1), cities])
        parts.append(torch.stack(columns, dim=1))
    return torch.cat(parts).numpy()
