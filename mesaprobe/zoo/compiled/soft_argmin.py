"""Scales of the soft argmin over candidates, shared by the compiled choosers.

A candidate unit's pre-activation is `nats * score`, and x * softmax(x) over all units of the layer picks among them.
Distances are in units of `levels`, so that all lie in [0, 1] and a tour costs at most n. The score says who may win
at all, then who is cheapest:

    a whole tour that fits the prefix         tour - cost        in [1 + 2 gap, n + 1 + 2 gap]
    a nearest-neighbour step (the fallback)   step - distance    in [gap, 1 + gap]
    anything ruled out                        less `big`         at most 0

so the winner is positive whatever the costs are (a SoLU that is negative argues against its own candidate), and each
rank is `gap` above the next.
"""

from dataclasses import dataclass

from mesaprobe.errors import UserError

SHARPNESS = 1.0
"""Soft: a tour one unit of weight worse than the best still has 37 % of its weight, ten units 0.005 %, so that close
rivals leave a trace. The exhaustive enumerator then named an optimal city in all of 56,000 states (n = 8, 64 levels);
at 0.5 it failed in 1 of 1,000, at 0.125 in 2 of 100."""

EXACT_SHARPNESS = 16.0
"""Hard: all worse tours together weigh less than one that is best, 5,040 * exp(-16) = 0.0006, which proves that the
exhaustive enumerator is exact at n = 8. What lost leaves no trace."""

MAX_LEVELS = 4096
"""At this many, one unit of weight still is some hundred times the rounding error of a rotated network's scores."""

LOGITS_PER_SCORE = 2.0
"""A winning tour's logit is about this times its score."""

STEP_LOGITS = 8.0
"""The same of a nearest-neighbour step, whose score is smaller, so that both speak about equally loud."""

_RANK_NATS = 32.0


@dataclass(frozen=True)
class Scores:
    """Constants of the table above for one network.

    >>> Scores(n=8, levels=64)
    Scores(n=8, levels=64, sharpness=1.0)
    >>> Scores(n=8, levels=64).nats, Scores(n=8, levels=64).tour
    (64.0, 10.0)
    """

    n: int
    levels: int
    sharpness: float = SHARPNESS
    """Nats between two costs that differ by one unit of weight."""

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= MAX_LEVELS:
            raise UserError(f"compiled networks tell 1 to {MAX_LEVELS} levels of weights apart, got {self.levels}")
        if self.sharpness <= 0.0:
            raise UserError(f"sharpness must be positive, got {self.sharpness}")

    @property
    def nats(self) -> float:
        """Pre-activation per unit of score."""
        return self.sharpness * self.levels

    @property
    def gap(self) -> float:
        """Score between the ranks: at least 32 nats, enough against 50,000 candidates of a lower rank."""
        return max(0.5, _RANK_NATS / self.nats)

    @property
    def step(self) -> float:
        """Score of a nearest-neighbour step at distance 0."""
        return 1 + self.gap

    @property
    def tour(self) -> float:
        """Score of a tour that costs nothing."""
        return self.n + 1 + 2 * self.gap

    @property
    def big(self) -> float:
        """What rules a candidate out."""
        return self.tour
