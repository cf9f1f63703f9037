"""The frozen protocol: how much is measured, and a hash by which two reports can be compared."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mesaprobe.files import plain
from mesaprobe.problems import Instances, Problem
from mesaprobe.registry import Registry
from mesaprobe.solvers.algorithms import HEUR_V1

PROTOCOL_VERSION = 1
"""Raised whenever a line, a null or a threshold changes its meaning."""

SETS = ("calibration", "probe", "test", "behaviour")
"""Instance sets; no line selects on the set that it estimates on."""


@dataclass(frozen=True)
class Budget:
    """How many instances and repetitions an analysis spends."""

    name: str
    behaviour_instances: int
    calibration_instances: int
    """To fit baselines (what rules and the output already tell)."""
    probe_instances: int
    """To fit probes and to choose sites."""
    test_instances: int
    """To estimate."""
    random_twins: int
    """Random-weight networks per null."""
    sign_flips: int = 999
    resamples: int = 2000


BUDGETS: Registry[Budget] = Registry("budget")
BUDGETS.add("quick", Budget("quick", 2000, 2000, 1000, 1000, 2))
BUDGETS.add("standard", Budget("standard", 4000, 4000, 4000, 2000, 5))
BUDGETS.add("full", Budget("full", 10_000, 10_000, 10_000, 5000, 20))


def draw_set(problem: Problem, name: str, count: int, seed: int) -> Instances:
    """The instances of one set; sets come from separate branches of the seed, which training never uses."""
    return problem.draw(count, np.random.default_rng([seed, 1000 + SETS.index(name)]))


def protocol_hash(budget: Budget, lines: Sequence[str]) -> str:
    """Hash of everything but the seed that decides what a report's numbers mean."""
    contents = {
        "version": PROTOCOL_VERSION,
        "heuristics": HEUR_V1,
        "budget": plain(dataclasses.asdict(budget)),
        "lines": sorted(lines),
    }
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
