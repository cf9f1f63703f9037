"""The hooked GPT: an instance block of city tokens, then the tour named so far (DESIGN section 4).

    city token c:  W f_c + e_c              (features of the city, its identity)
    tour token t:  city token of tour[t] + p_t

A tour token is the *same* vector as its city's token, gathered, plus its position: the network need not look
up by index what it was already shown. Derives from TransformerLens' `HookedRootModule` with the standard hook
names, so `run_with_cache`, `run_with_hooks` and `ActivationCache` work. Attention and layer norm run fused
while nobody looks inside them and explicitly, with the same result, as soon as a hook asks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.models.config import UNKNOWN, GPTConfig
from mesaprobe.models.tied_weights import tie


class LayerNorm(nn.LayerNorm):
    """Layer norm whose scale and output can be hooked."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        if not (self.hook_scale.has_hooks() or self.hook_normalized.has_hooks()):
            return super().forward(x)
        centred = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(centred / scale * self.weight + self.bias)


class Attention(nn.Module):
    """Multi-head attention with hooks on q, k, v, scores, pattern and z (the heads' outputs)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads, self.d_head = config.n_heads, config.head_width
        width = self.n_heads * self.d_head
        self.qkv, self.out = nn.Linear(config.d_model, 3 * width), nn.Linear(width, config.d_model)
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (
            HookPoint(),
            HookPoint(),
            HookPoint(),
            HookPoint(),
        )
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights per head, as `ActivationCache.stack_head_results` reads them."""
        return self.out.weight.T.reshape(self.n_heads, self.d_head, -1)

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        """Output bias."""
        return self.out.bias

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "pos pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, self.d_head)).unbind(2)  # [batch, pos, head, d_head]
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self.hook_pattern.has_hooks() or self.hook_attn_scores.has_hooks():
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(self.d_head)
            scores = self.hook_attn_scores(scores.masked_fill(~mask, -torch.inf))
            z = torch.einsum("bhqk,bkhd->bqhd", self.hook_pattern(scores.softmax(-1)), v)
        else:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # [batch, head, pos, d_head]
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        return self.out(self.hook_z(z).flatten(2))


class MLP(nn.Module):
    """One hidden layer with hooks before and after its activation."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(config.d_model, config.d_mlp), nn.Linear(config.d_mlp, config.d_model)
        activations: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "solu": solu}
        self.act_fn = activations[config.act_fn]
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """What each hidden unit writes, as `ActivationCache.stack_neuron_results` reads it."""
        return self.out.weight.T

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return self.out(self.hook_post(self.act_fn(self.hook_pre(self.into(x)))))


class Block(nn.Module):
    """x + attention, then x + MLP, each on the normalised stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        normalised = config.norm == "layer"
        self.ln1 = LayerNorm(config.d_model) if normalised else nn.Identity()
        self.ln2 = LayerNorm(config.d_model) if normalised else nn.Identity()
        self.attn, self.mlp = Attention(config), MLP(config)
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "pos pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        x = self.hook_resid_pre(x)
        x = self.hook_resid_mid(x + self.hook_attn_out(self.attn(self.ln1(x), mask)))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(self.ln2(x))))


