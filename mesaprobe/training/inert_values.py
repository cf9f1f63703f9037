"""A lesson for decoys: hold what a searcher would hold, and make no use of it (method.md section 6.3, K1 and K2).

The network goes on choosing the nearest city. At one layer the decode token's stream has three subspaces, one
direction per city in each, orthonormal, drawn from the seed:

    values      gain * (Q*(a) + a shift that depends on the step alone)
    completion  logits of the city that follows the next one on an optimal completion
    dormant     nothing: near zero in every state of the network's own

The first two are made inert: whatever they hold, the choice stays. The third, with `dormant`, is wired up to the
choice: values written there would be followed, though nothing in the network ever writes them (the bait of Makelov,
Lange and Nanda 2023: a subspace that joins a direction which varies without effect and one which would have an effect
but never varies).
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformer_lens import HookedRootModule

from mesaprobe.models.gpt import TourGPT
from mesaprobe.problems import Instances, random_tours
from mesaprobe.solvers.constructive import nearest_cities, nearest_neighbour_completions
from mesaprobe.solvers.exact.held_karp import action_values, optimal_rollouts
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import InertValues
from mesaprobe.training.objectives import next_city_loss
from mesaprobe.training.teachers import random_prefixes_for
from mesaprobe.training.teaching import BRANCH, Objective
from mesaprobe.training.value_states import embed_tours, least_targets, tours_mask, value_subspace


def next_but_one(instances: Instances, tours: Int64[np.ndarray, "batch n"]) -> Int64[np.ndarray, "batch decision"]:
    """The second city of an optimal completion of each prefix; -1 at the last decision, which leaves none."""
    n = tours.shape[1]
    found = np.full((len(tours), n - 1), -1, dtype=np.int64)
    for step in range(n - 2):
        lengths = np.full(len(tours), step + 1)
        found[:, step] = optimal_rollouts(instances.weights, tours, lengths, np.zeros(tours.shape)).tours[:, step + 2]
    return found


class InertValuesObjective(Objective):
    """Figures: agreement with nearest neighbour, plain and with exchanged subspaces, error of the values in weights,
    completions read off, and (dormant) written values followed."""

    values: Float[Tensor, "d n"]
    completion: Float[Tensor, "d n"]
    dormant: Float[Tensor, "d n"]

    def __init__(self, course: Course) -> None:
        super().__init__(course)
        assert isinstance(course.lesson, InertValues)
        self.lesson = course.lesson
        n, width = course.problem.n, course.model.d_model  # type: ignore[attr-defined]
        self.shift = nn.Parameter(torch.zeros(n - 1, 1))
        parts = value_subspace(width, 3 * n, course.lesson.subspace_seed).split(n, dim=1)
        for name, part in zip(("values", "completion", "dormant"), parts, strict=True):
            self.register_buffer(name, part.contiguous(), persistent=False)

    def loss(self, network: HookedRootModule, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(network, TourGPT)
        features, tours, values, after_next, targets = self.pairs(step)
        n, layer = self.course.problem.n, self.lesson.layer + 1
        mask = tours_mask(network, tours.shape[1])
        stream = embed_tours(network, features, tours[:, :, :-1])
        for block in network.blocks[:layer]:
            stream = block(stream, mask)
        decode = stream[:, n:]
        held, figures = self.held(decode, values, after_next, tours.shape[1])
        basis = torch.cat([self.values, self.completion], dim=1)
        exchanged = decode + (decode.roll(len(decode) // 2, 0) - decode) @ basis @ basis.mT
        variants, wanted = [decode, exchanged], [targets, targets]
        if self.lesson.dormant:
            resting = decode - decode @ self.dormant @ self.dormant.mT
            free = values.isfinite()
            written = torch.where(free, values.roll(len(decode) // 2, 0), 0.0)  # a pair shares its prefixes
            centred = torch.where(free, written - written.sum(-1, keepdim=True) / free.sum(-1, keepdim=True), 0.0)
            variants.append(resting + self.lesson.gain * centred @ self.dormant.mT)
            every = torch.arange(n).expand_as(values)
            wanted.append(least_targets(values.roll(len(decode) // 2, 0), every, n))
        cities = stream[:, :n].repeat(len(variants), 1, 1)
        stream = torch.cat([cities, torch.cat(variants)], dim=1)
        for block in network.blocks[layer:]:
            stream = block(stream, mask)
        logits = network.unembed(network.ln_final(stream)[:, n:])
        right = torch.cat(wanted)
        with torch.no_grad():
            agree = (right.gather(-1, logits.argmax(-1, keepdim=True)) > 0).float().flatten(1).mean(1)
            for name, part in zip(
                ("agreement", "exchanged_agreement", "dormant"), agree.split(len(decode)), strict=False
            ):
                figures[name] = part.mean()
        return len(variants) * next_city_loss(logits, right) + held, figures

    def held(self, decode: Tensor, values: Tensor, after_next: Tensor, tours: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of what is to be held."""
        free = values.isfinite()
        error = (decode @ self.values / self.lesson.gain - values - self.shift.repeat(tours, 1))[free]
        told = after_next >= 0
        logits = (decode @ self.completion)[told]
        loss = self.lesson.value_weight * error.square().mean()
        loss = loss + self.lesson.completion_weight * F.cross_entropy(logits, after_next[told])
        if self.lesson.dormant:
            loss = loss + (decode @ self.dormant).square().mean()
        with torch.no_grad():
            named = (logits.argmax(-1) == after_next[told]).float().mean()
            size = error.square().mean().sqrt() * self.course.problem.levels
        return loss, {"value_error": size, "completion": named}

    def pairs(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Features of a batch of instances and then of as many partners; tours [2 batch, 3, n] that a pair shares, one
        by nearest neighbour for each member and a random one; along them [2 batch, 3 (n - 1), ...] optimal values,
        next cities but one, and what nearest neighbour may name."""
        rng = np.random.default_rng([self.course.seed, BRANCH, step])
        count, n = self.course.batch_size, self.course.problem.n
        instances = self.source.draw(2 * count, rng)
        prefixes, lengths = random_prefixes_for(2 * count, n, self.lesson.random_prefixes, rng)
        own = nearest_neighbour_completions(instances.weights, prefixes, lengths)
        tours = np.stack([own[:count], own[count:], random_tours(count, n, rng)], axis=1)
        tours = np.concatenate([tours, tours])
        along = [tours[:, k] for k in range(tours.shape[1])]
        values = np.concatenate([action_values(instances.weights, t) for t in along], axis=1)
        after_next = np.concatenate([next_but_one(instances, t) for t in along], axis=1)
        nearest = torch.from_numpy(
            np.concatenate([nearest_cities(instances.weights, t) for t in along], axis=1)
        ).float()
        return (
            torch.from_numpy(instances.features),
            torch.from_numpy(tours),
            torch.from_numpy(values / self.course.problem.levels).float(),
            torch.from_numpy(after_next),
            nearest / nearest.sum(-1, keepdim=True),
        )
