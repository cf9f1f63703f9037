"""A network that keeps a complete tour in its stream and refines it, loop by loop, with one shared block.

At every state (instance and prefix) the stream of the decode token is a cyclic tour: slot k holds a distribution over
cities, one-hot at the start. Slot 0 is the current city, then come the free cities, then city 0 and the rest of the
prefix, so that the last slot closes the cycle. Loop l reads the instance's weights from the city tokens, prices the
arcs of every candidate tour that a move of its neighbourhood leads to (moves of the free part alone; staying is one
of them), and passes on the candidates' mixture:

    d_c[k]  = weight from slot k to slot k + 1 in candidate c
    h_c     = GELU(W_new d_c + W_old d_stay + e_c + g_l)
    s_c     = SHARPNESS * (w . h_c + u . d_c)
    stream  = sum over c of softmax(s)_c * (slots rearranged as c)

The weights, the same in all loops, are learnt: nothing says that s is a cost, nor which candidate is preferred. g_l
tells the loops apart, for teachers that do another thing in each. What a block reads it first rounds to the most
likely city in each slot, so that mixtures do not add up from loop to loop; gradients pass as if it did not.

    blocks.0 reads     city token: row of weights, then zeros; decode token: the free cities in the order of their index
    blocks.l leaves    the tour after loop l + 1
    unembed            linear, the same at all states: it learns to read slot 1
"""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.models.config import TourRefinerConfig
from mesaprobe.models.gpt import LensConfig
from mesaprobe.models.token_stream import Stream, check_features, shown, stream_config

SHARPNESS = 100.0
"""Tours often differ by a hundredth of their cost; this keeps the weights that tell them apart at a common size."""
Order = tuple[int, ...]
"""Which slot stands in each slot after a move."""


def two_opt_moves(n: int) -> list[Order]:
    """Reversals of slots i..j, 1 <= i < j < n, in the order of i and j; staying comes first.

    >>> two_opt_moves(4)
    [(0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 2, 1), (0, 1, 3, 2)]
    """
    stay = tuple(range(n))
    return [stay] + [stay[:i] + stay[i : j + 1][::-1] + stay[j + 1 :] for i, j in combinations(range(1, n), 2)]


def or_opt_moves(n: int, longest: int = 3) -> list[Order]:
    """Paths of 1 to `longest` slots moved elsewhere, in either direction; staying comes first, no order comes twice.

    >>> or_opt_moves(4, 1)
    [(0, 1, 2, 3), (0, 2, 1, 3), (0, 2, 3, 1), (0, 1, 3, 2), (0, 3, 1, 2)]
    """
    stay = tuple(range(n))
    found: dict[Order, None] = {stay: None}
    for length in range(1, longest + 1):
        for start in range(1, n - length + 1):
            path, rest = stay[start : start + length], stay[:start] + stay[start + length :]
            for at in range(1, len(rest) + 1):
                for piece in (path, path[::-1]):
                    found.setdefault(rest[:at] + piece + rest[at:])
    return list(found)


MOVES: dict[str, Callable[[int], list[Order]]] = {"two_opt": two_opt_moves, "or_opt": or_opt_moves}


class Valuation(nn.Module):
    """s_c of every candidate: what all loops share."""

    def __init__(self, config: TourRefinerConfig, n: int, candidates: int) -> None:
        super().__init__()
        self.new, self.old = nn.Linear(n, config.d_mlp), nn.Linear(n, config.d_mlp, bias=False)
        self.candidate, self.loop = nn.Embedding(candidates, config.d_mlp), nn.Embedding(config.n_layers, config.d_mlp)
        self.score, self.direct = nn.Linear(config.d_mlp, 1, bias=False), nn.Linear(n, 1, bias=False)

    def hidden(self, arcs: Float[Tensor, "s candidate n"], loop: int) -> Float[Tensor, "s candidate d_mlp"]:
        """Before the activation."""
        return self.new(arcs) + self.old(arcs[:, :1]) + self.candidate.weight + self.loop.weight[loop]


