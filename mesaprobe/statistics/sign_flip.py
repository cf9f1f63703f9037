"""One-sided sign-flip test for paired differences, with the instance as the unit (method.md section 4)."""

import numpy as np
from jaxtyping import Float64


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
