"""Small networks whose every part matters, their inputs, and edits to make to them, for the tests of models."""

import torch
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.models import UNKNOWN, GPTConfig, TourGPT
from mesaprobe.problems import ProblemConfig, make_problem

N, BATCH = 6, 3
SMALL = GPTConfig(d_model=16, n_layers=3, n_heads=2, d_mlp=24)
MODES = ("causal", "prefix", "bidirectional")
PROBLEM = make_problem(ProblemConfig(n=N))


def shape(attention: str = "prefix", **other: object) -> GPTConfig:
    return GPTConfig(**(vars(SMALL) | {"attention": attention} | other))  # type: ignore[arg-type]


def network(config: GPTConfig = SMALL, *, loudness: float = 10.0, seed: int = 0) -> TourGPT:
    """A network whose parts all matter: louder than at initialisation, biases and norms off their start."""
    model = TourGPT(config, N, N, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(loudness)
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.requires_grad_(False)


def inputs(attention: str = "prefix", *, length: int = N - 1, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Features [3, 6, 6] and tours [3, length]; for bidirectional attention [3, 6], unknown from `length` on."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(BATCH, N, N, generator=generator)
    rest = torch.stack([torch.randperm(N - 1, generator=generator) + 1 for _ in range(BATCH)])
    tours = torch.cat([torch.zeros(BATCH, 1, dtype=torch.long), rest], dim=1)
    if attention == "bidirectional":
        tours[:, length:] = UNKNOWN
        return features, tours
    return features, tours[:, :length]


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


def keep(activation: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
    return activation


def double(activation: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
    return 2 * activation


def erase(activation: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
    return torch.zeros_like(activation)


class Foreign(HookedRootModule):
    """A running mean of what it has seen: the least a user's own network can be. `fault` spoils it."""

    def __init__(self, fault: str = "", positions: str = "tour") -> None:
        super().__init__()
        self.fault, self.positions = fault, positions
        self.city, self.out = nn.Linear(N, 8), nn.Linear(8, N + (fault == "width"))
        self.hook_seen = HookPoint()
        self.setup()

    def forward(self, features: Tensor, tour: Tensor) -> Tensor:
        if self.fault == "raises":
            raise KeyError("nothing here")
        cities = self.city(features)
        steps = cities.gather(1, tour[:, :, None].expand(-1, -1, 8))
        if self.positions == "sequence":
            steps = torch.cat([cities, steps], dim=1)
        seen = steps.mean(1, keepdim=True).expand_as(steps) if self.fault == "leak" else steps.cumsum(1)
        logits = self.out(self.hook_seen(seen))
        return logits[:, -1] if self.fault == "rank" else logits
