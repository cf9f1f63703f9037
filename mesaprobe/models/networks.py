"""Networks of any of the project's own architectures, and Subjects made of them."""

import importlib
from collections.abc import Mapping
from typing import Any

from transformer_lens import HookedRootModule

from mesaprobe.models.architectures import ARCHITECTURES
from mesaprobe.models.config import ArchitectureConfig
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import Problem


def build_network(config: ArchitectureConfig, problem: Problem, *, seed: int = 0) -> HookedRootModule:
    """A network of this shape for the instances of a problem, with weights drawn from `seed`.

    >>> from mesaprobe.models.config import LocalScorerConfig
    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> type(build_network(LocalScorerConfig(width=4), make_problem(ProblemConfig(n=5)))).__name__
    'LocalScorer'
    """
    network = _imported(ARCHITECTURES[config.architecture].network)
    return network(config, problem.n, problem.feature_width, seed=seed)


def network_subject(
    network: HookedRootModule, problem: Problem, name: str, description: Mapping[str, Any] | None = None
) -> Subject:
    """The Subject of one of the project's own networks, whatever its architecture.

    >>> from mesaprobe.models.config import GPTConfig
    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> problem = make_problem(ProblemConfig(n=5))
    >>> network_subject(build_network(GPTConfig(d_model=8), problem), problem, "untrained").description["d_model"]
    8
    """
    config: Any = network.config
    return _imported(ARCHITECTURES[config.architecture].subject)(network, problem, name, description or {})


def sequential_subject(
    network: HookedRootModule, problem: Problem, name: str, description: Mapping[str, Any]
) -> Subject:
    """The Subject of a network that answers every state along a tour in one pass and says its shape in `cfg`."""
    config: Any = network.config
    shape: Any = network.cfg
    known = {"layers": shape.n_layers, "d_model": shape.d_model}
    return ModuleSubject(
        network,
        problem,
        name=name,
        description={**known, **description},
        make_twin=lambda seed: build_network(config, problem, seed=seed),
    )


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
