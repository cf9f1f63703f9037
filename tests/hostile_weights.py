"""Weights on which solvers break: ties, zeros, twins, clusters, no symmetry, numbers as large as int32."""

import numpy as np
from hypothesis import strategies as st

SYMMETRIC = ("random", "ties", "zeros", "one duplicate", "duplicates", "clusters", "grid", "line", "constant", "huge")
KINDS = (*SYMMETRIC, "asymmetric", "asymmetric ties", "asymmetric huge")


def draw(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """One instance [n, n], int32."""
    levels = {"ties": 3, "asymmetric ties": 3, "huge": 2**31 - 1, "asymmetric huge": 2**31 - 1}.get(kind, 64)
    weights = rng.integers(1, levels + 1, size=(n, n))
    points = rng.integers(0, 10_001, size=(n, 2))
    if kind == "zeros":
        weights = rng.integers(0, 2, size=(n, n))
    if kind == "constant":
        weights[:] = 7
    if kind == "duplicates":
        points = points[rng.integers(0, (n + 1) // 2, size=n)]
    if kind == "clusters":
        points = points[rng.integers(0, min(n, 3), size=n)] + rng.integers(0, 300, size=(n, 2))
    if kind == "grid":
        points = rng.integers(0, 4, size=(n, 2)) * 10
    if kind == "line":
        points[:, 1] = 0
    if kind in ("duplicates", "clusters", "grid", "line"):
        weights = np.ceil(np.linalg.norm(points[:, None] - points, axis=2)).astype(np.int64)
    if not kind.startswith("asymmetric"):
        weights = np.triu(weights, 1) + np.triu(weights, 1).T
    if kind == "one duplicate" and n > 2:
        weights[n - 1], weights[:, n - 1] = weights[1], weights[:, 1]
        weights[1, n - 1] = weights[n - 1, 1] = 0
    np.fill_diagonal(weights, 0)
    return weights.astype(np.int32)


def draw_batch(kind: str, n: int, count: int, seed: int) -> np.ndarray:
    """`count` instances of one kind, [count, n, n]."""
    rng = np.random.default_rng(seed)
    return np.stack([draw(kind, n, rng) for _ in range(count)])


@st.composite
def instances(draw_value: st.DrawFn, largest: int, kinds: tuple[str, ...] = KINDS) -> np.ndarray:
    """One instance as a batch [1, n, n], with 2 <= n <= largest."""
    n = draw_value(st.integers(2, largest))
    return draw_batch(draw_value(st.sampled_from(kinds)), n, 1, draw_value(st.integers(0, 2**32)))


def random_tours(batch: int, n: int, seed: int) -> np.ndarray:
    """Uniform tours from city 0, [batch, n]."""
    rng = np.random.default_rng(seed)
    return np.array([[0, *(1 + rng.permutation(n - 1))] for _ in range(batch)], dtype=np.int64)
