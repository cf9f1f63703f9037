"""Attention patterns per layer and head. They describe; they are no evidence of use (method.md section 5, E9)."""

import re

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mesaprobe.models.subject import Subject

_PATTERN = re.compile(r"blocks\.(\d+)\.attn\.hook_pattern")


def attention_patterns(
    subject: Subject, features: Float[Tensor, "batch n f"], prefixes: Int[Tensor, "batch t"]
) -> Float[Tensor, "batch layer head query key"] | None:
    """Attention probabilities of every head in one pass over each prefix, on the CPU.

    None for a network without hook points named `blocks.L.attn.hook_pattern`.
    """
    found = [(int(match[1]), name) for name in subject.hook_names if (match := _PATTERN.fullmatch(name))]
    if not found:
        return None
    names = [name for _, name in sorted(found)]
    seen = subject.activations(features, prefixes, names)
    return torch.stack([seen[name] for name in names], dim=1).float().cpu()
