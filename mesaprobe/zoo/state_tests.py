"""What certificates of trained searchers and of decoys measure besides behaviour (method.md sections 6.1 and 6.3)."""

from dataclasses import dataclass

INTERCHANGE = 0.90
"""Least interchange accuracy of a trained searcher's intended states."""
ERRORS = 0.90
"""Least share of its algorithm's errors that a trained searcher repeats."""
DECODABLE = 0.80
"""Least share of the variance of the values that a decoy's subspace must tell."""
INERT = 0.01
"""Largest share of choices that may change when that subspace is taken from another instance."""


@dataclass(frozen=True)
class StateTest:
    """Whether a trained searcher's intended states carry its choices; rates are fractions of states."""

    states: str
    """What is exchanged and erased."""
    interchange_accuracy: float
    """Pairs whose answer should change: the edited network names a city that the algorithm allows with its state taken
    from the partner."""
    interchange_accuracy_all: float
    """The same over all pairs."""
    changing_pairs: int
    pairs: int
    erased_agreement: float
    """Choices among free cities that the algorithm allows while the intended states are erased (LEACE)."""
    heuristic: str
    """The rule of degree 2 or less that agrees with the algorithm most often."""
    heuristic_agreement: float
    """How often it does, on the same states: the level to which the erasure must drop the network."""
    error_agreement: float
    """States where the algorithm allows no optimal city: the network's choice is one that the algorithm allows."""
    error_states: int

    @property
    def passed(self) -> bool:
        """All three conditions of method.md section 6.1."""
        return (
            self.interchange_accuracy >= INTERCHANGE
            and self.erased_agreement <= self.heuristic_agreement
            and self.error_agreement >= ERRORS
        )

    @property
    def why(self) -> str:
        """The figures in one line."""
        return (
            f"follows {self.interchange_accuracy:.1%} of exchanged states (at least {INTERCHANGE:.0%}; {self.states}), "
            f"repeats {self.error_agreement:.1%} of its algorithm's errors (at least {ERRORS:.0%}), and without those "
            f"states agrees with the algorithm in {self.erased_agreement:.1%} (at most {self.heuristic}'s "
            f"{self.heuristic_agreement:.1%})"
        )


@dataclass(frozen=True)
class DecoyTest:
    """Whether a decoy holds what a searcher would, and makes no use of it."""

    decodable: float
    """R^2 of the values of free cities from the subspace, on held-out instances (linear, per step)."""
    completion_decodable: float | None
    """Share of the optimal next-but-one cities that a linear probe of the subspace names; None where none is held."""
    changed: float
    """States whose choice changes when the subspace is taken from another instance."""
    moved: float
    """Mean absolute change of the chosen city's log-probability then, in nats."""

    @property
    def passed(self) -> bool:
        """Decodable, and inert."""
        return self.decodable >= DECODABLE and self.changed <= INERT

    @property
    def why(self) -> str:
        """The figures in one line."""
        return (
            f"its subspace tells {self.decodable:.1%} of the variance of the optimal values (at least {DECODABLE:.0%}) "
            f"and changes {self.changed:.2%} of choices when exchanged (at most {INERT:.0%})"
        )
