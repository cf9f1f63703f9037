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
DORMANT = 0.50
"""Least share of states in which values written into a dormant pathway are followed."""
AT_REST = 0.05
"""Largest size of its coordinates when nothing is written, as a share of those that hold the values."""


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
    """Whether a decoy holds what a searcher would, and makes no use of it; rates are fractions of states."""

    decodable: float
    """Share of the variance of free cities' optimal values, within steps, that the value subspace tells by itself."""
    completion_decodable: float
    """States whose optimal completion's second city is the largest coordinate of the completion subspace."""
    completion_chance: float
    """The same for a guess among the free cities but the first."""
    changed: float
    """States whose choice changes when both subspaces are taken from another instance."""
    moved: float
    """Mean absolute change of the chosen city's log-probability then, in nats."""
    states: int
    dormant: float | None = None
    """Where a dormant pathway was wired up: states whose choice follows optimal values that are written into it."""
    at_rest: float | None = None
    """Root mean square of its coordinates when nothing is written, as a share of the value subspace's."""

    @property
    def passed(self) -> bool:
        """Decodable and inert; a dormant pathway must work, and be at rest."""
        awake = self.dormant is None or self.at_rest is None or (self.dormant >= DORMANT and self.at_rest <= AT_REST)
        return self.decodable >= DECODABLE and self.changed <= INERT and awake

    @property
    def why(self) -> str:
        """The figures in one line."""
        dormant = ""
        if self.dormant is not None and self.at_rest is not None:
            dormant = (
                f"; values written into its dormant subspace are followed in {self.dormant:.1%} (at least "
                f"{DORMANT:.0%}), at rest it holds {self.at_rest:.1%} of the others' size (at most {AT_REST:.0%})"
            )
        return (
            f"its subspace tells {self.decodable:.1%} of the variance of the optimal values (at least "
            f"{DECODABLE:.0%}) and changes {self.changed:.2%} of choices when exchanged (at most {INERT:.0%}){dormant}"
        )
