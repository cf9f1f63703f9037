"""The frozen protocol: how much is measured, and a hash by which two reports can be compared."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mesaprobe.evidence.result import LINES
from mesaprobe.files import plain
from mesaprobe.problems import Instances, Problem
from mesaprobe.registry import Registry
from mesaprobe.solvers.known_rules import known_rules, left_out

PROTOCOL_VERSION = 2
"""Raised whenever a line, a null or a threshold changes its meaning."""

SETS = ("calibration", "probe", "test", "behaviour", "pairs_probe", "pairs_test", "lens")
"""Instance sets; no line selects on the set that it estimates on. New names go to the end."""


@dataclass(frozen=True)
class Budget:
    """How much an analysis spends outside the lines, each of which holds its own settings by budget name."""

    name: str
    behaviour_instances: int


BUDGETS: Registry[Budget] = Registry("budget")
BUDGETS.add("quick", Budget("quick", 2000))
BUDGETS.add("standard", Budget("standard", 4000))
BUDGETS.add("full", Budget("full", 10_000))


def draw_set(problem: Problem, name: str, count: int, seed: int) -> Instances:
    """The instances of one set; sets come from separate branches of the seed, which training never uses."""
    return problem.draw(count, np.random.default_rng([seed, 1000 + SETS.index(name)]))


def line_hash(line: str, budget: str) -> str:
    """Hash of what one line's numbers mean: its version and settings, the rules that count as heuristics, and what is
    left out of the library of algorithms where the line asks it (`solvers.known_rules`)."""
    known = LINES[line]
    contents = [PROTOCOL_VERSION, known_rules(), line, known.version, plain(known.settings[budget])]
    return _digest([*contents, left_out()] if known.asks_library and left_out() else contents)


def protocol_hash(budget: str, lines: Sequence[str]) -> str:
    """Hash of everything but the seed that decides what a report's numbers mean."""
    return _digest([plain(BUDGETS[budget]), [line_hash(line, budget) for line in sorted(lines)]])


def _digest(contents: Any) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
