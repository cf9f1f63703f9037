"""Subjects whose behaviour and activations are known by construction."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mesaprobe.models import Subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.solvers.constructive import nearest_neighbour_completions
from mesaprobe.solvers.exact.held_karp import optimal_rollouts

HOOK = "blocks.0.hook_resid_post"
Complete = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def complete_optimally(weights: np.ndarray, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return optimal_rollouts(weights, prefixes, lengths, np.zeros(prefixes.shape)).tours


class KnownSubject(Subject):
    """Walks by a known rule; its one site holds the city after next (`planted`), or noise of the same shape."""

    sequential = True

    def __init__(self, complete: Complete, *, n: int = 7, planted: bool, seed: int = 0) -> None:
        self.problem = make_problem(ProblemConfig(n=n))
        self.name, self.description = "known", {}
        self.complete, self.planted, self.seed = complete, planted, seed

    @property
    def weights_hash(self) -> str:
        return f"{self.complete.__name__} {self.planted} {self.seed}"

    def _completed(self, features: Tensor, prefixes: Tensor) -> Tensor:
        """The whole tour that the rule makes of each prefix."""
        weights = np.rint(features.numpy() * self.problem.config.levels).astype(np.int32)
        batch, length = prefixes.shape
        tours = np.zeros((batch, self.problem.n), dtype=np.int64)
        tours[:, :length] = prefixes
        return torch.from_numpy(self.complete(weights, tours, np.full(batch, length)))

    def next_city_logits(self, features: Tensor, prefixes: Tensor) -> Tensor:
        following = self._completed(features, prefixes)[:, prefixes.shape[1]]
        return 8.0 * torch.nn.functional.one_hot(following, self.problem.n).float()

    def logits(self, features: Tensor, tours: Tensor) -> Tensor:
        steps = range(1, tours.shape[1] + 1)
        return torch.stack([self.next_city_logits(features, tours[:, :t]) for t in steps], dim=1)

    def activations(self, features: Tensor, prefixes: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        n, t = self.problem.n, prefixes.shape[1]
        noise = torch.randn(len(features), n + t, 16, generator=torch.Generator().manual_seed(self.seed + t))
        if self.planted:
            for length in range(1, min(t, n - 2) + 1):
                later = self._completed(features, prefixes[:, :length])[:, length + 1]
                noise[:, n + length - 1, :n] = torch.nn.functional.one_hot(later, n).float() * 3
        return dict.fromkeys(hooks, noise)

    def edited_logits(self, features: Tensor, prefixes: Tensor, edits: Any) -> Tensor:  # noqa: ARG002
        return self.next_city_logits(features, prefixes)  # its activations have no effect

    @property
    def hook_names(self) -> tuple[str, ...]:
        return (HOOK,)

    @property
    def city_positions(self) -> tuple[int, ...]:
        return tuple(range(self.problem.n))

    def decode_position(self, length: int) -> int:
        return self.problem.n + length - 1

    def random_twin(self, seed: int) -> "KnownSubject":
        return KnownSubject(self.complete, n=self.problem.n, planted=False, seed=seed)


def optimal_subject(*, planted: bool, n: int = 7) -> KnownSubject:
    return KnownSubject(complete_optimally, n=n, planted=planted)


def nearest_subject(*, n: int = 7) -> KnownSubject:
    return KnownSubject(nearest_neighbour_completions, n=n, planted=True)
