"""The shape of the GPT, as the command line and config.json see it (no torch here)."""

from dataclasses import dataclass
from typing import Literal

from mesaprobe.errors import UserError


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a `TourGPT`; the number of cities and features come from the problem."""

    d_model: int = 128
    """Width of the residual stream."""
    n_layers: int = 4
    """Number of blocks."""
    n_heads: int = 4
    """Attention heads per block."""
    d_head: int | None = None
    """Width of one head; d_model / n_heads if not given. Free for compiled networks."""
    d_mlp: int = 512
    """Hidden units of each MLP."""
    act_fn: Literal["gelu", "relu", "solu"] = "gelu"
    """Activation of the MLP; solu (x * softmax(x)) is for compiled networks."""
    norm: Literal["layer", "none"] = "layer"
    """Layer normalisation before each sublayer and at the end, or none (compiled networks)."""
    attention: Literal["causal", "prefix", "bidirectional"] = "prefix"
    """Who sees whom: all causal; the instance block sees itself and tour tokens are causal; or everyone
    sees everyone (editing arm: unknown cities are masked)."""

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "d_mlp"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.d_head is None and self.d_model % self.n_heads:
            raise UserError(
                f"model.d_model ({self.d_model}) must be a multiple of model.n_heads ({self.n_heads}), "
                "or give model.d_head"
            )

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head
