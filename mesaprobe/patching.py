"""Public face of patching: `from mesaprobe.patching import patch_sweep`."""

from mesaprobe.instruments.patching import (
    Identity,
    Location,
    NormMatchedRandom,
    Resample,
    instance_locations,
    patch_sweep,
    recovered_fraction,
)

__all__ = [
    "Identity",
    "Location",
    "NormMatchedRandom",
    "Resample",
    "instance_locations",
    "patch_sweep",
    "recovered_fraction",
]
