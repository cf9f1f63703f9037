"""Folds whose unit is the instance: no two samples of one instance stand on both sides (method.md section 4)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped

from mesaprobe.errors import UserError


@dataclass(frozen=True, eq=False)
class Split:
    """Sample indices to fit on and to be judged on."""

    train: Int64[np.ndarray, " train"]
    test: Int64[np.ndarray, " test"]


@dataclass(frozen=True, eq=False)
class OuterSplit(Split):
    """An outer split with the inner splits of its training samples; all indices count in the whole data."""

    inner: tuple[Split, ...]


def strata_codes(*columns: Shaped[np.ndarray, " sample"]) -> Int64[np.ndarray, " sample"]:
    """One integer for each combination of values that occurs, e.g. of (cities n, step).

    >>> strata_codes(np.array([8, 8, 10]), np.array([1, 2, 1])).tolist()
    [0, 1, 2]
    """
    codes = np.stack([np.unique(np.asarray(column), return_inverse=True)[1] for column in columns], axis=1)
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def instance_folds(
    groups: Shaped[np.ndarray, " sample"],
    folds: int,
    rng: np.random.Generator,
    *,
    strata: Shaped[np.ndarray, " sample"] | None = None,
) -> Int64[np.ndarray, " sample"]:
    """Fold 0..folds-1 of each sample, drawn for instances and shared by all samples of an instance.

    `groups` names the instance of a sample. Folds differ by at most one instance; with `strata`, which must be the
    same for all samples of an instance (its n, its tier), that also holds inside each stratum.
    Raises UserError with fewer instances than folds.

    >>> fold = instance_folds(np.array([7, 7, 3, 3, 5, 9]), 2, np.random.default_rng(0))
    >>> bool(fold[0] == fold[1] and fold[2] == fold[3]), np.bincount(fold[[0, 2, 4, 5]]).tolist()
    (True, [2, 2])
    """
    instances, first, member = np.unique(groups, return_index=True, return_inverse=True)
    if folds < 2 or len(instances) < folds:
        raise UserError(f"{folds} folds by instance need at least 2 folds and as many instances; got {len(instances)}")
    order = rng.permutation(len(instances))
    if strata is not None:
        strata = np.asarray(strata)
        if not np.array_equal(strata[first][member], strata):
            raise ValueError("a stratum of folds belongs to an instance, but samples of one instance differ in it")
        order = order[np.argsort(strata[first][order], kind="stable")]
    fold = np.empty(len(instances), dtype=np.int64)
    fold[order] = np.arange(len(instances)) % folds
    return fold[member]


def splits(fold: Int64[np.ndarray, " sample"]) -> tuple[Split, ...]:
    """Train on all other folds, test on one, for each fold in turn.

    >>> [split.test.tolist() for split in splits(np.array([0, 1, 0]))]
    [[0, 2], [1]]
    """
    return tuple(Split(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(int(fold.max()) + 1))


def nested_splits(
    groups: Shaped[np.ndarray, " sample"], outer: int, inner: int, rng: np.random.Generator
) -> tuple[OuterSplit, ...]:
    """Outer folds that estimate, and inside each training part folds that choose (penalty, rank, site).

    >>> first = nested_splits(np.arange(12) // 2, 3, 2, np.random.default_rng(0))[0]
    >>> len(first.train), len(first.test), [len(split.test) for split in first.inner]
    (8, 4, [4, 4])
    """
    groups = np.asarray(groups)
    found = []
    for split in splits(instance_folds(groups, outer, rng)):
        parts = splits(instance_folds(groups[split.train], inner, rng))
        within = tuple(Split(split.train[part.train], split.train[part.test]) for part in parts)
        found.append(OuterSplit(split.train, split.test, within))
    return tuple(found)
