"""A network that walks a search tree in its stream, one node a loop: depth-first branch and bound, and it backtracks.

At every state (instance and prefix) the decode token's stream holds a node: the path through free cities that leads
to it, which children have been tried at every level of that path, the best completion so far with its cost, and what
the last visit came to. One block, the same in all loops, visits the node and moves on:

    bound      cost of the path + sum over cities still to be left of f(their weights to cities still to come, sorted)
    go on?     s (cost of the best - bound) + b > 0, or there is no best yet
    at a leaf  the path becomes the best, if so; at any other node the search goes down, if so
    else       back to the deepest level with an untried child
    child      the untried city with the largest h(weight to it, its weight to city 0)

f, s, b and h are learnt; what a node is, and where one goes from it, is wired. Decisions are rounded (gradients pass
as if they were not). After the last loop a linear readout, learnt, names the next city; it has the best path to read.

    blocks.0 reads     city token: row of weights, then zeros; decode token: the root, an empty path
    blocks.l leaves    the node to be visited next
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.models.config import TreeSearcherConfig
from mesaprobe.models.gpt import LensConfig
from mesaprobe.models.token_stream import Stream, check_features, shown, stream_config

SHARPNESS = 100.0
"""Costs often differ by a hundredth; this keeps the weights that tell them apart at a common size."""
EXTRAS = 5
"""Numbers of a node besides its three tables and its depth."""


class Node(NamedTuple):
    """A node of the search below each state; numbers are 0 or 1 but for the two costs."""

    path: Float[Tensor, "batch t n n"]
    """City in each slot; empty slots are zero."""
    tried: Float[Tensor, "batch t n n"]
    """Children that have been visited, at each level of the path."""
    best: Float[Tensor, "batch t n n"]
    """The best completion so far."""
    depth: Float[Tensor, "batch t n"]
    """How many cities the path has, one-hot."""
    best_cost: Float[Tensor, "batch t"]
    bound: Float[Tensor, "batch t"]
    """Of the node visited last."""
    pruned: Float[Tensor, "batch t"]
    """Whether it was given up, or its completion no better."""
    found: Float[Tensor, "batch t"]
    """Whether there is a best completion."""
    done: Float[Tensor, "batch t"]
    """Whether nothing is left to try."""

    def packed(self, width: int) -> Float[Tensor, "batch t width"]:
        """Side by side, padded with zeros."""
        tables = [part.flatten(2) for part in (self.path, self.tried, self.best)]
        extras = [part[..., None] for part in (self.best_cost, self.bound, self.pruned, self.found, self.done)]
        whole = torch.cat([*tables, self.depth, *extras], dim=2)
        return F.pad(whole, (0, width - whole.shape[2]))

    @staticmethod
    def unpacked(stream: Float[Tensor, "batch t width"], n: int) -> "Node":
        """The node that a stream holds."""
        tables, depth, extras = stream[..., : 3 * n * n + n + EXTRAS].split([3 * n * n, n, EXTRAS], dim=2)
        path, tried, best = (part.unflatten(2, (n, n)) for part in tables.split(n * n, dim=2))
        best_cost, bound, pruned, found, done = extras.unbind(2)
        return Node(path, tried, best, depth, best_cost, bound, pruned, found, done)

    @staticmethod
    def root(shape: tuple[int, ...], n: int, like: Tensor) -> "Node":
        """Nothing visited, nothing found."""
        table, number = like.new_zeros(*shape, n, n), like.new_zeros(shape)
        depth = F.one_hot(torch.zeros(shape, dtype=torch.long, device=like.device), n).to(like)
        return Node(table, table, table, depth, number, number, number, number, number)


class Visit(NamedTuple):
    """What is asked at a node before anything is decided."""

    arcs: Float[Tensor, "batch t city n"]
    """Weights from every city still to be left to those still to come, sorted, 1 where there is none; zero rows for
    other cities."""
    leaves: Bool[Tensor, "batch t city"]
    """The last city of the path and the free cities that are not on it."""
    spent: Float[Tensor, "batch t"]
    """Cost of the path."""
    leaf: Bool[Tensor, "batch t"]
    """Whether no city is left."""
    open_children: Bool[Tensor, "batch t level n"]
    """Untried children at each level, this node's own among them."""
    cities: Float[Tensor, "batch t level n"]
    """The city at which each level branches."""


