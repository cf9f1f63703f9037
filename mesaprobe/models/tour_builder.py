"""A network that builds a tour in its stream, one elementary step in each loop of one shared block.

At every state (instance and prefix) the stream of the decode token is a partial tour (`building_steps`): at the start
what the prefix fixes, and then one city or one edge more after every loop. Loop l reads the instance's weights from
the city tokens, scores every step that the partial tour allows by a small learnt network of a few quantities q_s of
that step, the same for all steps and loops, and passes on the tour after the likeliest step:

    h_s     = GELU(W q_s + b + g_l)
    z_s     = SHARPNESS * (w . h_s + u . q_s)
    stream  = sum over s of p_s * (partial tour after s),   p = softmax(z), rounded

The weights are learnt: nothing says which quantity counts, nor for what. g_l tells the loops apart. Rounding takes the
likeliest step alone (ties can then not mix into something that is no tour), and gradients pass as if it did not. What
a block reads, which an edit may have changed, is rounded to a partial tour likewise.

No two completions are ever compared, and none is priced: a step is scored by itself and undone by none, so that a
network of this shape is a constructive rule (degree 2). The search shell beside it is `tour_refiner`.

    blocks.0 reads     city token: row of weights, then zeros; decode token: what the prefix fixes
    blocks.l leaves    the partial tour after loop l + 1
    unembed            linear, the same at all states: it learns to read the row of what follows the current city
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.models.building_steps import STEPS, Partial
from mesaprobe.models.config import TourBuilderConfig
from mesaprobe.models.gpt import LensConfig
from mesaprobe.models.token_stream import Stream, check_features, shown, stream_config

SHARPNESS = 100.0
QUANTITY_SCALE = 64.0
"""Weights come as fractions of the largest. Rules decide by differences of a sixty-fourth of it, some by one difference
before all others: these keep the weights that tell steps apart at a common size."""


class StepScore(nn.Module):
    """z_s / SHARPNESS of every step: what all loops share."""

    def __init__(self, config: TourBuilderConfig, quantities: int) -> None:
        super().__init__()
        self.into, self.loop = nn.Linear(quantities, config.d_mlp), nn.Embedding(config.n_layers, config.d_mlp)
        self.out, self.direct = nn.Linear(config.d_mlp, 1, bias=False), nn.Linear(quantities, 1, bias=False)


class Loop(nn.Module):
    """One use of the shared block; owns hook points and no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre, self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_quantities, self.hook_pre, self.hook_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_scores, self.hook_pattern = HookPoint(), HookPoint()


class TourBuilder(HookedRootModule):
    """Names the next city of a tour that it builds first. `forward(features, tour)` gives logits over cities.

    >>> builder = TourBuilder(TourBuilderConfig(n_layers=5, d_mlp=8, steps="edges"), n=6, n_features=6)
    >>> builder(torch.rand(3, 6, 6), torch.tensor([[0, 2]] * 3)).shape
    torch.Size([3, 2, 6])
    """

    def __init__(self, config: TourBuilderConfig, n: int, n_features: int, *, seed: int = 0) -> None:
        super().__init__()
        if n_features != n:
            raise ValueError(f"features must be the rows of weights (n = {n} of them), got {n_features}")
        self.config, self.n, self.n_features = config, n, n_features
        self.steps = STEPS[config.steps]()
        self.step_score = StepScore(config, len(self.steps.quantities))
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
            d_mlp=self.steps.count(n) * self.config.d_mlp,
            act_fn="gelu",
            device=self.unembed.weight.device,
        )

    def forward(self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]) -> Float[Tensor, "batch t n"]:
        """Logits at every tour position, for the city that follows."""
        check_features(features, self.n, self.n_features)
        stream = self.start(features, tour)
        for loop in range(self.config.n_layers):
            stream = self.build(stream, loop)
        return self.unembed(self.ln_final(stream[1]))

    def start(self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]) -> Stream:
        """Rows of weights; what the prefixes fix."""
        n = self.n
        return F.pad(features, (0, n * n - n)), self.steps.start(tour, n).to(features).flatten(2)

    def build(self, stream: Stream, loop: int) -> Stream:
        """One loop."""
        block = self.blocks[loop]
        assert isinstance(block, Loop)
        cities, tokens = shown(block.hook_resid_pre, stream)
        found = tokens.unflatten(2, (self.n, self.n))
        partial = straight_through(self.steps.rounded(found), found)
        shares = block.hook_pattern(self.scores(cities[:, :, : self.n], partial, loop).softmax(-1))
        likeliest = F.one_hot(shares.argmax(-1), shares.shape[-1])
        built = self.steps.taken(partial, straight_through(likeliest, shares)).flatten(2)
        written, added = shown(block.hook_mlp_out, (torch.zeros_like(cities), built - tokens))
        return shown(block.hook_resid_post, (cities + written, tokens + added))

    def scores(self, rows: Float[Tensor, "batch n n"], partial: Partial, loop: int) -> Float[Tensor, "batch t step"]:
        """z_s; minus infinity for steps that the partial tour does not allow."""
        block, score = self.blocks[loop], self.step_score
        assert isinstance(block, Loop)
        known = block.hook_quantities(QUANTITY_SCALE * self.steps.describe(rows, partial))
        hidden = block.hook_pre(score.into(known) + score.loop.weight[loop])
        hidden = block.hook_post(F.gelu(hidden))
        scores = SHARPNESS * (score.out(hidden) + score.direct(known))[..., 0]
        allowed = self.steps.allowed(self.steps.rounded(partial.detach()))
        return block.hook_scores(scores.masked_fill(~allowed, -torch.inf))

    def _draw_weights(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() < 2 or name in ("step_score.out.weight", "step_score.direct.weight"):
                    parameter.zero_()
                else:
                    parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)


def straight_through(hard: Tensor, soft: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`hard` in value, `soft` in gradient."""
    return hard.to(soft) + (soft - soft.detach())
