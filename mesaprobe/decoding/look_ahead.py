"""Look-ahead from outside: a network's scores of whole paths of a few cities, put together for the first of them.

The consequences of a choice are supplied by the loop, which asks the network in every state that can follow; the
decoder of arm A3, whose network is trained through it, and something that any network can be wrapped in at use.
"""

import math
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mesaprobe.decoding.greedy import GreedyRollout, rollout_by
from mesaprobe.decoding.refilling import used_cities
from mesaprobe.models.subject import Subject

DEPTH = 2
"""Cities that arm A3 looks ahead, the one it names counted."""


def look_ahead_scores(
    subject: Subject, features: Float[Tensor, "batch n f"], prefixes: Int[Tensor, "batch t"], depth: int = DEPTH
) -> Float[Tensor, "batch n"]:
    """Score of every city after each prefix: with f the network's logits,

        S_1(s, a) = f(s, a)        S_d(s, a) = f(s, a) + log mean over the cities b left after a of exp S_{d-1}(sa, b).

    Visited cities, and the last one left, are scored by f alone. The network is asked once in each state looked at.
    """
    scores = subject.next_city_logits(features, prefixes).cpu()
    n = scores.shape[1]
    left = n - prefixes.shape[1]
    if depth == 1 or left == 1:
        return scores
    row, city = torch.nonzero(~used_cities(prefixes, n), as_tuple=True)
    children = torch.cat([prefixes[row], city[:, None]], dim=1)
    beyond = look_ahead_scores(subject, features[row.to(features.device)], children, depth - 1)
    follow = beyond.masked_fill(used_cities(children, n), -torch.inf).logsumexp(1) - math.log(left - 1)
    return scores.index_put((row, city), follow, accumulate=True)


def look_ahead_rollout(
    subject: Subject, features: Float[Tensor, "batch n f"], depth: int = DEPTH, *, chunk: int = 256
) -> GreedyRollout:
    """Decode one tour per instance from city 0: at each step the unvisited city of the highest score."""
    return rollout_by(partial(look_ahead_scores, subject, depth=depth), features, chunk=chunk)


def states_looked_at(n: int, depth: int) -> int:
    """Forward passes for one tour of n cities: a pass for every state that is looked at, at every step.

    >>> [states_looked_at(8, depth) for depth in (1, 2, 3)]
    [7, 34, 144]
    """

    def from_here(left: int, depth: int) -> int:
        return 1 if depth == 1 or left == 1 else 1 + left * from_here(left - 1, depth - 1)

    return sum(from_here(left, depth) for left in range(1, n))
