"""Several tests at once: adjusted p-values across lines (method.md section 4) and across contrasts (section 8)."""

import numpy as np
from jaxtyping import Float64
from scipy.stats import false_discovery_control


def benjamini_hochberg(p: Float64[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """q-values: tests with q <= .05 hold at most 5 % false ones on average (Benjamini and Hochberg 1995).

    For independent or positively dependent tests. Lines without a p-value do not belong in `p`.

    >>> benjamini_hochberg(np.array([0.01, 0.02, 0.5])).round(3).tolist()
    [0.03, 0.03, 0.5]
    """
    return np.asarray(false_discovery_control(np.asarray(p, dtype=np.float64)), dtype=np.float64)


def holm(p: Float64[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """Adjusted p-values that bound the chance of any false alarm, under any dependence (Holm 1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values must be a list of numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, (len(p) - np.arange(len(p))) * p[order]))
    return adjusted
