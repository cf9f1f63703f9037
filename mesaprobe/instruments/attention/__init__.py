"""Where heads look, compared with where they would look anyway; and what they lose when they may not.

For making hypotheses, never a gate: attention goes with distance, a head may look without using, and other heads
take over from one that is knocked out (method.md section 5, E9). So every figure has its control: attention to a
city that plays a role (next on the plan, on the rejected plan, prunable, nearest) against unvisited cities that do
not play it at the *same distance* and rank, and every ablation against as many random others.
"""

from mesaprobe.instruments.attention.ablation import (
    AblationEffect,
    entry_knock_out,
    head_ablation,
    knock_out,
    spread_heads,
)
from mesaprobe.instruments.attention.contrasts import (
    HeadContrast,
    against_twins,
    head_contrast,
    identity_cells,
    matched_cells,
    plan_roles,
    role_contrasts,
)
from mesaprobe.instruments.attention.patterns import attention_patterns, attention_to_cities

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
