"""Sanity targets: what a network must hold at the decode token to answer legally at all (method.md section 5, E5).

- visited set: is city k on the prefix? Asked of cities other than the current one and city 0.
- current city: which one is it?

Neither is evidence. The current city stands in the decode token's own embedding, so a random network shows it as
well (information 1 in both): reading it proves that activations and labels are paired, no more. The visited set must
be brought to the token by attention; but attention of random weights averages the prefix, whose mean holds the set
linearly, so only what a network shows beyond its random twins speaks of training.
Given the mean-pooled prefix both would be at 0 in every network, since that mean tells the set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from mesaprobe.evidence.probing.questions import Question, Task
from mesaprobe.evidence.probing.readings import Reading
from mesaprobe.evidence.probing.states import States

NAMES = ("visited set", "current city")


def sanity_tasks(states: Mapping[str, States], steps: slice) -> dict[str, Task]:
    """Both targets as deviations from their mean at each step; g(Z) is that mean of the probe set."""
    visited, current = ({part: _questions(state, steps)[name] for part, state in states.items()} for name in NAMES)
    return {name: _centred(name, asked) for name, asked in zip(NAMES, (visited, current), strict=True)}


def _questions(states: States, steps: slice) -> dict[str, Question]:
    batch, n = states.tours.shape
    chosen = np.arange(n)[steps]
    here = np.eye(n)[states.tours[:, steps]]
    seen = np.zeros((batch, len(chosen), n))
    for column, step in enumerate(chosen):
        np.put_along_axis(seen[:, column], states.tours[:, : step + 1], 1.0, axis=1)
    others = here == 0
    others[..., 0] = False
    return {
        NAMES[0]: _question(np.where(others, seen, 0.0), others),
        NAMES[1]: _question(here, np.ones_like(others)),
    }


def _question(values: Float64[np.ndarray, "batch step n"], asked: np.ndarray) -> Question:
    batch, steps, n = values.shape
    rows = np.zeros((int(asked.sum()), 1))
    places = np.repeat(np.arange(batch), steps), np.tile(np.arange(steps), batch)
    return Question(values.reshape(-1, n), asked.reshape(-1, n), rows, rows, *places)


def _centred(name: str, asked: Mapping[str, Question]) -> Task:
    probe, test = asked["probe"], asked["test"]
    means = np.bincount(probe.row_strata, probe.answers) / np.bincount(probe.row_strata)
    left = [question.answers - means[question.row_strata] for question in (probe, test)]
    return Task(name, probe, test, *left)


def sanity_summary(own: Mapping[str, Reading], twins: Sequence[Mapping[str, Reading]]) -> dict[str, Any]:
    """Information about each target at the best site, of the network and of its twins; JSON values."""
    found: dict[str, Any] = {}
    for name in NAMES:
        if not np.any(own[name].task.test_residuals):
            found[name] = None  # with few cities nobody is visited but city 0 and the current one
            continue
        value = _information(own[name])
        others = np.array([_information(twin[name]) for twin in twins])
        found[name] = {
            "site": own[name].sites[own[name].site],
            "information": value,
            "random_twins": others.tolist(),
            "beyond_twins": float(value - others.mean()) if len(others) else None,
        }
    return found


def _information(reading: Reading) -> float:
    losses = reading.direct()
    return float(1 - losses.probe[reading.site].sum() / losses.base[reading.site].sum())
