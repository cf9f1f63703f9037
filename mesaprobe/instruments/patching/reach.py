"""Patches of the residual stream, of which only what they can reach is computed.

A patch changes the tokens that it is made at and, from the next attention on, those that see one of them. Every other
token is the base run's: it is computed once and stands for the same token of all copies. Of the last block only the
token that answers is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mesaprobe.models.gpt import Block, TourGPT


@dataclass(frozen=True, eq=False)
class Joining:
    """Copies of the base run that are patched on entering one layer."""

    changed: Bool[Tensor, "cell batch pos"]
    """True at the tokens that are patched."""
    stream: Float[Tensor, "cell batch pos d_model"]
    """What enters the layer in these copies."""

    def reached(self, mask: Bool[Tensor, "pos pos"]) -> Bool[Tensor, "cell batch pos"]:
        """The tokens that differ from the base's behind the layer's attention, and behind every later one: who sees a
        token that sees a patched one sees the patched one itself, under every `attention_mask`."""
        return self.changed.float() @ mask.T.float() > 0


Join = Callable[..., Joining | None]
"""`join(layer, base, *others)`: the copies that join at a layer, given what enters it in each run, [batch, pos, d]."""


@dataclass(frozen=True, eq=False)
class _Tokens:
    """The tokens of runs and copies of them, those that are alike held once; copy 0 is the base run."""

    x: Float[Tensor, "token d_model"]
    place: Int[Tensor, " token"]
    """Where each stands first, counted through [copy, batch, pos]."""
    number: Int[Tensor, "copy batch pos"]
    """Which token stands at each place."""

    @staticmethod
    def of(runs: Float[Tensor, "run batch pos d_model"]) -> "_Tokens":
        place = torch.arange(runs[..., 0].numel(), device=runs.device)
        return _Tokens(runs.flatten(0, 2), place, place.view(runs.shape[:3]))

    def with_copies(self, own: Bool[Tensor, "cell batch pos"], stream: Float[Tensor, "cell batch pos d"]) -> "_Tokens":
        """With further copies, which have tokens of their own where `own` says so, and share the base's elsewhere."""
        new = own.flatten().nonzero()[:, 0]
        number = torch.where(own, own.flatten().cumsum(0).view_as(own) + (len(self.x) - 1), self.number[0])
        return _Tokens(
            torch.cat([self.x, stream.flatten(0, 2)[new]]),
            torch.cat([self.place, new + self.number.numel()]),
            torch.cat([self.number, number]),
        )


def reached_logits(
    module: TourGPT, runs: Float[Tensor, "run batch pos d_model"], join: Join, answer: int
) -> Float[Tensor, "row n"]:
    """Logits at the position `answer` of the base run, without a patch, then of every copy of it that joined.

    `runs` are what enters layer 0 in the base run, and in others that `join` is to see beside it.
    """
    mask, tokens = module.mask[: runs.shape[2], : runs.shape[2]], _Tokens.of(runs)
    blocks = [block for block in module.blocks if isinstance(block, Block)]
    for layer, block in enumerate(blocks):
        read = tokens
        if (new := join(layer, *tokens.x[: runs[..., 0].numel()].view(runs.shape))) is not None:
            read = tokens.with_copies(new.changed, new.stream)
            tokens = tokens.with_copies(new.reached(mask), new.stream)
        if layer < len(blocks) - 1:
            z = _attention(block, read, mask).flatten(0, 1)[tokens.place]
            tokens = _Tokens(_rest_of(block, tokens.x, z), tokens.place, tokens.number)
    copies = torch.tensor([0, *range(len(runs), len(read.number))])
    answers = tokens.x[tokens.number[copies, :, answer].flatten()]
    z = _attention(blocks[-1], _Tokens(read.x, read.place, read.number[copies]), mask, slice(answer, answer + 1))
    return module.unembed(module.ln_final(_rest_of(blocks[-1], answers, z.flatten(0, 1))))


def nobody_looks(module: TourGPT) -> bool:
    """Whether no hook is set inside the blocks, where this pass would go by it."""
    return not any(p.fwd_hooks or p.bwd_hooks for name, p in module.hook_dict.items() if name.startswith("blocks."))


def _attention(
    block: Block, read: _Tokens, mask: Bool[Tensor, "pos pos"], queries: slice = slice(None)
) -> Float[Tensor, "row query width"]:
    """What the heads give together, for every query of every state of every copy."""
    attn, length = block.attn, read.number.shape[2]
    qkv = attn.qkv(block.ln1(read.x)).index_select(0, read.number.flatten())
    q, k, v = qkv.view(-1, length, 3, attn.n_heads, attn.d_head).permute(2, 0, 3, 1, 4)  # [row, head, pos, d_head]
    return F.scaled_dot_product_attention(q[:, :, queries], k, v, attn_mask=mask[queries]).transpose(1, 2).flatten(2)


def _rest_of(
    block: Block, x: Float[Tensor, "token d_model"], z: Float[Tensor, "token width"]
) -> Float[Tensor, "token d_model"]:
    """The block behind its heads."""
    x = x + block.attn.out(z)
    return x + block.mlp(block.ln2(x))
