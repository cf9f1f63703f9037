"""A lesson: hold the value of every option in a known subspace, and choose by what stands there.

An option is a free city to go to next, or one of a few completions, whose first city then is the choice.

Interchange intervention training (Geiger et al. 2022) with the strict term of SIIT (Gupta et al. 2024). At one layer
the decode token's stream has a subspace with one direction per option, orthonormal, drawn from the seed. The network is
trained, on pairs of instances that share their prefixes, to

    choose      the next city of the option of least value, in every state,
    represent   coordinate of an option = gain * (its value + a shift that depends on the step alone),
    be moved    to the least of the mixed values, when the coordinates of some options come from the partner,
    and by nothing else there: the rest of the stream at the decode token may come from the partner too.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn
from transformer_lens import HookedRootModule

from mesaprobe.models.gpt import TourGPT
from mesaprobe.problems import random_tours
from mesaprobe.training.courses import Course
from mesaprobe.training.lessons import ValueStates
from mesaprobe.training.objectives import next_city_loss
from mesaprobe.training.teachers import random_prefixes_for
from mesaprobe.training.teaching import BRANCH, Objective
from mesaprobe.training.valuations import VALUATIONS


def value_subspace(width: int, options: int, seed: int) -> Float[Tensor, "width option"]:
    """Orthonormal columns, one for each option."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, options, generator=generator)).Q


def mixed(
    base: Float[Tensor, "*batch d"],
    source: Float[Tensor, "*batch d"],
    basis: Float[Tensor, "d option"],
    taken: Bool[Tensor, "*batch option"],
    rest: Bool[Tensor, "*batch 1"] | None = None,
) -> Float[Tensor, "*batch d"]:
    """The base's stream with the coordinates of the options `taken` from the source, and with all outside the
    subspace from it where `rest` is set."""
    ours, theirs = base @ basis, source @ basis
    carrier = base if rest is None else torch.where(rest, source, base)
    return carrier + (torch.where(taken, theirs, ours) - carrier @ basis) @ basis.mT


def least_targets(
    values: Float[Tensor, "*batch option"], options: Int[Tensor, "*batch option"], n: int
) -> Float[Tensor, "*batch n"]:
    """Uniform over the next cities of the options of least value.

    >>> least_targets(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([0, 2, 2]), 4)
    tensor([0., 0., 1., 0.])
    """
    least = (values == values.amin(-1, keepdim=True)).float()
    named = values.new_zeros(*values.shape[:-1], n).scatter_reduce(-1, options, least, "amax")
    return named / named.sum(-1, keepdim=True)


def embed_tours(
    network: TourGPT, features: Float[Tensor, "batch n f"], tours: Int[Tensor, "batch tour t"]
) -> Float[Tensor, "batch pos d"]:
    """What the first block reads, with several tours of an instance behind one block of city tokens."""
    cities = network.city(features) + network.identity.weight
    index = tours.flatten(1)[:, :, None].expand(-1, -1, cities.shape[2])
    positions = network.pos.weight[: tours.shape[2]].repeat(tours.shape[1], 1)
    return torch.cat([cities, cities.gather(1, index) + positions], dim=1)


def tours_mask(network: TourGPT, tours: int) -> Bool[Tensor, "pos pos"]:
    """The network's own mask, where the tokens of a tour see no other tour."""
    n, steps = network.n, network.n - 1
    one = network.mask[: n + steps, : n + steps]
    mask = torch.zeros(n + tours * steps, n + tours * steps, dtype=torch.bool)
    mask[:, :n] = torch.cat([one[:n, :n], one[n:, :n].repeat(tours, 1)])
    for start in range(n, len(mask), steps):
        mask[start : start + steps, start : start + steps] = one[n:, n:]
    return mask


