"""The project's own architectures: a new one is a config, a network class and an entry here (no torch in this file).

A network class takes `(config, n, n_features, *, seed)` and keeps the config as `.config`. config.json names the
architecture inside `model`; where it names none, it was written before there was a choice, and means `gpt`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesaprobe.configs import parse_config
from mesaprobe.errors import UserError
from mesaprobe.models.config import (
    ArchitectureConfig,
    GPTConfig,
    LocalScorerConfig,
    PlannerConfig,
    TourBuilderConfig,
    TourRefinerConfig,
    TreeSearcherConfig,
)
from mesaprobe.registry import Registry


@dataclass(frozen=True)
class Architecture:
    """How networks of one kind are described, made and looked at; `module:name` is imported when it is needed."""

    config: type[ArchitectureConfig]
    network: str
    """The network's class."""
    words: str
    """What it is, for the model card."""
    subject: str = "mesaprobe.models.networks:sequential_subject"
    """Makes a Subject of `(network, problem, name, description)`."""


ARCHITECTURES: Registry[Architecture] = Registry("architecture")
ARCHITECTURES.add(
    "gpt",
    Architecture(GPTConfig, "mesaprobe.models.gpt:TourGPT", "A GPT", subject="mesaprobe.models.subject:gpt_subject"),
)
ARCHITECTURES.add(
    "local_scorer",
    Architecture(
        LocalScorerConfig,
        "mesaprobe.models.local_scorer:LocalScorer",
        "A scorer of single candidates by local features",
    ),
)
ARCHITECTURES.add(
    "tour_refiner",
    Architecture(
        TourRefinerConfig,
        "mesaprobe.models.tour_refiner:TourRefiner",
        "A looped network that refines a whole tour",
    ),
)
ARCHITECTURES.add(
    "tour_builder",
    Architecture(
        TourBuilderConfig,
        "mesaprobe.models.tour_builder:TourBuilder",
        "A looped network that builds a tour step by step",
    ),
)
ARCHITECTURES.add(
    "planner",
    Architecture(PlannerConfig, "mesaprobe.models.planners:planner", "A network that plans by its architecture"),
)
ARCHITECTURES.add(
    "tree_searcher",
    Architecture(
        TreeSearcherConfig,
        "mesaprobe.models.tree_searcher:TreeSearcher",
        "A looped network that walks a search tree",
    ),
)


def parse_architecture(data: Any, where: str) -> ArchitectureConfig:
    """The config of a network from plain JSON data, checked key by key; `where` names the source in messages.

    >>> parse_architecture({"d_model": 32}, "example").architecture
    'gpt'
    >>> parse_architecture({"architecture": "local_scorer", "width": 8}, "example").architecture
    'local_scorer'
    >>> parse_architecture({"architecture": "crystal_ball"}, "example")
    Traceback (most recent call last):
    ...
    mesaprobe.errors.UserError: example: unknown architecture 'crystal_ball'; known: gpt, local_scorer, tour_refiner, \
tour_builder, planner, tree_searcher
    """
    name = data.get("architecture", "gpt") if isinstance(data, Mapping) else "gpt"
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UserError(f"{where}: unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    return parse_config(ARCHITECTURES[name].config, data, where)
