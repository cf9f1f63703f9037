"""Attribution patching: a linear guess at every patch from one backward pass. A screen, never a result."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.stats import spearmanr
from torch import Tensor

from mesaprobe.instruments.patching.cells import Cell, cell_masks
from mesaprobe.instruments.patching.effects import Answers, logit_difference
from mesaprobe.instruments.patching.interventions import ABLATIONS
from mesaprobe.instruments.patching.runs import ROWS, Run, Tail
from mesaprobe.instruments.patching.sweep import patched_logits
from mesaprobe.models.subject import Edit, Subject


@dataclass(frozen=True, eq=False)
class Screen:
    """Guessed effects of all cells, and the exact ones of those that were checked."""

    cells: tuple[Cell, ...]
    guessed: Float64[np.ndarray, "cell batch"]
    """Gradient times difference, in units of the logit difference."""
    checked: Int64[np.ndarray, " checked"]
    """Which cells were patched: those with the largest guesses, then others drawn at random."""
    exact: Float64[np.ndarray, "checked batch"]
    """LD under the patch minus LD without."""

    @property
    def agreement(self) -> float:
        """Spearman correlation of guessed and exact mean effects over the checked cells."""
        return float(spearmanr(self.guessed[self.checked].mean(axis=1), self.exact.mean(axis=1)).statistic)


def attribution_screen(
    subject: Subject,
    base: Run,
    source: Run,
    cells: Sequence[Cell],
    answers: Answers,
    *,
    keep: int,
    rng: np.random.Generator,
    ablation: str = "resample",
) -> Screen:
    """Guess the effect of every cell, then patch the `keep` with the largest mean guess and as many drawn others.

    The others show what the screen misses: where a softmax or a norm is saturated its gradient is flat, and a
    strong cell gets no guess (Syed et al. 2023; Kramar et al. 2024).
    """
    guessed = attributions(subject, base, source, cells, answers, ablation=ablation)
    order = np.argsort(-np.abs(guessed.mean(axis=1)), kind="stable")
    others = rng.permutation(order[keep:])[:keep]
    checked = np.concatenate([order[:keep], others]).astype(np.int64)
    found = patched_logits(subject, base, source, [cells[i] for i in checked], ablation=ablation)
    after, before = (logit_difference(logits, *answers) for logits in (found.patched, found.base))
    return Screen(tuple(cells), guessed, checked, (after - before).double().numpy())


def attributions(
    subject: Subject, base: Run, source: Run, cells: Sequence[Cell], answers: Answers, *, ablation: str = "resample"
) -> Float64[np.ndarray, "cell batch"]:
    """Sum over each cell's entries of d LD / d activation x (written - own), at the base run (Nanda 2023).

    LD = logit(wanted) - logit(original). Needs a subject whose module can be reached (UserError otherwise).
    """
    hooks = list(dict.fromkeys(cell.hook for cell in cells))
    seen = subject.activations(source.features, source.prefixes[:, : source.length], hooks)
    written = {hook: ABLATIONS[ablation](activation) for hook, activation in seen.items()}
    tail, found = Tail(subject, base, hooks), np.zeros((len(cells), len(base)))
    for rows in torch.arange(len(base)).split(ROWS):
        own: dict[str, Tensor] = {}
        leaves: dict[str, Tensor] = {}

        def watch(name: str, own: dict[str, Tensor] = own, leaves: dict[str, Tensor] = leaves) -> Edit:
            def edit(activation: Tensor, hook: object) -> Tensor:  # noqa: ARG001
                own[name], leaves[name] = activation.detach(), torch.zeros_like(activation, requires_grad=True)
                return activation + leaves[name]

            return edit

        with tail.module.hooks(fwd_hooks=[(name, watch(name)) for name in hooks]):
            logits = tail(rows)
        wanted, original = (answer[rows].to(logits.device) for answer in answers)
        total = logit_difference(logits, wanted, original).sum()
        slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for name, slope in zip(leaves, slopes, strict=True):
            if slope is None:  # nothing behind this hook reaches the answer
                continue
            other = written[name] if len(written[name]) == 1 else written[name][rows]
            guess = slope * (other - own[name])
            for index, cell in enumerate(cells):
                if cell.hook == name:
                    mask = cell_masks([cell], guess.shape)[0]
                    mask = mask if len(mask) == 1 else mask[rows]
                    found[index, rows.numpy()] = (guess * mask.to(guess.device)).flatten(1).sum(1).double().cpu()
    return found
