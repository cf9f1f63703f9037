"""Public face of the probes: `from mesaprobe.probes import LinearProbe`."""

from mesaprobe.instruments.activations import Site, collect_activations, residual_sites
from mesaprobe.instruments.probes import LinearProbe, SoftmaxProbe, fit_softmax_probe

__all__ = ["LinearProbe", "Site", "SoftmaxProbe", "collect_activations", "fit_softmax_probe", "residual_sites"]
