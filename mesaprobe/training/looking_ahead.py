"""Training as the scorer inside a look-ahead from outside (arm A3): every consequence is supplied by the outer loop.

The network is an ordinary left-to-right GPT, and no loss asks what one pass alone would name (but for the last city,
which nothing follows). Its logits f are scores that a look-ahead of two cities adds up (`mesaprobe.decoding.look_ahead`
at depth 2): from the state s with cities U left,

    S(s, a) = f(s, a) + log mean over b in U \\ {a} of exp f(sa, b)        for a in U with U \\ {a} not empty,
    S(s, a) = f(s, a)                                                      for visited cities and the last one,

and the loss is the cross-entropy of softmax S(s, .) against the teacher's distribution, at every decision of the tour.
Over legal paths of two cities this is a globally normalised model, P(a, b) in proportion to exp(f(s, a) + f(sa, b)), of
which only the first city is asked (beam-search optimisation, Wiseman and Rush 2016, with a soft beam that holds every
path). The loop expands legal cities only, yet visited ones keep their share of the softmax: as in the plain arm, the
network must know them. Scores are not normalised within a state: if they were, the second term would be constant and
nothing looked ahead. The gradient therefore reaches the network in the state s and in every state sa.

All states are read in one pass. The children of the state after p cities are the cities that come later in the tour,
each a token at position p that sees the instance, the p cities before it and itself; the child on the tour is the
tour's own token. One sequence of n + (n - 1) + (n - 1)(n - 2) / 2 tokens holds them all.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.models.gpt import TourGPT
from mesaprobe.training.config import TrainConfig
from mesaprobe.training.objectives import next_city_loss, on_device
from mesaprobe.training.stream import LabelledBatch


def looked_ahead_next_city(network: HookedRootModule, batch: LabelledBatch, config: TrainConfig, step: int) -> Tensor:  # noqa: ARG001
    """The next city at every decision along the tours, by the scores of the look-ahead."""
    assert isinstance(network, TourGPT)
    features, tours, targets = on_device(network, batch.features, batch.tours, batch.targets)
    return next_city_loss(looked_ahead_scores(network, features, tours), targets)


def looked_ahead_scores(
    network: TourGPT, features: Float[Tensor, "batch n f"], tours: Int[Tensor, "batch n"]
) -> Float[Tensor, "batch decision n"]:
    """S after every prefix of the tours: entry i answers the state `tours[:, : i + 1]`."""
    n = network.n
    places, indices = _nodes(n, tours.device)
    cities = tours[:, indices]
    logits = _logits(network, features, cities, places)
    follow = logits.masked_fill(_used(tours, cities, places), -torch.inf).logsumexp(-1) - (n - 1 - places).log()
    where = (places[1:] - 1) * n + cities[:, 1:]  # the parent's decision and the city; node 0 is city 0, nobody's child
    added = torch.zeros_like(logits[:, : n - 1]).flatten(1).scatter(1, where, follow[:, 1:])
    return logits[:, : n - 1] + added.view(-1, n - 1, n)


def _nodes(n: int, device: torch.device) -> tuple[Int[Tensor, " node"], Int[Tensor, " node"]]:
    """Position of every node, and where in the tour its city stands: first the tour but for its last city, then at
    each position the cities that come later."""
    place, index = torch.triu_indices(n, n, offset=1, device=device)
    aside = (place > 0) & (place < n - 1)
    tour = torch.arange(n - 1, device=device)
    return torch.cat([tour, place[aside]]), torch.cat([tour, index[aside]])


def _logits(
    network: TourGPT,
    features: Float[Tensor, "batch n f"],
    cities: Int[Tensor, "batch node"],
    places: Int[Tensor, " node"],
) -> Float[Tensor, "batch node n"]:
    """What the network answers in the state that each node ends."""
    n = network.n
    x = network.tokens(features, cities) + F.pad(network.pos.weight[places], (0, 0, n, 0))
    mask = _mask(network.mask[:n, :n], places)
    for block in network.blocks:
        x = block(x, mask)
    return network.unembed(network.ln_final(x)[:, n:])


def _mask(among_cities: Bool[Tensor, "n n"], places: Int[Tensor, " node"]) -> Bool[Tensor, "pos pos"]:
    """Who sees whom: a node all cities, the tour before its position, and itself."""
    n, nodes = len(among_cities), len(places)
    mask = torch.ones(n + nodes, n + nodes, dtype=torch.bool, device=places.device)
    mask[:n, :n], mask[:n, n:] = among_cities, False
    earlier = torch.arange(nodes, device=places.device) < places[:, None]  # node j < n - 1 is the tour's at position j
    mask[n:, n:] = earlier | torch.eye(nodes, dtype=torch.bool, device=places.device)
    return mask


def _used(
    tours: Int[Tensor, "batch n"], cities: Int[Tensor, "batch node"], places: Int[Tensor, " node"]
) -> Bool[Tensor, "batch node n"]:
    """The cities that each node's state has named."""
    before = F.one_hot(tours, tours.shape[1]).cumsum(1)[:, places - 1] * (places > 0)[:, None]
    return (before + F.one_hot(cities, tours.shape[1])) > 0
