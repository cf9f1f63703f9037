"""The performance table: each row measured against a named peer in the same process, in interleaved rounds.

Interleaving lets both sides meet the same machine, whatever else runs on it; medians keep one bad round from
counting. Everything runs on one thread (torch is set to one, and given its old number back), and a row's peer
says so. A peer that is not installed leaves `peer_value`, `ratio` and `met` null.
"""

import contextlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.registry import Registry


@dataclass(frozen=True)
class BenchRow:
    """One measurement beside its peer's (DESIGN section 4, machine-readable output)."""

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float | None
    ratio: float | None
    """Above 1: better than the peer."""
    goal: float | None
    """The ratio asked for; None where nothing is asked."""
    met: bool | None


BENCHES: Registry[Callable[[], BenchRow]] = Registry("bench row")


def rows(names: Sequence[str] | None = None) -> Iterator[BenchRow]:
    """Measure the named rows (default: all), one after the other; an unknown name raises UserError at once."""
    chosen = [BENCHES[name] for name in (BENCHES if names is None else names)]
    return (measure() for measure in chosen)


def bench_row(
    name: str,
    value: float,
    unit: str,
    peer: str,
    peer_value: float | None,
    *,
    lower_is_better: bool = False,
    goal: float | None = None,
) -> BenchRow:
    """Fill in the ratio and whether it reaches the goal.

    >>> bench_row("step", 110.0, "ms", "plain", 100.0, lower_is_better=True, goal=1 / 1.1).met
    True
    >>> bench_row("solver", 9.0, "instances/s", "absent", None, goal=2.0).met is None
    True
    """
    ratio = None
    if peer_value is not None:
        ratio = peer_value / value if lower_is_better else value / peer_value
    met = None if ratio is None or goal is None else ratio >= goal * (1 - 1e-9)
    return BenchRow(name, value, unit, peer, peer_value, ratio, goal, met)


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object] | None, rounds: int
) -> tuple[float, float | None]:
    """Median seconds of each side over `rounds` rounds that take turns, after one round that does not count."""
    sides = [ours] if peer is None else [ours, peer]
    seconds: list[list[float]] = [[] for _ in sides]
    for counted in [False] + [True] * rounds:
        for side, times in zip(sides, seconds, strict=True):
            started = time.perf_counter()
            side()
            if counted:
                times.append(time.perf_counter() - started)
    medians = [statistics.median(times) for times in seconds]
    return medians[0], medians[1] if peer is not None else None


# ---- one optimisation step --------------------------------------------------------------------------------------

STEP_GOAL = 1 / 1.10
"""A hooked step may take at most 1.10 times a plain one."""


@BENCHES.register("training_step")
def training_step() -> BenchRow:
    """A full step (forward, backward, clipping, AdamW) of the shipped shape at batch 128, against a plain GPT of
    the same shape with causal `scaled_dot_product_attention`, an embedding for its input and no hooks."""
    import torch

    from mesaprobe.models.gpt import TourGPT
    from mesaprobe.training.config import PRESETS
    from mesaprobe.training.loop import make_optimiser, next_city_loss, optimisation_step
    from mesaprobe.training.stream import make_batch

    config = PRESETS["matrix8-optimal"]
    n = config.problem.n
    batch = make_batch(config, 0)
    model = TourGPT(config.model, n, make_problem(config.problem).feature_width)
    optimiser = make_optimiser(model, config)
    plain = _plain_gpt(n, config.model)
    settings = config.optimiser
    plain_optimiser = torch.optim.AdamW(
        plain.parameters(), settings.learning_rate, settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    cities = torch.arange(n).expand(len(batch.tours), n)
    tokens = torch.cat([cities, torch.from_numpy(batch.tours[:, :-1])], dim=1)
    targets = torch.from_numpy(batch.targets)

    def plain_step() -> None:
        loss = next_city_loss(plain(tokens), targets)
        plain_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.clip_norm)
        plain_optimiser.step()

    def hooked_step() -> None:
        optimisation_step(model, optimiser, batch, settings.learning_rate, settings.clip_norm)

    with _one_thread():
        ours, theirs = interleaved(hooked_step, plain_step, rounds=40)
    assert theirs is not None
    peer = f"plain PyTorch GPT with scaled_dot_product_attention, torch {torch.__version__}, 1 thread"
    return bench_row("training_step", 1e3 * ours, "ms", peer, 1e3 * theirs, lower_is_better=True, goal=STEP_GOAL)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plain_gpt(n: int, shape: Any) -> Any:
    """What one would write without interpretability in mind (after karpathy/nanoGPT): no hooks, causal attention."""
    import torch.nn.functional as F
    from torch import Tensor, nn

    class PlainBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(shape.d_model), nn.LayerNorm(shape.d_model)
            self.qkv, self.out = nn.Linear(shape.d_model, 3 * shape.d_model), nn.Linear(shape.d_model, shape.d_model)
            self.into, self.back = nn.Linear(shape.d_model, shape.d_mlp), nn.Linear(shape.d_mlp, shape.d_model)

        def forward(self, x: Tensor) -> Tensor:
            parts = self.qkv(self.ln1(x)).chunk(3, dim=-1)  # each [batch, pos, d_model]
            q, k, v = (part.unflatten(-1, (shape.n_heads, -1)).transpose(1, 2) for part in parts)
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + self.out(z)
            return x + self.back(F.gelu(self.into(self.ln2(x))))

    class PlainGPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(n, shape.d_model), nn.Embedding(2 * n, shape.d_model)
            self.blocks = nn.ModuleList(PlainBlock() for _ in range(shape.n_layers))
            self.ln, self.head = nn.LayerNorm(shape.d_model), nn.Linear(shape.d_model, n)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
            for block in self.blocks:
                x = block(x)
            return self.head(self.ln(x)[:, n:])

    return PlainGPT()


