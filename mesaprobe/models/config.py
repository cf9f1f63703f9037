"""The shapes of the project's networks, as the command line and config.json see them (no torch here)."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from mesaprobe.errors import UserError

UNKNOWN = -1
"""Stands for a masked city in the tour given to a bidirectional model."""


class ArchitectureConfig(ABC):
    """Shape of a network; the number of cities and features come from the problem. Subclasses are frozen dataclasses
    whose field `architecture` is their name in `mesaprobe.models.architectures`."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """Which network the config is the shape of."""

    @property
    def reads_whole_tour(self) -> bool:
        """Whether the answer at a tour position may depend on later ones."""
        return False

    @abstractmethod
    def in_words(self, n: int) -> str:
        """The shape in one line, for n cities."""

    @abstractmethod
    def floats(self, n: int, n_features: int) -> tuple[int, int]:
        """About how many numbers the weights are, and the activations of one instance while training."""


@dataclass(frozen=True)
class GPTConfig(ArchitectureConfig):
    """Shape of a `TourGPT`; the number of cities and features come from the problem."""

    d_model: int = 128
    """Width of the residual stream."""
    n_layers: int = 4
    """Number of blocks."""
    n_heads: int = 4
    """Attention heads per block."""
    d_head: int | None = None
    """Width of one head; d_model / n_heads if not given. Free for compiled networks."""
    d_mlp: int = 512
    """Hidden units of each MLP."""
    act_fn: Literal["gelu", "relu", "solu"] = "gelu"
    """Activation of the MLP; solu (x * softmax(x)) is for compiled networks."""
    norm: Literal["layer", "none"] = "layer"
    """Layer normalisation before each sublayer and at the end, or none (compiled networks)."""
    attention: Literal["causal", "prefix", "bidirectional"] = "prefix"
    """Who sees whom: all causal; the instance block sees itself and tour tokens are causal; or everyone
    sees everyone (editing arm: unknown cities are masked)."""
    tied: bool = False
    """All blocks share one block's weights: a looped network, n_layers loops of it."""
    architecture: Literal["gpt"] = "gpt"
    """The network that these settings shape; the command line trains GPTs, Python and --config the others too."""

    def __post_init__(self) -> None:
        _check_counts(self, "d_model", "n_layers", "n_heads", "d_mlp")
        if self.d_head is None and self.d_model % self.n_heads:
            raise UserError(
                f"model.d_model ({self.d_model}) must be a multiple of model.n_heads ({self.n_heads}), "
                "or give model.d_head"
            )

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def reads_whole_tour(self) -> bool:
        return self.attention == "bidirectional"

    def in_words(self, n: int) -> str:  # noqa: ARG002
        depth = f"{self.n_layers} loops of one block" if self.tied else f"{self.n_layers} layers"
        return f"{depth}, d_model {self.d_model}, {self.n_heads} heads, d_mlp {self.d_mlp}, {self.attention} attention"

    def floats(self, n: int, n_features: int) -> tuple[int, int]:
        tokens = 2 * n
        per_block = 4 * self.d_model * self.head_width * self.n_heads + 2 * self.d_model * self.d_mlp
        per_pass = tokens * (12 * self.d_model + 3 * self.d_mlp) + self.n_heads * tokens * tokens
        blocks = 1 if self.tied else self.n_layers
        return blocks * per_block + n_features * self.d_model, self.n_layers * per_pass


@dataclass(frozen=True)
class LocalScorerConfig(ArchitectureConfig):
    """Shape of a `LocalScorer`: its stream is n candidates side by side, d_model = n * width."""

    width: int = 16
    """Numbers that the stream holds for one candidate."""
    n_layers: int = 4
    """Blocks: the first reads the features, each later one is an MLP."""
    d_mlp: int = 64
    """Hidden units of each MLP, for one candidate."""
    neighbours: int = 3
    """How many of the smallest weights in the rows of the current city, the candidate and city 0 are features."""
    architecture: Literal["local_scorer"] = "local_scorer"
    """The network that these settings shape."""

    def __post_init__(self) -> None:
        _check_counts(self, "n_layers", "d_mlp")
        if self.width < 2:
            raise UserError(f"model.width must be at least 2, got {self.width}")
        if self.neighbours < 0:
            raise UserError(f"model.neighbours must not be negative, got {self.neighbours}")

    def in_words(self, n: int) -> str:
        return (
            f"{self.n_layers} layers, no attention, d_model {n} * {self.width}, d_mlp {n} * {self.d_mlp}; the logit "
            f"of a candidate depends on local features of it alone, {self.neighbours} nearest neighbours among them"
        )

    def floats(self, n: int, n_features: int) -> tuple[int, int]:  # noqa: ARG002
        blocks = self.n_layers * 2 * self.width * self.d_mlp
        per_candidate = 4 * n + 10 + 3 * self.neighbours + self.n_layers * (6 * self.width + 3 * self.d_mlp)
        return blocks, 2 * n * n * per_candidate


