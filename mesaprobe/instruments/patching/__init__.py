"""Patching: replace an activation at a location by another one and see how far the answer moves."""

from mesaprobe.instruments.patching.attribution import Screen, attribution_screen, attributions
from mesaprobe.instruments.patching.cells import COMPONENTS, Cell, Location, component_cells, instance_locations
from mesaprobe.instruments.patching.effects import (
    PLACEBOS,
    PatchEffects,
    choices,
    logit_difference,
    patch_effects,
)
from mesaprobe.instruments.patching.interventions import (
    ABLATIONS,
    Identity,
    Intervention,
    NormMatchedRandom,
    Resample,
)
from mesaprobe.instruments.patching.paths import path_patched_logits
from mesaprobe.instruments.patching.runs import Run, paired_runs, site_positions, site_vectors
from mesaprobe.instruments.patching.sweep import PatchedLogits, patched_logits

__all__ = [
    "ABLATIONS",
    "COMPONENTS",
    "PLACEBOS",
    "Cell",
    "Identity",
    "Intervention",
    "Location",
    "NormMatchedRandom",
    "PatchEffects",
    "PatchedLogits",
    "Resample",
    "Run",
    "Screen",
    "attribution_screen",
    "attributions",
    "choices",
    "component_cells",
    "instance_locations",
    "logit_difference",
    "paired_runs",
    "patch_effects",
    "patched_logits",
    "path_patched_logits",
    "site_positions",
    "site_vectors",
]
