"""Ways to look and to intervene: activations, probes, patching, attention."""
