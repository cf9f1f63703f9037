"""Every decision of a few instances, for reading one by one. Context, not evidence."""

import numpy as np
import torch
from jaxtyping import Float16, Int16, Int64

from mesaprobe.analysis.layout import instance_layouts
from mesaprobe.errors import UserError
from mesaprobe.instruments.activations import collect
from mesaprobe.instruments.attention import attention_to_cities
from mesaprobe.instruments.lens import lens_sites, logit_lens
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.solvers.exact.held_karp import action_values, optimal_rollouts

Arrays = dict[str, np.ndarray]


def explorer_picture(
    subject: Subject, instances: Instances, tours: Int64[np.ndarray, "instance n"], seed: int
) -> Arrays:
    """What is known of every state with a choice along the network's own `tours`; a few instances, n <= 20.

    `values` are Q*(s, a), infinite for visited cities; `completions[i, s, a]` is a cheapest whole tour that keeps the
    prefix and goes to a next (-1 where a is visited), one drawn at random where several are. `lens` (next-city
    probabilities by the logit lens, what enters the first layer first) and `attention` (from the decode token to the
    cities' instance tokens) are left out for a network that has no such hook points.
    """
    n = subject.problem.n
    steps = slice(0, n - 2)
    features, shown = torch.from_numpy(instances.features), torch.from_numpy(tours)
    logits = subject.logits(features, shown[:, :-1]).float().cpu()[:, steps]
    values = action_values(instances.weights, tours)[:, steps]
    layout = instance_layouts(instances, seed)
    numbers = np.arange(n - 2)
    inside = decision_steps(subject.problem)
    parts = {
        "lens": _lens(subject, features, shown, steps),
        "attention": _attention(subject, features, shown, steps),
    }
    return {
        "weights": instances.weights,
        "layout": layout.positions,
        "layout_kind": np.array(layout.kind),
        "stress": layout.stress,
        "tours": tours,
        "is_decision": (numbers >= inside.start) & (numbers < inside.stop),
        "values": values,
        "probabilities": logits.softmax(-1).numpy(),
        "completions": _completions(instances, tours, values, np.random.default_rng([seed, 6])),
        **{name: part for name, part in parts.items() if part is not None},
    }


def _completions(
    instances: Instances, tours: Int64[np.ndarray, "instance n"], values: np.ndarray, rng: np.random.Generator
) -> Int16[np.ndarray, "instance step n n"]:
    """A cheapest tour through every free candidate of every state."""
    found = np.full((*values.shape, tours.shape[1]), -1, dtype=np.int16)
    rows, steps, cities = np.nonzero(np.isfinite(values))
    begun = tours[rows].copy()
    begun[np.arange(len(rows)), steps + 1] = cities
    ends = optimal_rollouts(instances.weights[rows], begun, steps + 2, rng.random(begun.shape)).tours
    found[rows, steps, cities] = ends
    return found


def _lens(
    subject: Subject, features: torch.Tensor, tours: torch.Tensor, steps: slice
) -> Float16[np.ndarray, "layer instance step n"] | None:
    try:
        lens = logit_lens(subject)
    except UserError:
        return None
    seen = collect(subject, features, tours, steps, lens_sites(subject), dtype=np.float32)
    return lens.logits(seen).softmax(-1).numpy().astype(np.float16)


def _attention(
    subject: Subject, features: torch.Tensor, tours: torch.Tensor, steps: slice
) -> Float16[np.ndarray, "instance step layer head n"] | None:
    try:
        return attention_to_cities(subject, features, tours, steps).astype(np.float16)
    except UserError:
        return None
