"""What the fixes study runs: arms, seeds, shape, matching, lines (method.md section 8; no torch here)."""

from dataclasses import dataclass, field

from mesaprobe.errors import UserError
from mesaprobe.models.config import GPTConfig
from mesaprobe.problems import ProblemConfig
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import DataConfig, EditingConfig, OptimiserConfig, TrainConfig

PLAIN = "A0"
"""The arm that the others are compared with."""


@dataclass(frozen=True)
class RetentionDesign:
    """Certified searchers, trained further on optimal tours under each arm that can take their weights."""

    searchers: tuple[str, ...] = ("lookahead-4x128", "lookahead-2")
    """Zoo members of GPT shape with prefix attention."""
    arms: tuple[str, ...] = ("A0", "A4")
    """Arms whose network is the same: editing arms have bidirectional attention and can't take these weights."""
    seeds: tuple[int, ...] = (0,)
    steps: tuple[int, ...] = (0, 25, 100, 300)
    """Steps after which the network is measured; the first is before any."""
    batch_size: int = 64
    learning_rate: float = 3e-4


@dataclass(frozen=True)
class FixesDesign:
    """One study; its hash names what its numbers mean."""

    arms: tuple[str, ...] = ("A0", "A1", "A2", "A4")
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Paired: one seed gives all arms the same instances, and the same first weights where shapes allow."""
    problem: ProblemConfig = field(default_factory=ProblemConfig)
    model: GPTConfig = field(default_factory=lambda: GPTConfig(d_model=64, n_layers=2, d_mlp=256))
    steps: int = 1000
    batch_size: int = 128
    evaluate_every: int = 125
    """Steps between checkpoints, among which the matched one is chosen."""
    editing: EditingConfig = field(default_factory=EditingConfig)
    level: float = 0.5
    """Discordant accuracy of the whole system at which networks are compared."""
    discordant_instances: int = 4000
    """Instances among whose decisions the discordant ones are sought."""
    lines: tuple[str, ...] = ("E3", "E7", "E9")
    budget: str = "quick"
    retention: RetentionDesign = field(default_factory=RetentionDesign)

    def __post_init__(self) -> None:
        if PLAIN not in self.arms:
            raise UserError(f"the study compares arms with {PLAIN}, which must be among them")
        for arm in self.arms:
            ARMS[arm]

    def training(self, arm: str, seed: int) -> TrainConfig:
        """The run of one cell."""
        return TrainConfig(
            problem=self.problem,
            model=self.model,
            arm=arm,  # type: ignore[arg-type]
            data=DataConfig(workers=0),
            editing=self.editing,
            optimiser=OptimiserConfig(warmup_steps=100),
            steps=self.steps,
            batch_size=self.batch_size,
            seed=seed,
            evaluate_every=self.evaluate_every,
            evaluation_instances=800,
            threads=1,
            device="cpu",
        )


PILOT = FixesDesign()
"""Four paired seeds, to see the spread; the full study is frozen after it."""