# ---- exact values -----------------------------------------------------------------------------------------------

HELD_KARP_GOAL = 300.0
"""Times as many instances per second as CP-SAT with one worker, n = 12."""


@BENCHES.register("held_karp_n10")
def held_karp_n10() -> BenchRow:
    """Against python-tsp's dynamic program, which gives one tour and no values."""
    return _held_karp_row(10, 2000, _PYTHON_TSP, _python_tsp(), peer_instances=1)


@BENCHES.register("held_karp_n12")
def held_karp_n12() -> BenchRow:
    """Against CP-SAT, which gives one tour with a proof and no values."""
    return _held_karp_row(12, 1000, _CP_SAT, _cp_sat, peer_instances=8, goal=HELD_KARP_GOAL)


@BENCHES.register("held_karp_n15")
def held_karp_n15() -> BenchRow:
    """Against CP-SAT, as above."""
    return _held_karp_row(15, 100, _CP_SAT, _cp_sat, peer_instances=8)


_CP_SAT = "OR-Tools CP-SAT, 1 worker"
_PYTHON_TSP = "python-tsp, dynamic programming"


def _held_karp_row(
    n: int,
    count: int,
    peer: str,
    solve: Callable[[Instances], object] | None,
    *,
    peer_instances: int,
    goal: float | None = None,
) -> BenchRow:
    """Full cost-to-go tables, an optimal tour and Q* of all its decisions, in instances per second, one thread."""
    from mesaprobe.solvers.exact.held_karp import optimal_rollouts

    instances = make_problem(ProblemConfig(n=n)).draw(count, np.random.default_rng(0))
    prefixes, lengths = np.zeros((count, n), dtype=np.int64), np.ones(count, dtype=np.int64)
    uniforms = np.zeros((count, n))
    few = instances[:peer_instances]
    ours, theirs = interleaved(
        lambda: optimal_rollouts(instances.weights, prefixes, lengths, uniforms),
        None if solve is None else lambda: solve(few),
        rounds=7,
    )
    peer_rate = None if theirs is None else peer_instances / theirs
    return bench_row(f"held_karp_n{n}", count / ours, "instances/s", f"{peer}, 1 thread", peer_rate, goal=goal)


def _cp_sat(instances: Instances) -> None:
    from mesaprobe.solvers.exact.cp_sat import solve_cp_sat

    for weights in instances.weights:
        solve_cp_sat(weights, workers=1)


def _python_tsp() -> Callable[[Instances], object] | None:
    """python-tsp's exact solver, or None where it is not installed (it comes with the extra `bench`)."""
    if importlib.util.find_spec("python_tsp") is None:
        return None
    from python_tsp.exact import solve_tsp_dynamic_programming

    return lambda instances: [solve_tsp_dynamic_programming(weights) for weights in instances.weights]
