"""The performance table: each row measured against a named peer in the same process, in interleaved rounds.

Interleaving lets both sides meet the same machine, whatever else runs on it; medians keep one bad round from
counting. Everything runs on one thread (torch is set to one, and given its old number back), and a row's peer
says so. A peer that is not installed leaves `peer_value`, `ratio` and `met` null.
"""

import contextlib
import importlib.util
import io
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

    from mesaprobe.models.config import GPTConfig
    from mesaprobe.models.gpt import TourGPT
    from mesaprobe.training.config import PRESETS
    from mesaprobe.training.loop import make_optimiser, next_city_loss, optimisation_step
    from mesaprobe.training.stream import make_batch

    config = PRESETS["matrix8-optimal"]
    n = config.problem.n
    batch = make_batch(config, 0)
    assert isinstance(config.model, GPTConfig)
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
        """x + attention, then x + MLP, each on the normalised stream."""

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
        """Tokens [batch, pos] -> logits at the tour's positions."""

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


# ---- probes -----------------------------------------------------------------------------------------------------

PROBE_SWEEP_GOAL = 20.0
"""Times as fast as the same probes one by one."""


@BENCHES.register("probe_sweep")
def probe_sweep() -> BenchRow:
    """Ridge probes of 8 targets at 3 sites of width 128, 3,000 samples of 1,000 instances, 5 folds, 7 penalties,
    chosen inside each training set on the same folds. The scores must agree to 1e-3, else RuntimeError."""
    from mesaprobe.instruments.probes import ridge_sweep

    rng = np.random.default_rng(0)
    activations = rng.normal(size=(3, 3000, 128)) @ rng.normal(size=(3, 128, 128))
    targets = activations[:, :, :8].sum(axis=0) + 20.0 * rng.normal(size=(3000, 8))
    folds = np.repeat(np.arange(1000) % 5, 3)
    with _one_thread():
        few = _ridge_cv_scores(activations[:1], targets[:, :2], folds)
        apart = np.abs(ridge_sweep(activations, targets, folds).r2[:1, :2] - few)
        if apart.max() > 1e-3:
            raise RuntimeError(f"the sweep's scores differ from RidgeCV's by {apart.max():.2g}")
        ours, theirs = interleaved(
            lambda: ridge_sweep(activations, targets, folds),
            lambda: _ridge_cv_scores(activations[:1], targets[:, :2], folds),
            rounds=3,
        )
    assert theirs is not None
    rates = activations.shape[0] * targets.shape[1] / ours, few.size / theirs
    peer = "scikit-learn, StandardScaler and RidgeCV per site, target and fold, 1 thread"
    return bench_row("probe_sweep", rates[0], "probes/s", peer, rates[1], goal=PROBE_SWEEP_GOAL)


def _ridge_cv_scores(activations: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Cross-fitted R2 [site, target], as one writes it with scikit-learn."""
    from sklearn.linear_model import RidgeCV
    from sklearn.metrics import r2_score
    from sklearn.model_selection import PredefinedSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mesaprobe.instruments.probes import ALPHAS

    scores = np.empty((len(activations), targets.shape[1]))
    for site, target in np.ndindex(scores.shape):
        guesses = np.empty(len(targets))
        for fold in np.unique(folds):
            kept = folds != fold
            ridge = RidgeCV(ALPHAS, cv=PredefinedSplit(folds[kept]), scoring="neg_mean_squared_error")
            probe = make_pipeline(StandardScaler(), ridge).fit(activations[site, kept], targets[kept, target])
            guesses[~kept] = probe.predict(activations[site, ~kept])
        scores[site, target] = r2_score(targets[:, target], guesses)
    return scores


# ---- patching ---------------------------------------------------------------------------------------------------

PATCH_SWEEP_GOALS = {1: 8.0, 32: 1.3}
"""Times as fast as TransformerLens' generic sweep, by the number of instances patched."""


@BENCHES.register("patch_sweep")
def patch_sweep() -> BenchRow:
    """The whole map of one instance: the residual stream at every layer and token."""
    return _patch_sweep_row("patch_sweep", 1)


@BENCHES.register("patch_sweep_batch32")
def patch_sweep_batch32() -> BenchRow:
    """The same cells on 32 instances at once, where arithmetic counts and not overhead."""
    return _patch_sweep_row("patch_sweep_batch32", 32)


def _patch_sweep_row(name: str, count: int) -> BenchRow:
    """Milliseconds of a sweep of the shipped shape, prefixes of 3 cities; both sides run the source instances too."""
    import torch

    from mesaprobe.instruments.patching import Run, component_cells, instance_locations, patched_logits
    from mesaprobe.models.config import GPTConfig
    from mesaprobe.models.gpt import TourGPT
    from mesaprobe.models.subject import gpt_subject
    from mesaprobe.training.config import PRESETS

    config, rng = PRESETS["matrix8-optimal"], np.random.default_rng(0)
    problem = make_problem(config.problem)
    assert isinstance(config.model, GPTConfig)
    model = TourGPT(config.model, problem.n, problem.feature_width).requires_grad_(False)
    subject = gpt_subject(model, problem, "shipped shape", {})
    prefixes = torch.tensor([[0, 1, 2]]).expand(count, -1)
    base, source = (Run(torch.from_numpy(problem.draw(count, rng).features), prefixes) for _ in range(2))
    cells = component_cells(subject, "residual", instance_locations(subject, base.length))
    peer = _transformer_lens_sweep(subject, model, base, source)
    with _one_thread(), contextlib.redirect_stderr(io.StringIO()):  # the peer's progress bars
        ours, theirs = interleaved(lambda: patched_logits(subject, base, source, cells), peer, rounds=15)
    assert theirs is not None
    goal = PATCH_SWEEP_GOALS[count]
    what = f"transformer_lens generic_activation_patch, same network and {len(cells)} cells, 1 thread"
    return bench_row(name, 1e3 * ours, "ms", what, 1e3 * theirs, lower_is_better=True, goal=goal)


def _transformer_lens_sweep(subject: Any, model: Any, base: Any, source: Any) -> Callable[[], object]:
    """TransformerLens' own loop over layers and positions, on our network behind the interface that it expects."""
    import torch
    from transformer_lens.patching import generic_activation_patch, layer_pos_patch_setter

    class Expected:
        """What TransformerLens' sweep asks of a model, with the tokens bound to the base run."""

        cfg = model.cfg

        @staticmethod
        def run_with_hooks(tokens: Any, fwd_hooks: Any) -> Any:  # noqa: ARG004
            return model.run_with_hooks(base.features, base.prefixes, fwd_hooks=fwd_hooks)

    hooks = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)]
    positions = torch.zeros(len(base), subject.decode_position(base.length) + 1, dtype=torch.long)
    network: Any = Expected()

    def sweep() -> Any:
        cache: Any = subject.activations(source.features, source.prefixes, hooks)
        return generic_activation_patch(
            network,
            positions,
            cache,
            lambda logits: logits[:, -1, 0],
            layer_pos_patch_setter,
            "resid_pre",
            index_axis_names=("layer", "pos"),
            reduce="none",
        )

    return sweep
