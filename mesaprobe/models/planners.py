"""Networks that search by their architecture, in states that nobody tells them what to be.

Both are trained end to end on tours. The cost of the next arc is given; what is learnt is how states are embedded,
how an embedding changes when a city is named, and what a state is worth (in units of the weights). A soft minimum
hands values back, so that no logit can be had but by comparing continuations:

    tree (TreeQN, Farquhar et al. 2018)   Q(a) = d(c, a) + softmin_b [d(a, b) + v(h_ab)]
    iteration (Tamar et al. 2016)         Q(a) = d(c, a) + V_K(a),   V_k(i) = softmin_j [k(i, j) + V_k-1(j)]

with a, b, i, j over free cities. h_ab is the embedding of the state two arcs on; k(i, j) is a learnt cost of an arc,
the same in all iterations, and V_0 a learnt value. Logits are -Q; visited cities have none (a large negative number).

The stream has the usual positions. City tokens hold their row of weights and are carried along. Decode tokens hold

    tree        blocks.0 reads the row of the current city and which cities are free; leaves h of the state
                blocks.1 leaves h_a of every next state, side by side
                blocks.2 leaves (Q(a), 0, ...) of every next city, side by side
    iteration   blocks.k leaves V_k+1 of every city; the last block Q
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.models.config import PlannerConfig
from mesaprobe.models.gpt import LensConfig
from mesaprobe.models.token_stream import check_features, shown, stream_config

VISITED = 1e3
"""Added to the cost of cities that may not be named."""


def soft_minimum(
    costs: Float[Tensor, "*batch n"], allowed: Bool[Tensor, "*batch n"], sharpness: Float[Tensor, ""]
) -> Float[Tensor, "*batch"]:
    """-logsumexp(-s c) / s over the allowed entries: at most their minimum, and close to it where s is large.

    >>> soft_minimum(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([True, True, False]), torch.tensor(100.0))
    tensor(1.)
    """
    return -torch.logsumexp((-costs * sharpness).masked_fill(~allowed, -torch.inf), dim=-1) / sharpness


def others(free: Bool[Tensor, "batch t n"]) -> Bool[Tensor, "batch t n n"]:
    """For every city, which cities but itself are free.

    >>> others(torch.tensor([[[False, True, True]]]))[0, 0].int()
    tensor([[0, 1, 1],
            [0, 0, 1],
            [0, 1, 0]], dtype=torch.int32)
    """
    return free[:, :, None] & ~torch.eye(free.shape[-1], dtype=torch.bool, device=free.device)


class _Block(nn.Module):
    """Hook points of one step of planning."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        self.hook_costs = HookPoint()


