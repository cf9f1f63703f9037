"""A patching map against TransformerLens' own sweep over the same network."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from mesaprobe.bench.table import BENCHES, BenchRow, bench_row, interleaved, one_thread
from mesaprobe.problems import make_problem

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
    with one_thread(), contextlib.redirect_stderr(io.StringIO()):  # the peer's progress bars
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