class ValueStatesObjective(Objective):
    """Figures: agreement, interchange accuracy where the answer should change, error of the values in weights."""

    basis: Float[Tensor, "d option"]

    def __init__(self, course: Course) -> None:
        super().__init__(course)
        assert isinstance(course.lesson, ValueStates)
        self.lesson, self.valuation = course.lesson, VALUATIONS[course.lesson.valuation]
        n, width = course.problem.n, course.model.d_model  # type: ignore[attr-defined]
        self.shift = nn.Parameter(torch.zeros(n - 1, 1))
        options = self.valuation.options(np.arange(n)[None]).shape[2]
        self.register_buffer("basis", value_subspace(width, options, course.lesson.subspace_seed), persistent=False)

    def loss(self, network: HookedRootModule, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(network, TourGPT)
        features, tours, values, options = self.pairs(step)
        n, after = self.course.problem.n, self.lesson.layer + 1
        mask = tours_mask(network, tours.shape[1])
        stream = embed_tours(network, features, tours[:, :, :-1])
        for block in network.blocks[:after]:
            stream = block(stream, mask)
        decode, free = stream[:, n:], values.isfinite()
        shift = self.shift.repeat(tours.shape[1], 1)
        error = (decode @ self.basis / self.lesson.gain - values - shift)[free]
        generator = torch.Generator().manual_seed(self.course.seed * 1_000_003 + step)
        taken, rest = self.exchanged(values.chunk(2)[0], generator)
        (ours, theirs), (own, other) = decode.chunk(2), values.chunk(2)
        swapped = mixed(ours, theirs, self.basis, taken, rest)
        targets = least_targets(values, options, n)
        wanted = least_targets(torch.where(taken, other, own), options[: len(own)], n)
        stream = torch.cat([stream, torch.cat([stream[: len(ours), :n], swapped], dim=1)])
        for block in network.blocks[after:]:
            stream = block(stream, mask)
        logits, moved = network.unembed(network.ln_final(stream)[:, n:]).split([len(values), len(own)])
        loss = next_city_loss(logits, targets) + next_city_loss(moved, wanted)
        loss = loss + self.lesson.value_weight * error.square().mean()
        return loss, self.figures(logits, targets, moved, wanted, error)

    def pairs(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of a batch of instances and then of as many partners; tours [2 batch, 3, n] that a pair shares, one
        of its own policy for each member and a random one; values of options and their next cities along them,
        [2 batch, 3 (n - 1), option]."""
        rng = np.random.default_rng([self.course.seed, BRANCH, step])
        count, n = self.course.batch_size, self.course.problem.n
        instances = self.source.draw(2 * count, rng)
        prefixes, lengths = random_prefixes_for(2 * count, n, self.lesson.random_prefixes, rng)
        policy: Int64[np.ndarray, "batch n"] = self.valuation.rollouts(instances.weights, prefixes, lengths, rng)
        tours = np.stack([policy[:count], policy[count:], random_tours(count, n, rng)], axis=1)
        tours = np.concatenate([tours, tours])
        values = [self.valuation(instances.weights, tours[:, k]) for k in range(tours.shape[1])]
        scaled = np.concatenate(values, axis=1) / self.course.problem.levels
        options = np.concatenate([self.valuation.options(tours[:, k]) for k in range(tours.shape[1])], axis=1)
        features = torch.from_numpy(instances.features)
        return features, torch.from_numpy(tours), torch.from_numpy(scaled).float(), torch.from_numpy(options)

    def exchanged(self, values: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which options' coordinates come from the partner, a random share in each state, and where the rest does."""
        batch, states, options = values.shape
        share = torch.rand(batch, states, 1, generator=generator)
        taken = torch.rand(batch, states, options, generator=generator) < share
        return taken, torch.rand(batch, states, 1, generator=generator) < 0.5

    def figures(
        self, logits: Tensor, targets: Tensor, moved: Tensor, wanted: Tensor, error: Tensor
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            right = targets.gather(-1, logits.argmax(-1, keepdim=True))[..., 0] > 0
            follows = wanted.gather(-1, moved.argmax(-1, keepdim=True))[..., 0] > 0
            changes = ~((wanted > 0) & (targets[: len(wanted)] > 0)).any(-1)
            return {
                "agreement": right.float().mean(),
                "interchange_accuracy": follows[changes].float().mean(),
                "value_error": error.square().mean().sqrt() * self.course.problem.levels,
            }
