"""The zoo's members: name, family, class, how to build one, and the mechanism that its certificate tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mesaprobe.models.gpt import TourGPT
from mesaprobe.models.subject import Subject
from mesaprobe.problems import ProblemConfig
from mesaprobe.registry import Registry
from mesaprobe.training.config import TrainConfig
from mesaprobe.training.courses import Course
from mesaprobe.zoo.certificates import Certificate, Structure
from mesaprobe.zoo.reference import Reference
from mesaprobe.zoo.searcher_certificates import IntendedStates

Role = Literal["search", "heuristic", "decoy", "sanity"]

FAMILIES: dict[Literal["search", "heuristic"], tuple[str, ...]] = {
    "search": (
        "enumeration",
        "lookahead",
        "beam",
        "value_iteration",
        "two_opt",
        "or_opt",
        "interchange_trained",
        "branch_and_bound",
        "tree_unroll",
        "value_iteration_network",
    ),
    "heuristic": (
        "nearest_neighbour",
        "greedy_edge",
        "cheapest_insertion",
        "farthest_insertion",
        "nearest_insertion",
        "savings",
        "mst_preorder",
        "remotest_neighbour",
        "farthest_neighbour",
        "penalty_neighbour",
        "radial_order",
        "sequential_savings",
        "gated_mixture",
        "local_scorer",
        "edge_scorer",
    ),
}
"""The closed list of mechanisms (DESIGN section 2): all members of one are held out together."""

OWN_ALGORITHMS: dict[str, tuple[str, ...]] = {
    "lookahead": ("lookahead_2", "lookahead_3", "horizon_2", "horizon_3"),
    "beam": ("beam_4", "beam_16", "horizon_beam_4"),
    "value_iteration": ("walk_values_4", "walk_values_3_no_two_cycles"),
    "two_opt": ("two_opt", "two_opt_first", "two_opt_or_opt", "two_opt_or_opt_first"),
    "or_opt": ("or_opt", "or_opt_first", "two_opt_or_opt", "two_opt_or_opt_first"),
    "branch_and_bound": ("branch_and_bound_24_nodes", "branch_and_bound_40_nodes"),
    "nearest_neighbour": ("nearest_neighbour", "randomised_nearest_neighbour"),
    "gated_mixture": ("gated_neighbour",),
    **{
        name: (name,)
        for name in (
            *("greedy_edge", "cheapest_insertion", "farthest_insertion", "nearest_insertion", "savings"),
            *("mst_preorder", "remotest_neighbour", "farthest_neighbour", "penalty_neighbour", "radial_order"),
            "sequential_savings",
        )
    },
}
"""What the library of algorithms knows of a family, and forgets where the family is held out. The exact methods stay:
they stand for the optimum, which every member is told from. Families that are not named have no algorithm there."""

DEVELOPMENT = ("enumeration", "lookahead", "two_opt", "nearest_neighbour", "greedy_edge", "local_scorer")
"""Families on which lines of evidence are developed; the others can be sealed."""

SEALED = ("value_iteration_network", "or_opt", "sequential_savings", "cheapest_insertion")
"""Two families per class on which no line is developed; they are opened when the error table is made.

Drawn once, before any line ran on the zoo, by numpy's default_rng(20261125) from the families above that are not in
DEVELOPMENT. It does not change when families are added.
"""


@dataclass(frozen=True)
class Compiled:
    """Weights written by hand (or by a rule from a seed)."""

    build: Callable[[], TourGPT]
    repeatable: bool = True
    """Whether every machine must get the same weights to the last bit (checked by hash)."""


@dataclass(frozen=True)
class Trained:
    """Weights from a training run that its config repeats."""

    config: TrainConfig


@dataclass(frozen=True)
class Taught:
    """Weights from a training run with a lesson, which its course repeats."""

    course: Course


class HeldStates(Protocol):
    """What a decoy holds."""

    def certify(self, subject: Subject, reference: Reference, *, seed: int = 0) -> Certificate:
        """The certificate of the decoy."""


@dataclass(frozen=True)
class Member:
    """One network of known mechanism."""

    name: str
    family: str
    """Mechanism; "none" for sanity members, which are no family."""
    role: Role
    degree: int
    """0 memory, 1 one-step rule, 2 constructive rule, 3 look-ahead or beam, 4 local search, 5 dynamic programming or
    exhaustive (DESIGN section 2)."""
    mechanism: str
    """What it computes, in one clause."""
    recipe: Compiled | Trained | Taught
    reference: Reference | None
    """What the certificate holds it to; None for sanity members."""
    problem: ProblemConfig = field(default_factory=ProblemConfig)
    disguise: str | None = None
    """rotated, noisy or finetuned: a copy that must be judged as the plain one is; few tours: a searcher that hides
    in heuristic quality (method.md section 6.3, K4 and K6); savings: one whose objective a rule nearly answers (the red
    team's R2). None of them is fitted."""
    states: IntendedStates | None = None
    """For trained searchers: the inner states that the certificate exchanges and erases."""
    held: HeldStates | None = None
    """For decoys: what they hold without using it."""
    structure: Structure | None = None
    """For mechanisms that are true by architecture: what the certificate checks on the weights instead of choices."""

    @property
    def compiled(self) -> bool:
        """Whether its weights were written, not trained."""
        return isinstance(self.recipe, Compiled)

    @property
    def sealed(self) -> bool:
        """Whether its family waits for the error table."""
        return self.family in SEALED


ZOO: Registry[Member] = Registry("zoo member")
