"""A lesson for tour builders: which partial tour the stream holds after every loop.

The teacher is a rule of the library, written as the keys by which it ranks the steps of a partial tour, the first key
before the second; whole numbers, so that ties are ties, and all steps that tie are right. The network is shown partial
tours that the rule makes, ties broken at random, as each loop's input (its blocks round their choices, so its own run
meets the same states) and is trained to take a right step. The readout is trained on the tours at the end.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.models.building_steps import Partial, Steps
from mesaprobe.models.tour_builder import TourBuilder
from mesaprobe.problems import random_tours
from mesaprobe.registry import Registry
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import BuiltTours
from mesaprobe.training.teaching import BRANCH, Objective

Keys = Callable[[Float[Tensor, "*state step quantity"]], tuple[Tensor, ...]]
"""Quantities of every step (`building_steps`) -> keys [*state, step]; the least comes next."""

RULES: Registry[Keys] = Registry("rule of a builder's teacher")


def _growth(known: Tensor) -> Tensor:
    return known[..., 0] + known[..., 1] - known[..., 2]


RULES.add("cheapest_insertion", lambda known: (_growth(known),))
RULES.add("nearest_insertion", lambda known: (known[..., 3], _growth(known)))
RULES.add("farthest_insertion", lambda known: (-known[..., 3], _growth(known)))
RULES.add("greedy_edge", lambda known: (known[..., 0],))
RULES.add("savings", lambda known: (known[..., 5], torch.where(known[..., 5] > 0, 0, known[..., 0] - known[..., 1])))
RULES.add("mst_preorder", lambda known: (known[..., 3], known[..., 0]))


def right_steps(
    rule: str, steps: Steps, weights: Float[Tensor, "batch n n"], partial: Partial
) -> Bool[Tensor, "batch t step"]:
    """Which steps the rule may take next; the weights are whole numbers."""
    right = steps.allowed(partial)
    for key in RULES[rule](steps.describe(weights, partial)):
        ranked = key.masked_fill(~right, torch.inf)
        right = right & (ranked == ranked.amin(-1, keepdim=True))
    return right


def one_of(right: Bool[Tensor, "batch t step"], rng: np.random.Generator) -> Float[Tensor, "batch t step"]:
    """One of the right steps each, at random, one-hot."""
    drawn = torch.from_numpy(rng.random(tuple(right.shape))).masked_fill(~right, -1.0)
    return F.one_hot(drawn.argmax(-1), right.shape[-1]).float()


class BuiltToursObjective(Objective):
    """Figures: how often a right step is preferred, and a right city named after the last loop."""

    def __init__(self, course: Course) -> None:
        super().__init__(course)
        assert isinstance(course.lesson, BuiltTours)
        self.rule = course.lesson.rule

    def loss(self, network: HookedRootModule, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(network, TourBuilder)
        rng = np.random.default_rng([self.course.seed, BRANCH, step])
        n, loops, steps = network.n, network.config.n_layers, network.steps
        instances = self.source.draw(self.course.batch_size, rng)
        tours = torch.from_numpy(random_tours(len(instances), n, rng)[:, :-1])
        weights, rows = torch.from_numpy(instances.weights).float(), torch.from_numpy(instances.features)
        partial = steps.start(tours, n).float()
        loss, right = torch.zeros(()), torch.zeros(())
        for loop in range(loops):
            wanted = right_steps(self.rule, steps, weights, partial)
            scores = network.scores(rows, partial, loop)
            loss = loss + surprise(scores, wanted) / loops
            right = right + hits(scores, wanted) / loops
            partial = steps.taken(partial, one_of(wanted, rng))
        logits, following = network.unembed(partial.flatten(2)), steps.following(partial)
        loss = loss + surprise(logits, following)
        return loss, {"right_step": right, "right_city": hits(logits, following)}


def surprise(scores: Float[Tensor, "*state option"], right: Bool[Tensor, "*state option"]) -> Float[Tensor, ""]:
    """Mean of -log of the probability that all right options have together."""
    among = scores.masked_fill(~right, -torch.inf)
    return (scores.logsumexp(-1) - among.logsumexp(-1)).mean()


def hits(scores: Float[Tensor, "*state option"], right: Bool[Tensor, "*state option"]) -> Float[Tensor, ""]:
    """How often the likeliest option is right."""
    return right.gather(-1, scores.argmax(-1, keepdim=True)).float().mean().detach()
