"""Random numbers for compiled code: one SplitMix64 stream per instance (Steele, Lea and Flood 2014).

A stream is its 64-bit state. Because each instance has its own, a randomised rule gives the same tour for an
instance whatever else is in the batch.
"""

import numba
import numpy as np
from jaxtyping import Int32, UInt64

from mesaprobe.solvers.weights import checked_weights

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def instance_seeds(weights: Int32[np.ndarray, "batch n n"], seed: int) -> UInt64[np.ndarray, " batch"]:
    """One seed per instance, a hash of `seed` and the weights: it does not depend on the place in the batch.

    Equal instances get equal seeds. Where several tries on one instance are wanted, vary `seed`.
    """
    weights = checked_weights(weights)
    seeds = np.full(len(weights), seed % 2**64, dtype=np.uint64)
    _hash_weights(weights.reshape(len(weights), weights.shape[1] ** 2), seeds)
    return seeds


@numba.njit(cache=True, nogil=True)
def next_word(state):  # type: ignore[no-untyped-def]
    """The next state and 64 random bits."""
    state = state + _STEP
    word = state
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return state, word ^ (word >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def next_uniform(state):  # type: ignore[no-untyped-def]
    """The next state and a float64 uniform on [0, 1)."""
    state, word = next_word(state)
    return state, (word >> np.uint64(11)) * 2.0**-53


@numba.njit(cache=True, nogil=True)
def _hash_weights(weights, seeds):  # type: ignore[no-untyped-def]
    for b in range(len(seeds)):
        _, word = next_word(seeds[b])
        for weight in weights[b]:
            _, word = next_word(word ^ np.uint64(weight))
        seeds[b] = word
