"""What a counterfactual pair must satisfy (method.md section 5, E3, and amendments 2 and 8)."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from mesaprobe.errors import UserError
from mesaprobe.labels.values import decision_steps
from mesaprobe.problems import Problem
from mesaprobe.solvers.algorithms import ALGORITHMS
from mesaprobe.solvers.known_rules import known_rules

MAX_CITIES = 12
"""Largest n: the table of one state grows with 2^n, and exact labels are promised up to here (method.md section 1)."""


@dataclass(frozen=True)
class PairCriteria:
    """The thresholds of a pair. Raises UserError on values that no pair can meet.

    The definition never gives way: where too few cities are left for it, a state is not used. With the default
    `protected`, `matrix` with n = 8 has pairs at its first decision only, where six cities are free and three
    of them far; later decisions need a lower `protected`, which the result then carries.
    """

    margin: float = 0.05
    """On each member, going to the best city outside its optimal set makes the best tour longer by more than this
    fraction."""
    protected: int = 3
    """So many free cities nearest to the current one are never touched, nor are cities at an equal distance."""
    max_entries: int = 2
    """How many entries an edit changes at most (1 or 2); two only where two others are left for the irrelevant twin.
    On `euclidean` one city moves instead."""
    heuristics: tuple[str, ...] = field(default_factory=known_rules)
    """The rules that must not notice. Those that a family does not admit drop out; a held-out rule is left out here."""
    max_log_odds_shift: float = 0.2
    """How far the imitator's log-odds of its choice may move."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin < 1.0:
            raise UserError(f"margin is a fraction of the tour length in [0, 1), got {self.margin}")
        if self.protected < 1:
            raise UserError(f"protected must be at least 1, the nearest city, got {self.protected}")
        if self.max_entries not in (1, 2):
            raise UserError(f"max_entries must be 1 or 2, got {self.max_entries}")
        if not self.max_log_odds_shift > 0.0:
            raise UserError(f"max_log_odds_shift must be positive, got {self.max_log_odds_shift}")
        for name in self.heuristics:
            if ALGORITHMS[name].completions is None:
                raise UserError(f"algorithm {name!r} says nothing about a state; take rules that complete a prefix")

    def rules(self, problem: Problem) -> tuple[str, ...]:
        """The heuristics that take the instances of a problem.

        >>> from mesaprobe.problems import ProblemConfig, make_problem
        >>> "mst_preorder" in PairCriteria().rules(make_problem(ProblemConfig(family="asymmetric")))
        False
        """
        return tuple(name for name in self.heuristics if ALGORITHMS[name].applies_to(problem))

    def far_needed(self, problem: Problem) -> int:
        """Far cities that an edit and its irrelevant twin need: two on `asymmetric` (two arcs) and `euclidean` (two
        cities to move), three on `matrix` (three entries)."""
        return 3 if problem.symmetric and not problem.planar else 2

    def lengths(self, problem: Problem) -> Int64[np.ndarray, " k"]:
        """Prefix lengths of the decisions with far entries for an edit and, apart from it, for its irrelevant twin.

        Raises UserError if there are none.
        """
        if problem.n > MAX_CITIES:
            raise UserError(f"pairs are mined for at most {MAX_CITIES} cities, got n = {problem.n}")
        needed = self.protected + self.far_needed(problem)
        lengths = np.arange(problem.n)[decision_steps(problem)] + 1
        lengths = lengths[problem.n - lengths >= needed]
        if len(lengths) == 0:
            raise UserError(
                f"{problem.family} instances with n = {problem.n} have no decision with {needed} cities left, which "
                f"{self.protected} protected ones demand; lower protected or raise n"
            )
        return lengths
