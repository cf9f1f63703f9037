"""The arms: training set-ups that are compared for what they do to inner search (method.md section 8; no torch here).

An arm names the objective that a network is trained with and the way its answers are turned into tours at use. Every
arm's network is analysed by single forward passes through the same Subject interface; the outer loop is never inside.
"""

from dataclasses import dataclass

from mesaprobe.registry import Registry


@dataclass(frozen=True)
class Arm:
    """One training set-up; `module:function` is imported when it is needed."""

    words: str
    """What it is, in one clause."""
    objective: str
    """Loss of a network on a batch (see `mesaprobe.training.objectives`)."""
    decoder: str
    """What is run at use, a name in `mesaprobe.decoding.outer_compute`."""
    edits: bool = False
    """Trained on masked tours, with bidirectional attention."""
    tied: bool = False
    """All blocks share their weights."""


ARMS: Registry[Arm] = Registry("arm")
ARMS.add(
    "A0",
    Arm("plain left-to-right GPT", "mesaprobe.training.objectives:next_city", "greedy"),
)
ARMS.add(
    "A1",
    Arm(
        "masked bidirectional GPT that edits: masks cities at random and refills them, again and again",
        "mesaprobe.training.objectives:masked_cities",
        "editing",
        edits=True,
    ),
)
ARMS.add(
    "A2",
    Arm(
        "as A1, edits kept by annealed acceptance on the true tour cost, in training rollouts and at use",
        "mesaprobe.training.annealed_rollouts:masked_cities_of_rollouts",
        "annealed_editing",
        edits=True,
    ),
)
ARMS.add(
    "A3",
    Arm(
        "look-ahead from outside: trained as the scorer inside a look-ahead of two cities",
        "mesaprobe.training.looking_ahead:looked_ahead_next_city",
        "look_ahead",
    ),
)
ARMS.add(
    "A4",
    Arm(
        "myopic: no gradient from a decision's loss to earlier tour positions",
        "mesaprobe.training.myopic:myopic_next_city",
        "greedy",
    ),
)
ARMS.add(
    "AL",
    Arm(
        "looped GPT, one block used again and again, with as many loops at use as one likes",
        "mesaprobe.training.objectives:next_city_of_loops",
        "loops",
        tied=True,
    ),
)
