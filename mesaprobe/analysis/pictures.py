"""What the report draws of single instances: tours, attention, one patching map. Context, not evidence."""

import re

import numpy as np
import torch
from jaxtyping import Int64

from mesaprobe.analysis.behaviour import Behaviour
from mesaprobe.analysis.explorer import explorer_picture
from mesaprobe.analysis.flip_pair import find_flip_pair
from mesaprobe.analysis.layout import instance_layouts
from mesaprobe.decoding import greedy_rollout
from mesaprobe.instruments.attention import attention_patterns
from mesaprobe.instruments.patching import Cell, Run, instance_locations, patch_effects
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances

SHOWN = 6
"""Instances in the viewer and in the explorer: half where the network finds the optimum, half where not, if any."""

DRAWN = ("nearest_neighbour", "greedy_edge", "two_opt_or_opt")
"""References whose tours can be shown beside the network's."""

Arrays = dict[str, np.ndarray]


def instance_pictures(instances: Instances, behaviour: Behaviour, seed: int) -> Arrays:
    """Instances with the tours of the network, the optimum and the references."""
    chosen = shown_instances(behaviour)
    layout = instance_layouts(instances[chosen], seed)
    methods = ["model", "optimal", *DRAWN]
    return {
        "weights": instances.weights[chosen],
        "layout": layout.positions,
        "layout_kind": np.array(layout.kind),
        "stress": layout.stress,
        "methods": np.array(methods),
        "tours": np.stack([behaviour.tours[name][chosen] for name in methods]),
        "costs": np.stack([behaviour.costs[name][chosen] for name in methods]),
    }


def shown_instances(behaviour: Behaviour) -> Int64[np.ndarray, " instance"]:
    """Which instances are shown: the first failures of the network, then its first optimal tours."""
    solved = behaviour.costs["model"] == behaviour.costs["optimal"]
    failures, successes = np.flatnonzero(~solved), np.flatnonzero(solved)
    half = SHOWN // 2
    return np.concatenate([failures[:half], successes[:half], failures[half:], successes[half:]])[:SHOWN]


def explored_states(subject: Subject, instances: Instances, behaviour: Behaviour, seed: int) -> Arrays:
    """Every decision of the shown instances, along the network's own tours."""
    chosen = shown_instances(behaviour)
    return explorer_picture(subject, instances[chosen], behaviour.tours["model"][chosen], seed)


def gap_distributions(behaviour: Behaviour) -> Arrays:
    """Gap of every instance by method."""
    methods = ["model", *behaviour.references]
    return {"methods": np.array(methods), "gaps": np.stack([behaviour.gaps[name] for name in methods])}


def dstar_accuracies(behaviour: Behaviour) -> Arrays:
    """Accuracy by look-ahead need, with 95 % intervals; NaN where there is no such state."""
    bins, methods = list(behaviour.dstar_states), list(behaviour.dstar_accuracy)
    found = [[behaviour.dstar_accuracy[name][label] for label in bins] for name in methods]

    def column(part: str) -> np.ndarray:
        return np.array([[np.nan if e is None else getattr(e, part) for e in row] for row in found])

    return {
        "bins": np.array(bins),
        "states": np.array([behaviour.dstar_states[label] for label in bins]),
        "methods": np.array(methods),
        "accuracy": column("value"),
        "low": column("low"),
        "high": column("high"),
    }


def attention_picture(subject: Subject, instance: Instances, seed: int) -> Arrays | None:
    """Every head's pattern while the network is half-way through its own tour of one instance."""
    features = torch.from_numpy(instance.features)
    tour = greedy_rollout(subject, features).tours[:, : max(subject.problem.n // 2, 1)]
    patterns = attention_patterns(subject, features, tour)
    if patterns is None:
        return None
    layout = instance_layouts(instance, seed)
    return {
        "patterns": patterns[0].numpy().astype(np.float16),
        "weights": instance.weights[0],
        "layout": layout.positions[0],
        "layout_kind": np.array(layout.kind),
        "tour": tour[0].numpy(),
        "city_positions": np.array(subject.city_positions),
        "decode_positions": np.array([subject.decode_position(t) for t in range(1, tour.shape[1] + 1)]),
    }


def patching_picture(subject: Subject, instances: Instances, seed: int) -> Arrays | None:
    """Resample-patching map, layer x token, on one pair of instances, with three placebos.

    None if the network has no residual-stream hooks, or if no single change among the instances' neighbours
    makes it change its mind.
    """
    hooks = _stream_hooks(subject)
    pair = find_flip_pair(subject, instances, seed) if hooks else None
    if pair is None:
        return None
    clean, corrupt = torch.from_numpy(pair.clean.features), torch.from_numpy(pair.corrupt.features)
    other = torch.from_numpy(subject.problem.draw(1, np.random.default_rng([seed, 5])).features)
    prefix = torch.from_numpy(pair.prefix)[None]
    joint = [pair.changed] if pair.changed[0] != pair.changed[1] else []
    locations = instance_locations(subject, len(pair.prefix), joint)
    found = patch_effects(
        subject,
        Run(clean, prefix),
        Run(corrupt, prefix),
        [Cell(hook, location) for hook in hooks for location in locations],
        seed=seed,
        answers=(torch.tensor([pair.corrupt_choice]), torch.tensor([pair.clean_choice])),
        irrelevant=Run(other, prefix),
        placebos=("identity", "random", "irrelevant"),
    )
    recovered = (found.moved / found.available)[:, :, 0].reshape(len(found.kinds), len(hooks), len(locations))
    maps = {"effects" if kind == "effect" else kind: recovered[i] for i, kind in enumerate(found.kinds)}
    ends = [subject.next_city_logits(x, prefix).cpu() for x in (clean, corrupt)]
    layout = instance_layouts(pair.clean, seed)
    differences = [float(x[0, pair.corrupt_choice] - x[0, pair.clean_choice]) for x in ends]
    return {
        **maps,
        "layer_names": np.array(hooks),
        "locations": np.array([location.label for location in locations]),
        "clean_weights": pair.clean.weights[0],
        "corrupt_weights": pair.corrupt.weights[0],
        "changed": np.array(pair.changed),
        "remote": np.array(pair.remote),
        "layout": layout.positions[0],
        "layout_kind": np.array(layout.kind),
        "prefix": pair.prefix,
        "clean_choice": np.array(pair.clean_choice),
        "corrupt_choice": np.array(pair.corrupt_choice),
        "clean_difference": np.array(differences[0]),
        "corrupt_difference": np.array(differences[1]),
    }


def _stream_hooks(subject: Subject) -> list[str]:
    """The residual stream before every layer and after the last."""
    names = [name for name in subject.hook_names if re.fullmatch(r"blocks\.\d+\.hook_resid_(pre|post)", name)]
    names.sort(key=lambda name: (int(name.split(".")[1]), name.endswith("post")))
    last = names[-1:]
    return [name for name in names if name.endswith("pre")] + [name for name in last if name.endswith("post")]
