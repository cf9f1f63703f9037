"""Lines that read the activations: values and bounds (E5), plans (E6), plans by layer (E10a)."""