class _Readout(nn.Module):
    """The logit of a city is minus s times what stands first in its place."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.log_scale = n, nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch n"]:
        return -self.log_scale.exp() * x.unflatten(-1, (self.n, -1))[..., 0]


class Planner(HookedRootModule):
    """What both planners have in common. `forward(features, tour)` gives logits over cities."""

    def __init__(self, config: PlannerConfig, n: int, n_features: int) -> None:
        super().__init__()
        if n_features != n:
            raise ValueError(f"features must be the rows of weights (n = {n} of them), got {n_features}")
        self.config, self.n, self.n_features = config, n, n_features
        self.blocks = nn.ModuleList(_Block() for _ in range(config.n_layers))
        self.log_sharpness = nn.Parameter(torch.tensor(3.0))
        self.ln_final, self.unembed = nn.Identity(), _Readout(n)

    @property
    def cfg(self) -> LensConfig:
        """The shape of the stream in TransformerLens' words; there are no attention heads."""
        return stream_config(
            self.n,
            n_layers=self.config.n_layers,
            d_model=self.n * self.config.width,
            d_mlp=self.config.d_mlp,
            act_fn="gelu",
            device=self.log_sharpness.device,
        )

    def forward(self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]) -> Float[Tensor, "batch t n"]:
        """Logits at every tour position, for the city that follows."""
        check_features(features, self.n, self.n_features)
        named = F.one_hot(tour, self.n)
        free = named.cumsum(1) == 0
        steps = torch.cat([features.gather(1, tour[:, :, None].expand(-1, -1, self.n)), free.to(features)], dim=2)
        width = self.n * self.config.width
        stream = F.pad(features, (0, width - self.n)), F.pad(steps, (0, width - 2 * self.n))
        for layer in range(self.config.n_layers):
            block = self.blocks[layer]
            assert isinstance(block, _Block)
            cities, steps = shown(block.hook_resid_pre, stream)
            steps = self.plan(layer, cities[:, :, : self.n], steps, free, tour)
            stream = shown(block.hook_resid_post, (cities, steps))
        return self.unembed(self.ln_final(stream[1]))

    def plan(
        self,
        layer: int,
        rows: Float[Tensor, "batch n n"],
        steps: Float[Tensor, "batch t d_model"],
        free: Bool[Tensor, "batch t n"],
        tour: Int[Tensor, "batch t"],
    ) -> Float[Tensor, "batch t d_model"]:
        """What one block leaves at the decode tokens."""
        raise NotImplementedError

    def compared(
        self, layer: int, costs: Float[Tensor, "batch t n n"], rows: Tensor, free: Bool[Tensor, "batch t n"]
    ) -> Float[Tensor, "batch t n"]:
        """The soft minimum of every row over the free cities but its own; where there are none, the way home."""
        block = self.blocks[layer]
        assert isinstance(block, _Block)
        left = others(free)
        found = soft_minimum(block.hook_costs(costs), left | ~left.any(-1, keepdim=True), self.sharpness)
        return torch.where(left.any(-1), found, rows[:, None, :, 0].expand_as(found))

    def choice(
        self, onward: Float[Tensor, "batch t n"], rows: Tensor, free: Tensor, tour: Tensor
    ) -> Float[Tensor, "batch t d_model"]:
        """Q(a) = d(c, a) + what lies beyond a, first in the place of a."""
        now = rows.gather(1, tour[:, :, None].expand(-1, -1, self.n))
        return F.pad((now + onward + VISITED * ~free)[..., None], (0, self.config.width - 1)).flatten(2)

    @property
    def sharpness(self) -> Float[Tensor, ""]:
        """Of the soft minimum."""
        return self.log_sharpness.exp()

    def _draw_weights(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() == 1:
                    parameter.zero_()
                elif parameter.dim() > 1:
                    parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class TreeUnroll(Planner):
    """Unrolls two arcs with a learnt transition and values the states that it reaches.

    >>> network = TreeUnroll(PlannerConfig(width=16, d_mlp=8), n=6, n_features=6)
    >>> network(torch.rand(3, 6, 6), torch.tensor([[0, 2]] * 3)).shape
    torch.Size([3, 2, 6])
    """

    def __init__(self, config: PlannerConfig, n: int, n_features: int, *, seed: int = 0) -> None:
        super().__init__(config, n, n_features)
        width, hidden = config.width, config.d_mlp
        self.root = _mlp(2 * n + n * n, hidden, width)
        self.transition = _mlp(width + 3 * n, hidden, width)
        self.value = _mlp(width, hidden, 1)
        self.hook_leaves, self.hook_values = HookPoint(), HookPoint()
        self._draw_weights(seed)
        self.setup()  # names every hook point, so it comes last

    def plan(self, layer: int, rows: Tensor, steps: Tensor, free: Tensor, tour: Tensor) -> Tensor:
        n, width = self.n, self.config.width
        if layer == 0:
            open_rows = rows[:, None] * free[:, :, :, None] * free[:, :, None]  # weights between free cities
            found = self.root(torch.cat([steps[:, :, : 2 * n], open_rows.flatten(2)], dim=2))
            return F.pad(found, (0, n * width - width))
        if layer == 1:
            root = steps[:, :, None, :width].expand(-1, -1, n, -1)
            return self.after(root, rows, free[:, :, None].expand(-1, -1, n, -1)).flatten(2)
        children = steps.unflatten(2, (n, width))  # [batch, t, a, width]
        left = others(free)[:, :, :, None].expand(-1, -1, -1, n, -1)
        leaves = self.after(children[:, :, :, None].expand(-1, -1, -1, n, -1), rows[:, None], left)
        values = self.hook_values(self.value(self.hook_leaves(leaves))[..., 0])  # [batch, t, a, b]
        return self.choice(self.compared(layer, rows[:, None] + values, rows, free), rows, free, tour)

    def after(
        self, h: Float[Tensor, "*batch n width"], rows: Float[Tensor, "*batch n n"], free: Bool[Tensor, "*batch n n"]
    ) -> Float[Tensor, "*batch n width"]:
        """h of the states that follow when each city is named: h + tanh(T(h, the city, its row, the free cities))."""
        city = torch.eye(self.n, device=h.device).expand(*h.shape[:-1], self.n)
        shown = rows[:, None].expand_as(city) if rows.ndim < city.ndim else rows
        free = free & (city == 0)
        return h + torch.tanh(self.transition(torch.cat([h, city, shown * free, free.to(h)], dim=-1)))


class IterationNetwork(Planner):
    """Iterates learnt values of cities, one soft minimum over free cities a block.

    >>> network = IterationNetwork(PlannerConfig(kind="iteration", n_layers=4, width=3, d_mlp=8), n=6, n_features=6)
    >>> network(torch.rand(3, 6, 6), torch.tensor([[0, 2]] * 3)).shape
    torch.Size([3, 2, 6])
    """

    def __init__(self, config: PlannerConfig, n: int, n_features: int, *, seed: int = 0) -> None:
        super().__init__(config, n, n_features)
        self.arc, self.terminal = _mlp(6, config.d_mlp, 1), _mlp(5, config.d_mlp, 1)
        self._draw_weights(seed)
        self.setup()  # names every hook point, so it comes last

    def plan(self, layer: int, rows: Tensor, steps: Tensor, free: Tensor, tour: Tensor) -> Tensor:
        local = self.local(rows, free)  # [batch, t, n, 5]
        if layer == 0:
            value = rows[:, None, :, 0] + self.terminal(local)[..., 0]
        else:
            value = steps.unflatten(2, (self.n, -1))[..., 0]
        between = rows[:, None].expand(-1, free.shape[1], -1, -1)
        pair = torch.cat([between[..., None], local[:, :, :, None].expand(-1, -1, -1, self.n, -1)], dim=-1)
        costs = between + self.arc(pair)[..., 0] + value[:, :, None]  # [batch, t, i, j]
        found = self.compared(layer, costs, rows, free)
        if layer == self.config.n_layers - 1:
            return self.choice(found, rows, free, tour)
        return F.pad(found[..., None], (0, self.config.width - 1)).flatten(2)

    def local(self, rows: Tensor, free: Tensor) -> Float[Tensor, "batch t n 5"]:
        """Of each city: its weight to city 0, least and mean weight to free cities, how many are, whether it is."""
        between = rows[:, None].expand(-1, free.shape[1], -1, -1)
        left = others(free)
        count = left.sum(-1)
        mean = (between * left).sum(-1) / count.clamp(min=1)
        least = between.masked_fill(~left, 1.0).amin(-1)
        home = between[..., 0]
        return torch.stack([home, least, mean, count / self.n, free.to(rows)], dim=-1)


NETWORKS: dict[str, type[TreeUnroll] | type[IterationNetwork]] = {"tree": TreeUnroll, "iteration": IterationNetwork}


def planner(config: PlannerConfig, n: int, n_features: int, *, seed: int = 0) -> Planner:
    """The planner of the config's kind."""
    return NETWORKS[config.kind](config, n, n_features, seed=seed)
