"""The hooked GPT, saved models, and the Subject interface.

Names load on first use: configs alone are needed by `--help` and by worker processes, which start without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mesaprobe.models.config import UNKNOWN, ArchitectureConfig, GPTConfig, LocalScorerConfig

if TYPE_CHECKING:
    from mesaprobe.models.bridge import BridgedGPT, to_bridge
    from mesaprobe.models.checkpoint import load
    from mesaprobe.models.gpt import TourGPT, attention_mask, solu
    from mesaprobe.models.local_scorer import LocalScorer
    from mesaprobe.models.networks import build_network, network_subject
    from mesaprobe.models.subject import ModuleSubject, Subject, gpt_subject, wrap

_HOMES = {
    "BridgedGPT": "bridge",
    "to_bridge": "bridge",
    "load": "checkpoint",
    "LocalScorer": "local_scorer",
    "build_network": "networks",
    "network_subject": "networks",
    "TourGPT": "gpt",
    "attention_mask": "gpt",
    "solu": "gpt",
    "ModuleSubject": "subject",
    "Subject": "subject",
    "gpt_subject": "subject",
    "wrap": "subject",
}

__all__ = [
    "UNKNOWN",
    "ArchitectureConfig",
    "BridgedGPT",
    "GPTConfig",
    "LocalScorer",
    "LocalScorerConfig",
    "ModuleSubject",
    "Subject",
    "TourGPT",
    "attention_mask",
    "build_network",
    "gpt_subject",
    "load",
    "network_subject",
    "solu",
    "to_bridge",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"mesaprobe.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mesaprobe.models' has no attribute {name!r}")
