"""Interchange interventions on linear subspaces: swapping them, learning them, and doubting them."""

from mesaprobe.instruments.interchange.alignment import Alignment, learn_subspace
from mesaprobe.instruments.interchange.dormancy import Dormancy, check_dormancy, downstream_row_space, project
from mesaprobe.instruments.interchange.subspaces import (
    Interchange,
    Recovery,
    interchange_accuracy,
    interchange_logits,
    random_subspaces,
    subspace_effect,
    swap,
)

__all__ = [
    "Alignment",
    "Dormancy",
    "Interchange",
    "Recovery",
    "check_dormancy",
    "downstream_row_space",
    "interchange_accuracy",
    "interchange_logits",
    "learn_subspace",
    "project",
    "random_subspaces",
    "subspace_effect",
    "swap",
]