@dataclass(frozen=True)
class TourRefinerConfig(ArchitectureConfig):
    """Shape of a `TourRefiner`: its stream is a tour, n slots of n cities side by side, d_model = n * n."""

    n_layers: int = 8
    """Loops of the shared block."""
    d_mlp: int = 32
    """Hidden units that price one candidate tour."""
    moves: Literal["two_opt", "or_opt"] = "two_opt"
    """Which tours one loop may lead to: reversals of a path, or paths of up to 3 cities moved elsewhere."""
    architecture: Literal["tour_refiner"] = "tour_refiner"
    """The network that these settings shape."""

    def __post_init__(self) -> None:
        _check_counts(self, "n_layers", "d_mlp")

    def in_words(self, n: int) -> str:
        return (
            f"{self.n_layers} loops of one block, d_model {n} * {n} (a tour), {self.moves} moves, each candidate tour "
            f"priced by {self.d_mlp} hidden units"
        )

    def floats(self, n: int, n_features: int) -> tuple[int, int]:  # noqa: ARG002
        candidates = (n - 1) * (n - 2) // 2 + 1 if self.moves == "two_opt" else 2 * n * n
        weights = (2 * n + candidates + self.n_layers) * self.d_mlp + n * n * n
        return weights, n * self.n_layers * candidates * (n + 4 * self.d_mlp)


@dataclass(frozen=True)
class TourBuilderConfig(ArchitectureConfig):
    """Shape of a `TourBuilder`: its stream is a partial tour, n rows of n cities side by side, d_model = n * n."""

    n_layers: int = 8
    """Loops of the shared block; n of them finish every tour."""
    d_mlp: int = 16
    """Hidden units that score one step."""
    steps: Literal["insertion", "edges", "tree"] = "insertion"
    """What one loop adds: a city between two neighbours, an edge of the tour, or an edge of a tree to walk along."""
    architecture: Literal["tour_builder"] = "tour_builder"
    """The network that these settings shape."""

    def __post_init__(self) -> None:
        _check_counts(self, "n_layers", "d_mlp")

    def in_words(self, n: int) -> str:
        what = {"insertion": "insertion of a city", "edges": "edge", "tree": "edge of a tree"}[self.steps]
        return (
            f"{self.n_layers} loops of one block, d_model {n} * {n} (a partial tour), each {what} scored by "
            f"{self.d_mlp} hidden units"
        )

    def floats(self, n: int, n_features: int) -> tuple[int, int]:  # noqa: ARG002
        most_quantities, most_steps = 6, n * n
        weights = (most_quantities + self.n_layers + 2) * self.d_mlp + n * n * n
        return weights, n * self.n_layers * most_steps * (2 * most_quantities + 4 * self.d_mlp)


@dataclass(frozen=True)
class PlannerConfig(ArchitectureConfig):
    """Shape of a network that plans by its architecture (`models.planners`); d_model = n * width."""

    kind: Literal["tree", "iteration"] = "tree"
    """Unroll two arcs, or iterate values of cities."""
    width: int = 32
    """Numbers that the stream holds for one city, or of one state's embedding; the tree's is at least 3."""
    n_layers: int = 3
    """Blocks: 3 of a tree; the iterations of an iteration."""
    d_mlp: int = 64
    """Hidden units of each learnt function."""
    architecture: Literal["planner"] = "planner"
    """The network that these settings shape."""

    def __post_init__(self) -> None:
        _check_counts(self, "n_layers", "d_mlp")
        if self.width < 3:
            raise UserError(f"model.width must be at least 3, got {self.width}")
        if self.kind == "tree" and self.n_layers != 3:
            raise UserError(f"a tree of two arcs has model.n_layers 3, got {self.n_layers}")

    def in_words(self, n: int) -> str:
        what = "a tree of two arcs" if self.kind == "tree" else f"{self.n_layers} iterations of values"
        return f"{what}, d_model {n} * {self.width}, learnt functions of {self.d_mlp} hidden units"

    def floats(self, n: int, n_features: int) -> tuple[int, int]:  # noqa: ARG002
        if self.kind == "iteration":
            return 15 * self.d_mlp, n * self.n_layers * n * n * 3 * self.d_mlp
        inputs = 2 * n + n * n + self.width + 3 * n + self.width + 2 * self.width
        return inputs * self.d_mlp, n * n * n * (3 * self.d_mlp + 3 * self.width)


@dataclass(frozen=True)
class TreeSearcherConfig(ArchitectureConfig):
    """Shape of a `TreeSearcher`: its stream is a node of a search tree, about 3 n^2 numbers wide."""

    n_layers: int = 24
    """Nodes that are visited: loops of the shared block."""
    d_mlp: int = 16
    """Hidden units of each learnt function."""
    architecture: Literal["tree_searcher"] = "tree_searcher"
    """The network that these settings shape."""

    def __post_init__(self) -> None:
        _check_counts(self, "n_layers", "d_mlp")

    def in_words(self, n: int) -> str:
        width = n * math.ceil((3 * n * n + n + 5) / n)
        return f"{self.n_layers} loops of one block, d_model {width} (a node of a search tree), no attention"

    def floats(self, n: int, n_features: int) -> tuple[int, int]:  # noqa: ARG002
        return 3 * n**3 + 2 * n * n + (n + 6) * self.d_mlp, n * self.n_layers * 8 * n * n


def _check_counts(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"model.{name} must be at least 1, got {getattr(config, name)}")