def look(node: Node, rows: Float[Tensor, "batch n n"], current: Float[Tensor, "batch t n"], free: Tensor) -> Visit:
    """What stands at a node, from the instance's weights, the current city (one-hot) and the free cities."""
    n = rows.shape[1]
    level, depth = torch.arange(n, device=rows.device), node.depth.argmax(-1)
    cities = torch.cat([current[:, :, None], node.path[:, :, :-1]], dim=2)
    cities = cities * (level <= depth[..., None])[..., None]
    steps = torch.einsum("btka,bac,btkc->btk", cities[:, :, :-1], rows, cities[:, :, 1:])
    before = (node.path * (level < depth[..., None])[..., None]).cumsum(2)
    above = torch.cat([torch.zeros_like(before[:, :, :1]), before[:, :, :-1]], dim=2)  # on the path above each level
    children = (free[:, :, None] & (above < 0.5)) & (level <= depth[..., None])[..., None]
    last = torch.take_along_dim(cities, depth[..., None, None], 2)[:, :, 0] > 0.5
    left = free & (before[:, :, -1] < 0.5)
    home = torch.zeros(n, dtype=torch.bool, device=rows.device)
    home[0] = True
    to_come = (left | home)[:, :, None] & ~torch.eye(n, dtype=torch.bool, device=rows.device)
    arcs = torch.where(to_come, rows[:, None], torch.ones_like(rows)[:, None]).sort(-1).values
    leaves = left | last
    return Visit(arcs * leaves[..., None], leaves, steps.sum(-1), ~left.any(-1), children & (node.tried < 0.5), cities)


def move(node: Node, visit: Visit, bound: Tensor, go_on: Tensor, child: Float[Tensor, "batch t level n"]) -> Node:
    """Where the search goes, given the node's bound, whether it goes on (0 or 1), and a child (one-hot) per level."""
    n = node.depth.shape[-1]
    level, depth, done = torch.arange(n, device=bound.device), node.depth.argmax(-1), node.done
    better = go_on * visit.leaf
    allowed = (level < depth[..., None]) | ((level == depth[..., None]) & ((go_on > 0.5) & ~visit.leaf)[..., None])
    possible = visit.open_children.any(-1) & allowed
    target = torch.where(possible, level, -1).amax(-1)  # the deepest level where something can be tried
    nothing = (target < 0).to(bound)
    target = target.clamp(min=0)
    here, above = (level == target[..., None])[..., None], (level < target[..., None])[..., None]
    path = torch.where(here, child, node.path * above)
    tried = torch.where(here, node.tried + child, node.tried * above)
    keep = torch.clamp(done + nothing, max=1.0)[..., None, None]
    deeper = F.one_hot((target + 1).clamp(max=n - 1), n).to(bound)
    after = (1 - done)[..., None, None] * better[..., None, None]
    return Node(
        path * (1 - keep) + node.path * keep,
        tried * (1 - keep) + node.tried * keep,
        node.path * after + node.best * (1 - after),
        deeper * (1 - keep[..., 0]) + node.depth * keep[..., 0],
        torch.where((better > 0.5) & (done < 0.5), bound, node.best_cost),
        torch.where(done < 0.5, bound, node.bound),
        torch.where(done < 0.5, 1 - go_on, node.pruned),
        torch.clamp(node.found + better * (1 - done), max=1.0),
        keep[..., 0, 0],
    )


