"""What networks without attention share: a stream of city tokens and tour tokens, its shape, and who may look at it."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mesaprobe.models.gpt import LensConfig

Stream = tuple[Float[Tensor, "batch n d_model"], Float[Tensor, "batch t d_model"]]
"""City tokens, then the tour's."""


def shown(hook: HookPoint, stream: Stream) -> Stream:
    """Put both kinds of tokens in one tensor for whoever looks at the hook point, and go on with what comes back."""
    if not hook.has_hooks():
        return stream
    x = hook(torch.cat(stream, dim=1))
    n = stream[0].shape[1]
    return x[:, :n].contiguous(), x[:, n:].contiguous()


def check_features(features: Float[Tensor, "batch n f"], n: int, n_features: int) -> None:
    """Raise ValueError for instances of another size."""
    if features.shape[1:] != (n, n_features):
        raise ValueError(
            f"features must have shape (batch, n, f) = (.., {n}, {n_features}), got {tuple(features.shape)}"
        )


def stream_config(n: int, *, n_layers: int, d_model: int, d_mlp: int, act_fn: str, device: torch.device) -> LensConfig:
    """The shape of a stream over n cities in TransformerLens' words; there are no attention heads."""
    return LensConfig(
        n_layers=n_layers,
        n_heads=0,
        d_model=d_model,
        d_head=0,
        d_mlp=d_mlp,
        n_ctx=2 * n,
        d_vocab=n,
        d_vocab_out=n,
        act_fn=act_fn,
        normalization_type=None,
        attention_dir="causal",
        device=str(device),
    )
