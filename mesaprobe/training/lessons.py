"""The lessons: what inner states networks are taught (no torch in this file)."""

from dataclasses import dataclass
from typing import Literal

from mesaprobe.training.courses import LESSONS, Lesson, LessonKind


@dataclass(frozen=True)
class ValueStates(Lesson):
    """Hold the value of every free city at one layer, and choose by it (see `value_states`)."""

    valuation: str = "two_arcs"
    """What a city's value is: a name in `VALUATIONS`."""
    layer: int = 2
    """The values stand in the stream that this block leaves."""
    gain: float = 20.0
    """Coordinate of a value that is as large as the largest weight."""
    value_weight: float = 5.0
    """Weight of the squared error of the values, in units of the largest weight, against the cross-entropies."""
    random_prefixes: float = 0.3
    """Share of sequences that begin with a random legal prefix; partners see prefixes that are not theirs anyway."""
    subspace_seed: int = 7
    """Draws the subspace."""
    lesson: Literal["value_states"] = "value_states"
    """The lesson that these settings describe."""


@dataclass(frozen=True)
class TourStates(Lesson):
    """For tour refiners: which tour the stream holds after every loop (see `tour_states`)."""

    choice: Literal["cheapest", "nearest_next"] = "cheapest"
    """What each loop does: the best of all moves, or the next step of nearest neighbour."""
    shuffled: bool = True
    """Show half of the instances' first tours in random order."""
    lesson: Literal["tour_states"] = "tour_states"
    """The lesson that these settings describe."""


@dataclass(frozen=True)
class BuiltTours(Lesson):
    """For tour builders: which partial tour the stream holds after every loop (see `built_tours`)."""

    rule: str = "cheapest_insertion"
    """Which step each loop takes: a name in `RULES`, which is that of the algorithm in the library."""
    lesson: Literal["built_tours"] = "built_tours"
    """The lesson that these settings describe."""


@dataclass(frozen=True)
class OptimalEdges(Lesson):
    """For tour builders that add edges: prefer edges of an optimal completion (see `optimal_edges`)."""

    lesson: Literal["optimal_edges"] = "optimal_edges"
    """The lesson that these settings describe."""


@dataclass(frozen=True)
class InertValues(Lesson):
    """For decoys: choose the nearest city; hold optimal values and completions, unused (see `inert_values`)."""

    dormant: bool = False
    """Wire up a third subspace that nothing writes."""
    layer: int = 2
    """They stand in the stream that this block leaves."""
    gain: float = 20.0
    """Coordinate of a value that is as large as the largest weight."""
    value_weight: float = 5.0
    """Weight of the squared error of the values, in units of the largest weight, against the cross-entropies."""
    completion_weight: float = 0.5
    """Weight of the completion's cross-entropy."""
    random_prefixes: float = 0.3
    """Share of sequences that begin with a random legal prefix."""
    subspace_seed: int = 11
    """Draws the subspaces."""
    lesson: Literal["inert_values"] = "inert_values"
    """The lesson that these settings describe."""


@dataclass(frozen=True)
class SearchStates(Lesson):
    """For tree searchers: bound, decision and next child at every node of branch and bound (see `search_states`)."""

    bound_weight: float = 100.0
    """Weight of the squared error of the bounds, in units of the largest weight, against the cross-entropies."""
    first_only: bool = False
    """Give up every node once there is a completion: the walk of nearest neighbour, and nothing is compared."""
    lesson: Literal["search_states"] = "search_states"
    """The lesson that these settings describe."""


LESSONS.add("value_states", LessonKind(ValueStates, "mesaprobe.training.value_states:ValueStatesObjective"))
LESSONS.add("tour_states", LessonKind(TourStates, "mesaprobe.training.tour_states:TourStatesObjective"))
LESSONS.add("built_tours", LessonKind(BuiltTours, "mesaprobe.training.built_tours:BuiltToursObjective"))
LESSONS.add("optimal_edges", LessonKind(OptimalEdges, "mesaprobe.training.optimal_edges:OptimalEdgesObjective"))
LESSONS.add("inert_values", LessonKind(InertValues, "mesaprobe.training.inert_values:InertValuesObjective"))
LESSONS.add("search_states", LessonKind(SearchStates, "mesaprobe.training.search_states:SearchStatesObjective"))
