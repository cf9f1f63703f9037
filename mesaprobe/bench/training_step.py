"""One optimisation step against a plain network of the same shape."""

from typing import Any

from mesaprobe.bench.table import BENCHES, BenchRow, bench_row, interleaved, one_thread
from mesaprobe.problems import make_problem

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
    from mesaprobe.training.loop import make_optimiser, optimisation_step
    from mesaprobe.training.objectives import next_city_loss
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
        optimisation_step(model, optimiser, batch, config, config.optimiser.warmup_steps)

    with one_thread():
        ours, theirs = interleaved(hooked_step, plain_step, rounds=40)
    assert theirs is not None
    peer = f"plain PyTorch GPT with scaled_dot_product_attention, torch {torch.__version__}, 1 thread"
    return bench_row("training_step", 1e3 * ours, "ms", peer, 1e3 * theirs, lower_is_better=True, goal=STEP_GOAL)


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
