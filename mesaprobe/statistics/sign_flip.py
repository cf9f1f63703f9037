"""One-sided sign-flip tests for paired differences, with the instance as the unit (method.md section 4)."""

import numpy as np
from jaxtyping import Float64

from mesaprobe.statistics.max_t import NullTable


def sign_flip_p(differences: Float64[np.ndarray, " instance"], rng: np.random.Generator, *, flips: int = 999) -> float:
    """p-value of mean(differences) > 0 against symmetry around 0 (Fisher 1935; one value per instance).

    (1 + number of flipped means at least as large) / (1 + flips), so never below 1 / (1 + flips).
    Raises ValueError on an empty sample.

    >>> sign_flip_p(np.ones(20), np.random.default_rng(0))
    0.001
    """
    differences = np.asarray(differences, dtype=np.float64)
    if len(differences) == 0:
        raise ValueError("a sign-flip test needs at least one difference")
    observed = differences.mean()
    exceeded = 0
    for start in range(0, flips, 100):
        signs = rng.choice([-1.0, 1.0], size=(min(100, flips - start), len(differences)))
        exceeded += int((signs @ differences / len(differences) >= observed - 1e-15).sum())
    return (1 + exceeded) / (1 + flips)


def sign_flip_null(
    differences: Float64[np.ndarray, "*cell instance"], rng: np.random.Generator, *, flips: int = 999
) -> NullTable:
    """A table of paired differences for `max_t`: sum / root of the sum of squares, each instance flipped as a whole.

    All cells share the flips, which keeps their dependence; the denominator is the same under every flip.

    >>> from mesaprobe.statistics.max_t import max_t
    >>> table = np.stack([np.full(20, 0.1), np.tile([1.0, -1.0], 10)])
    >>> max_t(sign_flip_null(table, np.random.default_rng(0))).p
    0.001
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.shape[-1] == 0:
        raise ValueError("a sign-flip test needs at least one difference")
    norm = np.sqrt(np.square(differences).sum(axis=-1))
    unit = differences / np.where(norm > 0, norm, 1.0)[..., None]
    flat = unit.reshape(-1, unit.shape[-1])
    signs = rng.choice([-1.0, 1.0], size=(flips, unit.shape[-1]))
    return NullTable(unit.sum(axis=-1), (signs @ flat.T).reshape(flips, *norm.shape))
