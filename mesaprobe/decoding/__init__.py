"""From next-city logits to tours."""

from mesaprobe.decoding.greedy import GreedyRollout, greedy_rollout

__all__ = ["GreedyRollout", "greedy_rollout"]
