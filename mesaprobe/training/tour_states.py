"""A lesson for tour refiners: what tour the stream holds after every loop.

The teacher says how each loop changes the tour that it finds; the network is shown the teacher's own tours as each
loop's input (its blocks round what they read, so its own run meets the same states) and is trained to prefer the
candidate that the teacher takes. The readout is trained on the teacher's last tours.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, Int64
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.models.tour_refiner import MOVES, TourRefiner, first_tours
from mesaprobe.problems import random_tours
from mesaprobe.registry import Registry
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import TourStates
from mesaprobe.training.teaching import BRANCH, Objective

Choice = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""(arcs [state, candidate, n], orders [candidate, n], allowed [state, candidate], loop) -> candidate [state]."""


def cheapest(arcs: np.ndarray, orders: np.ndarray, allowed: np.ndarray, loop: int) -> np.ndarray:  # noqa: ARG001
    """Best improvement: the cheapest candidate, the first among equals; staying comes first."""
    cost = arcs.sum(axis=2)
    return np.where(allowed, cost, np.iinfo(np.int64).max).argmin(axis=1)


def nearest_next(arcs: np.ndarray, orders: np.ndarray, allowed: np.ndarray, loop: int) -> np.ndarray:
    """Nearest neighbour: loop l brings the nearest of the free cities that are not placed yet to slot l + 1, by
    turning round the path that it ends; where all are placed, the tour stays."""
    slots = np.arange(orders.shape[1])
    moved = orders != slots
    first = np.where(moved.any(axis=1), moved.argmax(axis=1), loop + 1)  # staying counts as bringing slot l + 1 itself
    brings = first == loop + 1
    found = np.where(allowed & brings, arcs[:, :, min(loop, orders.shape[1] - 1)], np.iinfo(np.int64).max)
    return found.argmin(axis=1)


CHOICES: Registry[Choice] = Registry("choice of a refiner's teacher")
CHOICES.add("cheapest", cheapest)
CHOICES.add("nearest_next", nearest_next)


def taught_tours(
    weights: Int64[np.ndarray, "state n n"],
    starts: Int64[np.ndarray, "state n"],
    allowed: Bool[np.ndarray, "state candidate"],
    moves: str,
    choice: str,
    loops: int,
) -> tuple[Int64[np.ndarray, "loop state n"], Int64[np.ndarray, "loop state"]]:
    """The cyclic tours that each loop of a perfect pupil finds, and then leaves (loops + 1 of them), and which
    candidate it takes on the way."""
    orders = np.array(MOVES[moves](starts.shape[1]))
    rows = np.arange(len(starts))[:, None, None]
    tours, taken = [starts], []
    for loop in range(loops):
        candidates = tours[-1][:, orders]  # [state, candidate, n]
        arcs = weights[rows, candidates, np.roll(candidates, -1, axis=2)]
        taken.append(CHOICES[choice](arcs, orders, allowed, loop))
        tours.append(candidates[np.arange(len(starts)), taken[-1]])
    return np.stack(tours), np.stack(taken)


class TourStatesObjective(Objective):
    """Figures: how often the teacher's candidate is preferred, and its last tour's next city named."""

    def __init__(self, course: Course) -> None:
        super().__init__(course)
        assert isinstance(course.lesson, TourStates)
        self.lesson = course.lesson

    def loss(self, network: HookedRootModule, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(network, TourRefiner)
        rng = np.random.default_rng([self.course.seed, BRANCH, step])
        n, loops = network.n, network.config.n_layers
        instances = self.source.draw(self.course.batch_size, rng)
        tours = torch.from_numpy(random_tours(len(instances), n, rng)[:, :-1])
        starts = first_tours(tours, n)
        if self.lesson.shuffled:
            starts = shuffled(starts, rng)
        allowed = network.allowed(n - 1).repeat(len(instances), 1)
        weights = np.repeat(instances.weights.astype(np.int64), n - 1, axis=0)
        states, taken = taught_tours(
            weights, starts.flatten(0, 1).numpy(), allowed.numpy(), network.config.moves, self.lesson.choice, loops
        )
        rows = torch.from_numpy(instances.features)
        loss, right = torch.zeros(()), torch.zeros(())
        for loop in range(loops):
            slots = F.one_hot(torch.from_numpy(states[loop]), n).float().unflatten(0, (-1, n - 1))
            scores = network.scores(rows, slots, loop).flatten(0, 1)
            wanted = torch.from_numpy(taken[loop])
            loss = loss + F.cross_entropy(scores, wanted) / loops
            right = right + (scores.argmax(1) == wanted).float().mean().detach() / loops
        last = torch.from_numpy(states[-1])
        logits = network.unembed(F.one_hot(last, n).float().flatten(1))
        loss = loss + F.cross_entropy(logits, last[:, 1])
        named = (logits.argmax(1) == last[:, 1]).float().mean().detach()
        return loss, {"right_candidate": right, "right_city": named}


def shuffled(starts: Int[Tensor, "batch t n"], rng: np.random.Generator) -> Int[Tensor, "batch t n"]:
    """The free cities of half of the instances in random order, so that loops meet tours that they did not make."""
    batch, steps, n = starts.shape
    free = np.arange(1, n) < (n - np.arange(steps))[:, None]
    key = np.where(free, rng.random((batch, steps, n - 1)), 1 + np.arange(n - 1))
    order = torch.from_numpy(np.concatenate([np.zeros((batch, steps, 1), dtype=np.int64), 1 + key.argsort(2)], axis=2))
    half = torch.from_numpy(rng.random(batch) < 0.5)[:, None, None]
    return torch.where(half, starts.gather(2, order), starts)
