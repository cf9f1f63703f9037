"""Networks whose weights are written by hand, so that their mechanism is certain (method.md section 6)."""

from mesaprobe.zoo.compiled.camouflage import (
    NOISE_LADDER,
    NoisyNetwork,
    noise_finetuned,
    rotated,
    with_harmless_noise,
    with_weight_noise,
)
from mesaprobe.zoo.compiled.choices import best_listed_choices, nearest_choices, no_listed_tour
from mesaprobe.zoo.compiled.enumerators import best_of_k_enumerator, exhaustive_enumerator, first_edge_enumerator
from mesaprobe.zoo.compiled.layout import Layout, stream_layout
from mesaprobe.zoo.compiled.nearest import nearest_neighbour_network
from mesaprobe.zoo.compiled.soft_argmin import EXACT_SHARPNESS, SHARPNESS
from mesaprobe.zoo.compiled.tours import all_tours, listed_tours

__all__ = [
    "EXACT_SHARPNESS",
    "NOISE_LADDER",
    "SHARPNESS",
    "Layout",
    "NoisyNetwork",
    "all_tours",
    "best_listed_choices",
    "best_of_k_enumerator",
    "exhaustive_enumerator",
    "first_edge_enumerator",
    "listed_tours",
    "nearest_choices",
    "nearest_neighbour_network",
    "no_listed_tour",
    "noise_finetuned",
    "rotated",
    "stream_layout",
    "with_harmless_noise",
    "with_weight_noise",
]