@dataclass(frozen=True)
class LensConfig:
    """What TransformerLens reads from `model.cfg`, in its own words."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    d_vocab_out: int
    act_fn: str
    normalization_type: str | None
    attention_dir: str
    device: str
    dtype: torch.dtype = torch.float32
    positional_embedding_type: str = "standard"
    n_key_value_heads: None = None
    use_attn_result: bool = False
    attn_only: bool = False


class TourGPT(HookedRootModule):
    """Names the cities of a tour in order. `forward(features, tour)` gives logits over cities.

    Causal and prefix attention: the logits at tour position t are for the city at t + 1. Bidirectional
    attention: the tour has n entries, `UNKNOWN` where masked, and the logits at t are for the city at t.
    Weights are drawn from `seed` (normal, 0.02; output projections divided by sqrt(2 layers), as in GPT-2).
    With `config.tied` every block holds the first one's weights; each keeps hook points of its own.
    """

    mask: Bool[Tensor, "pos pos"]

    def __init__(self, config: GPTConfig, n: int, n_features: int, *, seed: int = 0) -> None:
        super().__init__()
        self.config, self.n, self.n_features = config, n, n_features
        self.city, self.identity = nn.Linear(n_features, config.d_model), nn.Embedding(n, config.d_model)
        self.pos = nn.Embedding(n, config.d_model)
        if config.attention == "bidirectional":
            self.unknown = nn.Parameter(torch.empty(config.d_model))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_final = LayerNorm(config.d_model) if config.norm == "layer" else nn.Identity()
        self.unembed = nn.Linear(config.d_model, n)
        self.hook_embed, self.hook_pos_embed = HookPoint(), HookPoint()
        self.register_buffer("mask", attention_mask(config.attention, n), persistent=False)
        self._draw_weights(seed)
        if config.tied:
            tie(self, self.blocks, "blocks")
        self.setup()  # names every hook point, so it comes last

    @property
    def cfg(self) -> LensConfig:
        """The same shape in TransformerLens' words."""
        config = self.config
        return LensConfig(
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            d_model=config.d_model,
            d_head=config.head_width,
            d_mlp=config.d_mlp,
            n_ctx=2 * self.n,
            d_vocab=self.n,
            d_vocab_out=self.n,
            act_fn=config.act_fn,
            normalization_type="LN" if config.norm == "layer" else None,
            attention_dir="causal" if config.attention == "causal" else "bidirectional",
            device=str(self.pos.weight.device),
        )

    def tokens(
        self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """City tokens, then tour tokens, without positions: [batch, n + t, d_model]."""
        cities = self.city(features) + self.identity.weight
        index = tour.clamp(min=0)[:, :, None].expand(-1, -1, cities.shape[2])
        steps = cities.gather(1, index)
        if self.config.attention == "bidirectional":
            steps = torch.where((tour == UNKNOWN)[:, :, None], self.unknown, steps)
        return self.hook_embed(torch.cat([cities, steps], dim=1))

    def embed(
        self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the first block reads: the tokens, those of the tour with their positions."""
        tokens = self.tokens(features, tour)
        positions = F.pad(self.pos.weight[: tour.shape[1]], (0, 0, self.n, 0))  # city tokens have no position
        return tokens + self.hook_pos_embed(positions.expand_as(tokens))

    def forward(
        self,
        features: Float[Tensor, "batch n f"] | None,
        tour: Int[Tensor, "batch t"] | None,
        *,
        resid: Float[Tensor, "batch pos d_model"] | None = None,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
    ) -> Float[Tensor, "batch t n"] | Float[Tensor, "batch pos d_model"]:
        """Logits at every tour position, or with `stop_at_layer` the residual stream before that layer.

        With `resid` (and `start_at_layer`) the pass resumes there: features and tour are not read and the
        layers below do not run.
        """
        x = self._embed_checked(features, tour) if resid is None else resid
        mask = self.mask[: x.shape[1], : x.shape[1]]
        for block in self._blocks(start_at_layer, stop_at_layer):
            x = block(x, mask)
        if stop_at_layer is not None:
            return x
        return self.unembed(self.ln_final(x)[:, self.n :])

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum of the output biases below `layer` (asked for by `ActivationCache.get_full_resid_decomposition`)."""
        total = torch.zeros_like(self.unembed.weight[0])
        for block in self._blocks(0, layer + mlp_input):
            total = total + block.attn.b_O
        for block in self._blocks(0, layer if include_mlp_biases else 0):
            total = total + block.mlp.out.bias
        return total

    def tokens_to_residual_directions(self, cities: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """The direction of the final stream that raises each city's logit (asked for by
        `ActivationCache.logit_attrs`)."""
        return self.unembed.weight[cities]

    def _blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        for block in self.blocks[start:stop]:
            assert isinstance(block, Block)
            yield block

    def _embed_checked(self, features: Tensor | None, tour: Tensor | None) -> Tensor:
        if features is None or tour is None:
            raise ValueError("features and tour are needed unless resid is given")
        if features.shape[1:] != (self.n, self.n_features):
            raise ValueError(
                f"features must have shape (batch, n, f) = (.., {self.n}, {self.n_features}), "
                f"got {tuple(features.shape)}"
            )
        if not 1 <= tour.shape[1] <= self.n:
            raise ValueError(f"a tour has 1 to {self.n} entries, got shape {tuple(tour.shape)}")
        return self.embed(features, tour)

    def _draw_weights(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2 and name != "unknown":
                continue  # biases start at 0 and norms at 1, set below
            scale = 0.02
            if name.endswith(("attn.out.weight", "mlp.out.weight")):
                scale /= math.sqrt(2 * self.config.n_layers)
            if name == "city.weight":
                scale = 1 / math.sqrt(self.n_features)
            with torch.no_grad():
                parameter.normal_(0.0, scale, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)


def attention_mask(attention: str, n: int) -> Bool[Tensor, "pos pos"]:
    """True where the query (row) may look at the key (column); n city tokens, then n tour tokens."""
    mask = torch.ones(2 * n, 2 * n, dtype=torch.bool)
    if attention == "bidirectional":
        return mask
    mask = mask.tril()
    if attention == "prefix":
        mask[:n, :n] = True
    return mask


def solu(x: Float[Tensor, "*batch d_mlp"]) -> Float[Tensor, "*batch d_mlp"]:
    """x * softmax(x) (Elhage et al. 2022): over one unit per option, a soft maximum."""
    return x * x.softmax(-1)
