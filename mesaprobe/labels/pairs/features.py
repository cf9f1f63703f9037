"""Can edited instances be told from natural ones? What a simple classifier is given (method.md, amendment 8)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.stats import rankdata

from mesaprobe.labels.pairs.pairs import CounterfactualPairs
from mesaprobe.problems import Instances

EDIT_FEATURE_NAMES = (
    "least value of the places, relative to the mean of the instance",
    "mean value",
    "greatest value",
    "least rank of the places, as a fraction of the entries that are smaller",
    "mean rank",
    "greatest rank",
    "least entry of the instance",
    "mean entry",
    "greatest entry",
    "standard deviation of the entries",
)


class EditedOrNatural(NamedTuple):
    """A classification problem: one natural and one edited instance per pair."""

    features: Float64[np.ndarray, "row k"]
    edited: Bool[np.ndarray, " row"]
    pair: Int64[np.ndarray, " row"]
    """Which pair a row belongs to, for folds that keep a pair together."""


def edited_or_natural(pairs: CounterfactualPairs, relevant: bool = True) -> EditedOrNatural:
    """The relevant (or irrelevant) twins against their bases, seen at the places that the twin has edited.

    That the classifier is told where to look makes it stronger than one that must find the place. An accuracy of
    one half means that the edits leave no trace in the marginal.
    """
    twin, entries = (pairs.relevant, pairs.entries) if relevant else (pairs.irrelevant, pairs.irrelevant_entries)
    count = len(pairs)
    return EditedOrNatural(
        np.concatenate([edit_features(pairs.base, entries), edit_features(twin, entries)]),
        np.repeat([False, True], count),
        np.tile(np.arange(count), 2),
    )


def edit_features(instances: Instances, entries: Int64[np.ndarray, "batch 2 2"]) -> Float64[np.ndarray, "batch k"]:
    """Marginal statistics `EDIT_FEATURE_NAMES` of the entries (u, v) >= 0 of each instance, or of the distances
    of city u where (u, u) stands for a city."""
    n = instances.problem.n
    off_diagonal = ~np.eye(n, dtype=np.bool_)
    all_entries = instances.weights[:, off_diagonal].astype(np.float64)
    places = np.zeros(instances.weights.shape, dtype=np.bool_)
    for place in (0, 1):
        rows = np.flatnonzero(entries[:, place, 0] >= 0)
        u, v = entries[rows, place].T
        places[rows, u, v] = True
        places[rows, u] |= (u == v)[:, None]
    places &= off_diagonal
    ranks = np.zeros(instances.weights.shape)
    ranks[:, off_diagonal] = (rankdata(all_entries, method="min", axis=1) - 1) / all_entries.shape[1]
    mean = all_entries.mean(axis=1)
    columns = [
        *_spread(instances.weights / mean[:, None, None], places),
        *_spread(ranks, places),
        all_entries.min(axis=1),
        mean,
        all_entries.max(axis=1),
        all_entries.std(axis=1),
    ]
    return np.stack(columns, axis=1)


def _spread(values: Float64[np.ndarray, "batch n n"], places: Bool[np.ndarray, "batch n n"]) -> list[np.ndarray]:
    """Least, mean and greatest value over the places of each instance."""
    values, missing = values.reshape(len(values), -1), ~places.reshape(len(values), -1)
    chosen = np.ma.array(values, mask=missing)
    return [np.asarray(column) for column in (chosen.min(axis=1), chosen.mean(axis=1), chosen.max(axis=1))]
