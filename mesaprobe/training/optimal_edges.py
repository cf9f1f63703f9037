"""A lesson for tour builders that add edges: which edges are in an optimal completion.

At every state one optimal completion is drawn; all its edges that are not there yet are right, in any order, and the
network goes on with the one of them that it likes best. It thus learns which edges are safe to take first, as greedy
edge takes the cheapest; what it can know of one is in the quantities of that step.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.models.building_steps import EdgeSteps, Partial, owners, pairs
from mesaprobe.models.tour_builder import TourBuilder
from mesaprobe.problems import random_tours
from mesaprobe.solvers.exact.held_karp import optimal_rollouts
from mesaprobe.training.built_tours import hits, surprise
from mesaprobe.training.teaching import BRANCH, Objective


class OptimalEdgesObjective(Objective):
    """Figures: how often an edge of the optimal completion is preferred, and the built tour's next city named."""

    def loss(self, network: HookedRootModule, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(network, TourBuilder)
        assert isinstance(network.steps, EdgeSteps)
        rng = np.random.default_rng([self.course.seed, BRANCH, step])
        n, loops, steps = network.n, network.config.n_layers, network.steps
        instances = self.source.draw(self.course.batch_size, rng)
        tours = random_tours(len(instances), n, rng)
        optimal = optimal_edges(instances.weights, tours, rng)
        rows, partial = torch.from_numpy(instances.features), steps.start(torch.from_numpy(tours[:, :-1]), n).float()
        loss, right = torch.zeros(()), torch.zeros(())
        for loop in range(loops):
            wanted = steps.allowed(partial) & _as_steps(optimal, partial)
            scores = network.scores(rows, partial, loop)
            loss = loss + surprise(scores, wanted) / loops
            right = right + hits(scores, wanted) / loops
            liked = scores.detach().masked_fill(~wanted, -torch.inf).argmax(-1)
            partial = steps.taken(partial, F.one_hot(liked, scores.shape[-1]).to(partial))
        logits, following = network.unembed(partial.flatten(2)), steps.following(partial)
        loss = loss + surprise(logits, following)
        return loss, {"right_edge": right, "right_city": hits(logits, following)}


def optimal_edges(
    weights: Int32[np.ndarray, "batch n n"], tours: Int64[np.ndarray, "batch n"], rng: np.random.Generator
) -> Float[Tensor, "batch decision n n"]:
    """Edges (both ways, 0 or 1) of one optimal tour through the prefix at each decision along the tours."""
    batch, n = tours.shape
    states = batch * (n - 1)
    lengths = np.tile(np.arange(1, n), batch)
    prefixes = np.repeat(tours, n - 1, axis=0)
    best = optimal_rollouts(np.repeat(weights, n - 1, axis=0), prefixes, lengths, rng.random((states, n))).tours
    cities = F.one_hot(torch.from_numpy(best), n).float()  # [state, place, city]
    arcs = cities.mT @ cities.roll(-1, 1)
    return (arcs + arcs.mT).clamp(max=1).unflatten(0, (batch, n - 1))


def _as_steps(edges: Float[Tensor, "batch t n n"], partial: Partial) -> Tensor:
    """Which steps add one of the edges; staying counts as one."""
    owner, (i, j) = owners(partial), pairs(partial.shape[-1])
    return F.pad((owner @ edges @ owner.mT)[..., i, j] > 0.5, (1, 0), value=True)
