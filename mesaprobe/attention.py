"""Public face of attention analysis: `from mesaprobe.attention import role_contrasts`. For hypotheses, never a gate."""

from mesaprobe.instruments.attention import (
    AblationEffect,
    HeadContrast,
    against_twins,
    attention_patterns,
    attention_to_cities,
    entry_knock_out,
    head_ablation,
    head_contrast,
    identity_cells,
    knock_out,
    matched_cells,
    plan_roles,
    role_contrasts,
    spread_heads,
)

__all__ = [
    "AblationEffect",
    "HeadContrast",
    "against_twins",
    "attention_patterns",
    "attention_to_cities",
    "entry_knock_out",
    "head_ablation",
    "head_contrast",
    "identity_cells",
    "knock_out",
    "matched_cells",
    "plan_roles",
    "role_contrasts",
    "spread_heads",
]