class Loop(nn.Module):
    """One use of the shared block; owns hook points and no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre, self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_arcs, self.hook_pre, self.hook_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_scores, self.hook_pattern = HookPoint(), HookPoint()


class TourRefiner(HookedRootModule):
    """Names the next city of a tour that it improves first. `forward(features, tour)` gives logits over cities.

    >>> refiner = TourRefiner(TourRefinerConfig(n_layers=2, d_mlp=8), n=6, n_features=6)
    >>> refiner(torch.rand(3, 6, 6), torch.tensor([[0, 2]] * 3)).shape
    torch.Size([3, 2, 6])
    """

    orders: Int[Tensor, "candidate n"]

    def __init__(self, config: TourRefinerConfig, n: int, n_features: int, *, seed: int = 0) -> None:
        super().__init__()
        if n_features != n:
            raise ValueError(f"features must be the rows of weights (n = {n} of them), got {n_features}")
        self.config, self.n, self.n_features = config, n, n_features
        orders = torch.tensor(MOVES[config.moves](n))
        self.register_buffer("orders", orders, persistent=False)
        self.valuation = Valuation(config, n, len(orders))
        self.blocks = nn.ModuleList(Loop() for _ in range(config.n_layers))
        self.ln_final, self.unembed = nn.Identity(), nn.Linear(n * n, n)
        self._draw_weights(seed)
        self.setup()  # names every hook point, so it comes last

    @property
    def cfg(self) -> LensConfig:
        """The shape of the whole stream in TransformerLens' words; there are no attention heads."""
        n = self.n
        return stream_config(
            self.n,
            n_layers=self.config.n_layers,
            d_model=n * n,
            d_mlp=len(self.orders) * self.config.d_mlp,
            act_fn="gelu",
            device=self.unembed.weight.device,
        )

    def forward(self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]) -> Float[Tensor, "batch t n"]:
        """Logits at every tour position, for the city that follows."""
        check_features(features, self.n, self.n_features)
        stream = self.start(features, tour)
        for loop in range(self.config.n_layers):
            stream = self.refine(stream, loop)
        return self.unembed(self.ln_final(stream[1]))

    def start(self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]) -> Stream:
        """Rows of weights; tours that go on through the free cities in the order of their index."""
        n = self.n
        return F.pad(features, (0, n * n - n)), F.one_hot(first_tours(tour, n), n).to(features).flatten(2)

    def refine(self, stream: Stream, loop: int) -> Stream:
        """One loop."""
        block = self.blocks[loop]
        assert isinstance(block, Loop)
        cities, steps = shown(block.hook_resid_pre, stream)
        slots = rounded(steps.unflatten(2, (self.n, self.n)))  # [batch, t, slot, city]
        scores = self.scores(cities[:, :, : self.n], slots, loop)
        chosen = block.hook_pattern(scores.softmax(-1))
        # slot k of candidate c holds what slot orders[c, k] held
        mix = torch.einsum("btc,ckq->btkq", chosen, F.one_hot(self.orders, self.n).to(chosen))
        found = torch.einsum("btkq,btqa->btka", mix, slots).flatten(2)
        written, added = shown(block.hook_mlp_out, (torch.zeros_like(cities), found - steps))
        return shown(block.hook_resid_post, (cities + written, steps + added))

    def scores(
        self, rows: Float[Tensor, "batch n n"], slots: Float[Tensor, "batch t n n"], loop: int
    ) -> Float[Tensor, "batch t candidate"]:
        """s_c; minus infinity for candidates that would move a city of the prefix."""
        block = self.blocks[loop]
        assert isinstance(block, Loop)
        between = torch.einsum("btka,bac,btqc->btkq", slots, rows, slots)
        arcs = between[:, :, self.orders, self.orders.roll(-1, 1)]  # [batch, t, candidate, n]
        arcs = block.hook_arcs(arcs)
        hidden = block.hook_pre(self.valuation.hidden(arcs.flatten(0, 1), loop))
        hidden = block.hook_post(F.gelu(hidden))
        scores = SHARPNESS * (self.valuation.score(hidden) + self.valuation.direct(arcs.flatten(0, 1)))[..., 0]
        scores = scores.unflatten(0, arcs.shape[:2]).masked_fill(~self.allowed(slots.shape[1]), -torch.inf)
        return block.hook_scores(scores)

    def allowed(self, steps: int) -> Bool[Tensor, "t candidate"]:
        """Which candidates move free cities only, after prefixes of 1 to `steps` cities."""
        found = torch.from_numpy(allowed_moves(self.orders.cpu().numpy(), np.arange(1, steps + 1)))
        return found.to(self.orders.device)

    def _draw_weights(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() < 2 or name in ("valuation.score.weight", "valuation.direct.weight"):
                    parameter.zero_()
                else:
                    parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)


def first_tours(tour: Int[Tensor, "batch t"], n: int) -> Int[Tensor, "batch t n"]:
    """The cyclic tour of each state before the first loop: the current city, the free cities by index, city 0 and the
    cities visited since.

    >>> first_tours(torch.tensor([[0, 3, 1]]), 5)[0]
    tensor([[0, 1, 2, 3, 4],
            [3, 1, 2, 4, 0],
            [1, 2, 4, 0, 3]])
    """
    batch, steps = tour.shape
    when = torch.full((batch, n), n, dtype=torch.long, device=tour.device)
    when = when.scatter(1, tour, torch.arange(steps, device=tour.device).expand(batch, -1))  # n: not named at all
    now = torch.arange(steps, device=tour.device)[:, None]  # [t, 1]
    when = when[:, None].expand(-1, steps, -1)
    cities = torch.arange(n, device=tour.device)
    # free cities come first by index, then those visited by time; the current city before all
    key = torch.where(when > now, cities, n + when)
    return torch.where(when == now, -1, key).argsort(dim=-1)


def allowed_moves(
    orders: Int64[np.ndarray, "candidate n"], lengths: Int64[np.ndarray, " state"]
) -> Bool[np.ndarray, "state candidate"]:
    """Which candidates move free cities only: behind a prefix of `length` cities they stand in slots 1 to n - length.

    >>> allowed_moves(np.array(two_opt_moves(4)), np.array([1, 2, 3])).astype(int)
    array([[1, 1, 1, 1],
           [1, 1, 0, 0],
           [1, 0, 0, 0]])
    """
    slots = np.arange(orders.shape[1])
    last_moved = ((orders != slots) * slots).max(axis=1)
    found: Bool[np.ndarray, "state candidate"] = last_moved <= (len(slots) - lengths)[:, None]
    return found


def rounded(slots: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """One-hot at the largest entry; the gradient is that of the identity (straight through)."""
    hard = F.one_hot(slots.argmax(-1), slots.shape[-1]).to(slots)
    return hard + (slots - slots.detach())
