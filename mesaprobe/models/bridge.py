"""A `TourGPT` as TransformerLens' own `TransformerBridge`, with equal logits.

    bridged = to_bridge(mesaprobe.load("trained_models/matrix8-optimal"))
    logits = bridged(features, tour)                                   # as the original: [batch, t, n]
    _, cache = bridged.bridge.run_with_cache(bridged.tokens(features, tour))

One route serves every attention mode: the blocks, the positions and the unembedding become a native bridge, which
is fed with the original's token embeddings, because the bridge's own embedding takes integers and ours takes
features. A bridge has no prefix attention, and one that is built causal cannot un-mask, so `prefix` becomes a
bidirectional stack under a boolean mask. The mask is supplied inside the bridge whenever the caller gives none:
TransformerLens tools know nothing of it, and without it they would silently compute another network.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import TransformerBridge, TransformerBridgeConfig

from mesaprobe.errors import UserError
from mesaprobe.models.gpt import Block, TourGPT
from mesaprobe.models.subject import ModuleSubject, Subject


@dataclass(frozen=True, eq=False)
class BridgedGPT:
    """A converted network: `bridge` for TransformerLens' tools, `tokens` for what they are to be fed with.

    Positions, at every hook of the bridge and of the original alike, with n cities and a tour of t cities:
    position c < n is the token of city c (no position embedding: `W_pos[:n]` is zero), position n + i is the
    token of `tour[i]` with position embedding `W_pos[n + i]`. The bridge gives logits at all n + t positions.
    Those at position n + i are the original's at tour position i; the first n answer nothing that was trained.

    Hooks that differ from the original's, in TransformerLens 4.3: `hook_embed` does not fire, since the bridge is fed
    with embeddings (where a decomposition of the stream lacks its first term, that term is `tokens(features,
    tour)`); `ln*.hook_normalized` stands before the norm's weight and bias here, and after them in the original;
    editing `attn.hook_attn_scores` has no effect here (edit `attn.hook_pattern`), and has one in the original.
    """

    bridge: TransformerBridge
    embedder: TourGPT
    """A copy of the original, asked for its token embeddings only."""

    def tokens(
        self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]
    ) -> Float[Tensor, "batch n+t d_model"]:
        """The bridge's input: city tokens, then tour tokens, without positions (the bridge adds them)."""
        return self.embedder.tokens(features, tour)

    def __call__(
        self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]
    ) -> Float[Tensor, "batch t n"]:
        """Logits at every tour position, as `TourGPT.forward` gives them."""
        return self.bridge(self.tokens(features, tour))[:, self.embedder.n :]


def to_bridge(network: TourGPT | Subject) -> BridgedGPT:
    """Convert a `TourGPT`, or a Subject made of one, into a bridge in evaluation mode on the same device.

    Weights are copied: what happens to the original later does not reach the bridge. Raises UserError for any
    other network, subclasses included, since what they compute may not be what a bridge computes.

    >>> from mesaprobe.models import GPTConfig
    >>> bridged = to_bridge(TourGPT(GPTConfig(d_model=8, n_heads=2, n_layers=1, d_mlp=8), n=5, n_features=5))
    >>> features, tour = torch.rand(2, 5, 5), torch.tensor([[0, 3, 1], [0, 2, 4]])
    >>> bridged(features, tour).shape
    torch.Size([2, 3, 5])
    >>> _, cache = bridged.bridge.run_with_cache(bridged.tokens(features, tour))
    >>> cache["blocks.0.hook_resid_post"].shape
    torch.Size([2, 8, 8])
    """
    model = network.module if isinstance(network, ModuleSubject) else network
    if type(model) is not TourGPT:
        raise UserError(
            f"only a TourGPT can be converted to a TransformerBridge, got {type(model).__name__}; "
            "a HookedRootModule needs no conversion to be used with mesaprobe.wrap"
        )
    weight = model.pos.weight
    bridge = TransformerBridge.boot_native(_bridge_config(model), device=weight.device, dtype=weight.dtype)
    bridge.load_state_dict(_bridge_weights(model), strict=True)
    bridge.original_model.register_forward_pre_hook(_SuppliedMask(~model.mask), with_kwargs=True)
    embedder = copy.deepcopy(model)
    embedder.reset_hooks(including_permanent=True)
    return BridgedGPT(bridge.eval(), embedder.eval())


@dataclass(frozen=True)
class _SuppliedMask:
    """A forward pre-hook that masks a bridge's attention unless the caller brings a mask of their own."""

    hidden: Bool[Tensor, "pos pos"]
    """True where a query (row) must not see a key (column), which is the native bridge's convention."""

    def __call__(
        self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if kwargs.get("attention_mask") is None:
            tokens = args[0] if args else kwargs["inputs_embeds"]
            length = tokens.shape[1]
            kwargs["attention_mask"] = self.hidden[None, None, :length, :length].to(tokens.device)
        return args, kwargs


def _bridge_config(model: TourGPT) -> TransformerBridgeConfig:
    cfg = model.cfg
    return TransformerBridgeConfig(
        d_model=cfg.d_model,
        d_head=cfg.d_head,
        n_heads=cfg.n_heads,
        n_layers=cfg.n_layers,
        n_ctx=cfg.n_ctx,
        d_vocab=cfg.d_vocab,
        d_vocab_out=cfg.d_vocab_out,
        d_mlp=cfg.d_mlp,
        act_fn=cfg.act_fn,
        normalization_type=cfg.normalization_type,
        attention_dir=cfg.attention_dir,
        init_weights=False,
    )


def _bridge_weights(model: TourGPT) -> dict[str, Tensor]:
    """The weights under the bridge's names; its token embedding stays zero, as nothing is fed through it."""
    weights = {
        "embed.weight": torch.zeros_like(model.identity.weight),
        "pos_embed.weight": F.pad(model.pos.weight, (0, 0, model.n, 0)),
        "unembed.weight": model.unembed.weight,
        "unembed.bias": model.unembed.bias,
    }
    norms = {"ln_final": model.ln_final}
    for i, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        norms |= {f"blocks.{i}.ln1": block.ln1, f"blocks.{i}.ln2": block.ln2}
        attention, mlp = block.attn, block.mlp
        for part, weight, bias in zip("qkv", attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True):
            weights |= {f"blocks.{i}.attn.{part}.weight": weight, f"blocks.{i}.attn.{part}.bias": bias}
        for name, linear in {"attn.o": attention.out, "mlp.in": mlp.into, "mlp.out": mlp.out}.items():
            weights |= {f"blocks.{i}.{name}.weight": linear.weight, f"blocks.{i}.{name}.bias": linear.bias}
    for name, norm in norms.items():
        weights |= {f"{name}.{key}": value for key, value in norm.state_dict().items()}
    return {name: weight.detach().clone() for name, weight in weights.items()}
