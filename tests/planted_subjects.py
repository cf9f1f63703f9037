"""Subjects that walk optimally and hold in their activations what a test puts there."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from known_subjects import KnownSubject, complete_optimally
from torch import Tensor

from mesaprobe.evidence.probing.plan_targets import used_pairs
from mesaprobe.labels.values import value_labels
from mesaprobe.solvers.constructive import nearest_neighbour_completions
from mesaprobe.solvers.lookahead import UNREACHABLE, lookahead_values

Plant = Callable[[np.ndarray, np.ndarray, int], Float64[np.ndarray, "batch k"]]
"""(weights [batch, n, n], prefixes [batch, t], n) -> what the token that answers these prefixes holds."""

HOOKS = ("blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(3)))
WIDTH = 32


class PlantedSubject(KnownSubject):
    """Holds `plants[hook]`, plus unit noise, at the decode tokens of a hook; noise everywhere else."""

    def __init__(self, plants: dict[str, Plant], *, n: int = 7, seed: int = 0, strength: float = 3.0) -> None:
        super().__init__(complete_optimally, n=n, planted=False, seed=seed)
        self.plants, self.strength = plants, strength

    @property
    def hook_names(self) -> tuple[str, ...]:
        return HOOKS

    def random_twin(self, seed: int) -> "PlantedSubject":
        return PlantedSubject({}, n=self.problem.n, seed=1000 + seed)

    def activations(self, features: Tensor, prefixes: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        n, (batch, length) = self.problem.n, prefixes.shape
        weights = np.rint(features.numpy() * self.problem.config.levels).astype(np.int32)
        found = {}
        for hook in hooks:
            # Noise that belongs to the instance and the hook, so that chunks and repeated passes agree.
            seeds = [self.seed, HOOKS.index(hook), length]
            rng = np.random.default_rng([*seeds, int(weights.sum())])
            values = rng.normal(size=(batch, n + length, WIDTH))
            for t in range(1, length + 1):
                if hook in self.plants:
                    held = self.plants[hook](weights, prefixes[:, :t].numpy(), n)
                    values[:, n + t - 1, : held.shape[1]] += self.strength * held
            found[hook] = torch.from_numpy(values.astype(np.float32))
        return found


def completed(weights: np.ndarray, prefixes: np.ndarray, n: int, rule: Callable[..., np.ndarray]) -> np.ndarray:
    tours = np.zeros((len(prefixes), n), dtype=np.int64)
    tours[:, : prefixes.shape[1]] = prefixes
    return rule(weights, tours, np.full(len(prefixes), prefixes.shape[1]))


def regrets(weights: np.ndarray, prefixes: np.ndarray, n: int) -> np.ndarray:
    """Of every city, 0 where visited; in tens of units."""
    step = prefixes.shape[1] - 1
    tours = completed(weights, prefixes, n, complete_optimally)
    if step > n - 2:
        return np.zeros((len(tours), n))
    found = value_labels(weights, tours, slice(step, step + 1)).regrets[:, 0]
    return np.where(np.isfinite(found), found, 0.0) / 10


def completed_costs(weights: np.ndarray, prefixes: np.ndarray, n: int) -> np.ndarray:
    """What nearest neighbour pays to the end after every city, above the least of them; in tens of units."""
    step = prefixes.shape[1] - 1
    tours = completed(weights, prefixes, n, complete_optimally)
    found = lookahead_values(weights, tours, 1)[:, step].astype(np.float64)
    found = np.where(found == UNREACHABLE, np.nan, found)
    return np.nan_to_num(found - np.nanmin(found, axis=1, keepdims=True)) / 10


def plan(rule: Callable[..., np.ndarray]) -> Plant:
    """The edges of what a rule makes of the prefix, from step two on."""

    def held(weights: np.ndarray, prefixes: np.ndarray, n: int) -> np.ndarray:
        return used_pairs(completed(weights, prefixes, n, rule), prefixes.shape[1], True).astype(np.float64)

    return held


def whole_plan(rule: Callable[..., np.ndarray]) -> Plant:
    """All edges of what a rule makes of the prefix, the next one among them."""

    def held(weights: np.ndarray, prefixes: np.ndarray, n: int) -> np.ndarray:
        return used_pairs(completed(weights, prefixes, n, rule), prefixes.shape[1] - 1, True).astype(np.float64)

    return held


def plan_by_place(rule: Callable[..., np.ndarray]) -> Plant:
    """The same tour as which city stands in which place behind the first two: no linear function of its edges."""

    def held(weights: np.ndarray, prefixes: np.ndarray, n: int) -> np.ndarray:
        later = completed(weights, prefixes, n, rule)[:, 2:]
        return (later[..., None] == np.arange(1, n)).reshape(len(later), -1).astype(np.float64)

    return held


def spoilt(
    rule: Callable[..., np.ndarray], other: Callable[..., np.ndarray], one_in: int = 4
) -> Callable[..., np.ndarray]:
    """The rule, but for one instance in `one_in`, on which it is the other rule."""

    def completions(weights: np.ndarray, tours: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        rows = weights.sum(axis=(1, 2)) // 2 % one_in == 0
        return np.where(rows[:, None], other(weights, tours, lengths), rule(weights, tours, lengths))

    return completions


def rejected_plan(weights: np.ndarray, prefixes: np.ndarray, n: int) -> np.ndarray:
    """The edges from step two on of the completion of the last unvisited city that the optimum does not take next.

    That is the runner-up of `KnownSubject`, whose other logits are equal.
    """
    length = prefixes.shape[1]
    if length > n - 2:
        return np.zeros((len(prefixes), n * (n - 1) // 2))
    taken = completed(weights, prefixes, n, complete_optimally)[:, : length + 1]
    free = np.ones((len(prefixes), n), dtype=np.bool_)
    np.put_along_axis(free, taken, False, axis=1)
    other = n - 1 - free[:, ::-1].argmax(axis=1)
    forced = np.concatenate([prefixes, other[:, None]], axis=1)
    return used_pairs(completed(weights, forced, n, complete_optimally), length, True).astype(np.float64)


optimal_plan, nearest_plan = plan(complete_optimally), plan(nearest_neighbour_completions)