class Judgement(nn.Module):
    """What all loops share and what is learnt: f, h, s and b."""

    def __init__(self, config: TreeSearcherConfig, n: int) -> None:
        super().__init__()
        self.into, self.out, self.arc = nn.Linear(n, config.d_mlp), nn.Linear(config.d_mlp, 1), nn.Linear(n, 1)
        self.child_into, self.child_out = nn.Linear(2, config.d_mlp), nn.Linear(config.d_mlp, 1)
        self.child_arc = nn.Linear(2, 1)
        self.comparison = nn.Linear(1, 1)

    def costs(self, arcs: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """f: what it costs at least to leave a city."""
        return (self.out(F.gelu(self.into(arcs))) + self.arc(arcs))[..., 0]

    def preferences(self, seen: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
        """h: how soon a child is tried."""
        return SHARPNESS * (self.child_out(F.gelu(self.child_into(seen))) + self.child_arc(seen))[..., 0]

    def goes_on(self, slack: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """s and b: the log-odds of going on where the best costs so much more than the bound."""
        return SHARPNESS * self.comparison(slack[..., None])[..., 0]


class Loop(nn.Module):
    """One use of the shared block; owns hook points and no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        self.hook_bound, self.hook_go_on, self.hook_children = HookPoint(), HookPoint(), HookPoint()


class TreeSearcher(HookedRootModule):
    """Names the next city of the best completion that it finds. `forward(features, tour)` gives logits over cities.

    >>> searcher = TreeSearcher(TreeSearcherConfig(n_layers=3, d_mlp=8), n=6, n_features=6)
    >>> searcher(torch.rand(3, 6, 6), torch.tensor([[0, 2]] * 3)).shape
    torch.Size([3, 2, 6])
    """

    def __init__(self, config: TreeSearcherConfig, n: int, n_features: int, *, seed: int = 0) -> None:
        super().__init__()
        if n_features != n:
            raise ValueError(f"features must be the rows of weights (n = {n} of them), got {n_features}")
        self.config, self.n, self.n_features = config, n, n_features
        self.width = n * math.ceil((3 * n * n + n + EXTRAS) / n)
        self.judgement = Judgement(config, n)
        self.blocks = nn.ModuleList(Loop() for _ in range(config.n_layers))
        self.ln_final, self.unembed = nn.Identity(), nn.Linear(self.width, n)
        self._draw_weights(seed)
        self.setup()  # names every hook point, so it comes last

    @property
    def cfg(self) -> LensConfig:
        """The shape of the whole stream in TransformerLens' words; there are no attention heads."""
        return stream_config(
            self.n,
            n_layers=self.config.n_layers,
            d_model=self.width,
            d_mlp=self.config.d_mlp,
            act_fn="gelu",
            device=self.unembed.weight.device,
        )

    def forward(self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]) -> Float[Tensor, "batch t n"]:
        """Logits at every tour position, for the city that follows."""
        check_features(features, self.n, self.n_features)
        current, free = place(tour, self.n)
        root = Node.root((len(tour), tour.shape[1]), self.n, features)
        stream: Stream = (F.pad(features, (0, self.width - self.n)), root.packed(self.width))
        for loop in range(self.config.n_layers):
            block = self.blocks[loop]
            assert isinstance(block, Loop)
            cities, steps = shown(block.hook_resid_pre, stream)
            node = Node.unpacked(steps, self.n)
            following = self.step(node, cities[:, :, : self.n], current.to(features), free, block)
            stream = shown(block.hook_resid_post, (cities, following.packed(self.width)))
        return self.unembed(self.ln_final(stream[1]))

    def step(self, node: Node, rows: Tensor, current: Tensor, free: Tensor, block: Loop) -> Node:
        """Visit a node and move on."""
        visit = look(node, rows, current, free)
        bound, go_on, children = self.judge(node, visit, rows)
        bound, go_on, children = block.hook_bound(bound), block.hook_go_on(go_on), block.hook_children(children)
        decided = straight_through((go_on > 0).to(bound), go_on.sigmoid())
        chosen = F.one_hot(children.argmax(-1), self.n).to(bound) * visit.open_children.any(-1, keepdim=True)
        return move(node, visit, bound, decided, straight_through(chosen, children.softmax(-1)))

    def judge(
        self, node: Node, visit: Visit, rows: Tensor
    ) -> tuple[Float[Tensor, "batch t"], Float[Tensor, "batch t"], Float[Tensor, "batch t level n"]]:
        """The bound, the log-odds of going on, and the preference for each child at every level."""
        bound = visit.spent + (self.judgement.costs(visit.arcs) * visit.leaves).sum(-1)
        go_on = torch.where(node.found > 0.5, self.judgement.goes_on(node.best_cost - bound), SHARPNESS)
        onward = torch.einsum("btka,bac->btkc", visit.cities, rows)
        seen = torch.stack([onward, rows[:, None, None, :, 0].expand_as(onward)], dim=-1)
        children = self.judgement.preferences(seen).masked_fill(~visit.open_children, -1e4)
        return bound, go_on, children

    def _draw_weights(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() < 2 or "arc" in name or "out" in name:
                    parameter.zero_()
                else:
                    parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)


def place(tour: Int[Tensor, "batch t"], n: int) -> tuple[Int[Tensor, "batch t n"], Bool[Tensor, "batch t n"]]:
    """The current city of each state, one-hot, and its free cities."""
    named = F.one_hot(tour, n)
    return named, named.cumsum(1) == 0


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of one, the gradient of the other."""
    return hard + (soft - soft.detach())
