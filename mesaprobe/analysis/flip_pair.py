"""A pair of instances, one elementary change apart, between which a network changes its mind (for one picture)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from mesaprobe.decoding import greedy_rollout
from mesaprobe.labels import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances

NEIGHBOURS = 64


@dataclass(frozen=True, eq=False)
class FlipPair:
    """After the same prefix the network names `clean_choice` on one instance and `corrupt_choice` on the other."""

    clean: Instances
    corrupt: Instances
    prefix: Int64[np.ndarray, " t"]
    changed: tuple[int, int]
    """Ends of the changed weight, or the moved city twice."""
    clean_choice: int
    corrupt_choice: int
    remote: bool
    """True if the change is at neither the current city nor, where a city moved, at the two cities chosen."""


def find_flip_pair(subject: Subject, instances: Instances, seed: int) -> FlipPair | None:
    """The most decided flip among one-change neighbours of the instances; remote changes are preferred.

    The prefix is the network's own, up to its first decision. None if no change flips the choice.
    """
    rng = np.random.default_rng([seed, 4])
    length = decision_steps(subject.problem).start + 1
    best: tuple[tuple[bool, float], FlipPair] | None = None
    for index in range(len(instances)):
        clean = instances[index : index + 1]
        prefix = greedy_rollout(subject, torch.from_numpy(clean.features)).tours[0, :length]
        corrupt = subject.problem.neighbours(clean, rng, NEIGHBOURS)
        features = torch.from_numpy(np.concatenate([clean.features, corrupt.features]))
        logits = subject.next_city_logits(features, prefix.expand(len(features), -1)).cpu()
        logits[:, prefix] = -torch.inf
        choices = logits.argmax(-1)
        original = int(choices[0])
        for row in range(NEIGHBOURS):
            new = int(choices[row + 1])
            if new == original:
                continue
            changed = _changed_part(clean.weights[0], corrupt.weights[row])
            touched = {int(prefix[-1])} | ({original, new} if changed[0] == changed[1] else set())
            remote = not touched & set(changed)
            margin = min(
                float(logits[0, original] - logits[0, new]), float(logits[row + 1, new] - logits[row + 1, original])
            )
            if best is None or (remote, margin) > best[0]:
                one = corrupt[row : row + 1]
                best = (remote, margin), FlipPair(clean, one, prefix.numpy(), changed, original, new, remote)
    return None if best is None else best[1]


def _changed_part(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Ends of the only changed weight, or the moved city twice."""
    rows, columns = np.nonzero(before != after)
    counts = np.bincount(np.concatenate([rows, columns]), minlength=len(before))
    u = int(counts.argmax())
    if len(set(rows.tolist()) | set(columns.tolist())) > 2:
        return u, u
    return int(rows[0]), int(columns[0])
