"""To whom an edit must stay invisible: the heuristics, and an imitator of the subject."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int64

from mesaprobe.errors import UserError
from mesaprobe.problems import Instances
from mesaprobe.solvers.algorithms import ALGORITHMS

Imitator: TypeAlias = Callable[[Instances, np.ndarray, np.ndarray], np.ndarray]
"""(instances, prefixes [batch, n], lengths [batch]) -> log-probabilities of the next city [batch, n] (any value for
visited cities), or its choices, whole numbers [batch]. Only the first `lengths[b]` cities of a prefix count."""


def heuristic_choices(
    instances: Instances,
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    rules: Sequence[str],
) -> Int64[np.ndarray, "batch rule"]:
    """The city that each rule names next after the first `lengths[b]` cities of each prefix."""
    columns = [np.empty((len(instances), 0), dtype=np.int64)]
    columns += [_choices(instances, prefixes, lengths, rule)[:, None] for rule in rules]
    return np.concatenate(columns, axis=1)


def heuristics_keep(
    twins: Instances,
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    rules: Sequence[str],
    choices: Int64[np.ndarray, "batch rule"],
) -> Bool[np.ndarray, " batch"]:
    """Where every rule names the given choice on the twin too."""
    keeping = np.arange(len(twins))
    for column, rule in enumerate(rules):
        same = _choices(twins[keeping], prefixes[keeping], lengths[keeping], rule) == choices[keeping, column]
        keeping = keeping[same]
    return np.isin(np.arange(len(twins)), keeping)


def _choices(instances: Instances, prefixes: np.ndarray, lengths: np.ndarray, rule: str) -> np.ndarray:
    completions = ALGORITHMS[rule].completions
    assert completions is not None, "PairCriteria has refused rules that complete nothing"
    return np.take_along_axis(completions(instances.weights, prefixes, lengths), lengths[:, None], axis=1)[:, 0]


def imitator_keeps(
    imitator: Imitator,
    base: Instances,
    twins: Sequence[Instances],
    prefixes: Int64[np.ndarray, "batch n"],
    lengths: Int64[np.ndarray, " batch"],
    free: Bool[np.ndarray, "batch n"],
    max_shift: float,
) -> Bool[np.ndarray, " batch"]:
    """Where the imitator's choice on `base` stays its choice on every twin, with log-odds that move by less than
    `max_shift` (of an imitator that gives choices, only the choice is known)."""
    choices, odds = _choice_and_odds(imitator(base, prefixes, lengths), free, None)
    keeps = np.ones(len(base), dtype=np.bool_)
    for twin in twins:
        twin_choices, twin_odds = _choice_and_odds(imitator(twin, prefixes, lengths), free, choices)
        same = odds == twin_odds  # covers equal infinities, whose difference is not a number
        shift = np.abs(np.where(same, 0.0, odds) - np.where(same, 0.0, twin_odds))
        keeps &= (twin_choices == choices) & (shift < max_shift)
    return keeps


def _choice_and_odds(
    answer: np.ndarray, free: Bool[np.ndarray, "batch n"], of: Int64[np.ndarray, " batch"] | None
) -> tuple[Int64[np.ndarray, " batch"], Float[np.ndarray, " batch"]]:
    """The most probable free city, and the log-odds of it, or of the cities `of`, among the free ones."""
    answer, batch = np.asarray(answer), len(free)
    if answer.shape == (batch,) and answer.dtype.kind in "iu":
        return answer.astype(np.int64), np.zeros(batch)
    scores = np.where(free, answer, -np.inf) if answer.shape == free.shape and answer.dtype.kind == "f" else None
    if scores is None or not (np.isfinite(scores.max(axis=1))).all():
        raise UserError(
            f"an imitator must return log-probabilities of shape {free.shape}, finite somewhere in every row, or "
            f"whole numbers of shape {(batch,)}, got {answer.dtype} of shape {answer.shape}"
        )
    choices = scores.argmax(axis=1)
    rows, cities = np.arange(batch), choices if of is None else of
    others = scores.copy()
    others[rows, cities] = -np.inf
    return choices, scores[rows, cities] - np.logaddexp.reduce(others, axis=1)
