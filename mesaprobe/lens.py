"""Public face of the lens: `from mesaprobe.lens import tuned_lens`."""

from mesaprobe.instruments.lens import (
    Lens,
    PlanDecoder,
    Revisions,
    choice_revisions,
    decoded_plans,
    greedy_plans,
    layer_choices,
    layer_tours,
    lens_sites,
    logit_lens,
    plan_revisions,
    readout,
    tuned_lens,
)

__all__ = [
    "Lens",
    "PlanDecoder",
    "Revisions",
    "choice_revisions",
    "decoded_plans",
    "greedy_plans",
    "layer_choices",
    "layer_tours",
    "lens_sites",
    "logit_lens",
    "plan_revisions",
    "readout",
    "tuned_lens",
]
