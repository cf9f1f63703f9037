"""How far the answer moves: effects of patches with intervals, and beside them their placebos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.instruments.patching.cells import Cell, axes
from mesaprobe.instruments.patching.interventions import Identity, Intervention, NormMatchedRandom, Resample
from mesaprobe.instruments.patching.placebos import elsewhere
from mesaprobe.instruments.patching.runs import Run
from mesaprobe.instruments.patching.sweep import patched_logits
from mesaprobe.models.subject import Subject
from mesaprobe.statistics.bootstrap import Estimates, bootstrap_ratios

PLACEBOS = ("identity", "random", "elsewhere", "irrelevant")
"""identity: the base's own activation, 0 up to the rounding of rows in one batch (1e-6). random: a random direction
as long as the real difference. elsewhere: the same patch at other tokens of the same role. irrelevant: from another
instance."""

Answers = tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]
"""For every pair the wanted and the original city."""


@dataclass(frozen=True, eq=False)
class PatchEffects:
    """How far each patch moves the answer of the base run towards that of the source run, beside its placebos.

    LD = logit(wanted) - logit(original): the source run's choice against the base run's (Zhang and Nanda 2024).
    """

    cells: tuple[Cell, ...]
    kinds: tuple[str, ...]
    """`effect`, then the placebos."""
    moved: Float64[np.ndarray, "kind cell batch"]
    """LD under the patch minus LD without; NaN where no placebo of the kind exists."""
    available: Float64[np.ndarray, " batch"]
    """LD of the source run minus LD of the base run."""
    direction: str
    ablation: str

    def recovered(self, rng: np.random.Generator, *, resamples: int = 2000) -> Estimates:
        """Fraction recovered, [kind, cell]: sum(moved) / sum(available), with bootstrap intervals over states.

        0 leaves the base run's answer, 1 gives the source run's. One state has no interval (NaN).
        """
        found = bootstrap_ratios(self.moved, self.available, rng, resamples=resamples)
        if len(self.available) > 1:
            return found
        unknown = np.full_like(found.value, np.nan)
        return Estimates(found.value, unknown, unknown, unknown)

    def frame(self, rng: np.random.Generator, *, resamples: int = 2000) -> pd.DataFrame:
        """One row per cell and kind: what was patched, the fraction recovered and its interval."""
        found = self.recovered(rng, resamples=resamples)
        rows = [
            (
                cell.hook,
                cell.head,
                cell.location.label,
                kind,
                *(float(x[k, c]) for x in (found.value, found.low, found.high)),
            )
            for c, cell in enumerate(self.cells)
            for k, kind in enumerate(self.kinds)
        ]
        return pd.DataFrame(rows, columns=["hook", "head", "location", "kind", "recovered", "low", "high"])


def patch_effects(
    subject: Subject,
    clean: Run,
    corrupt: Run,
    cells: Sequence[Cell],
    *,
    seed: int,
    direction: Literal["noising", "denoising"] = "noising",
    ablation: str = "resample",
    intervention: Intervention | None = None,
    answers: Answers | None = None,
    irrelevant: Run | None = None,
    placebos: Sequence[str] = PLACEBOS,
) -> PatchEffects:
    """Effects of patching each cell, on every pair of states, with the placebos named.

    `noising` runs the clean states and writes the corrupt ones' activations into them, which shows what the answer
    needs; `denoising` does the reverse and shows what suffices (Heimersheim and Nanda 2024). `answers` are the
    (wanted, original) cities of each pair, by default what the source and the base run choose; where those agree,
    UserError. `irrelevant` holds as many states as `clean` whose activations should not matter, by default
    instances drawn from the subject's problem. Placebos write the same amount: they take the same ablation and
    the same intervention, except `identity` and `random`. Zero ablation has no `irrelevant` placebo, since it
    writes the same whatever the instance.
    """
    base, source = (clean, corrupt) if direction == "noising" else (corrupt, clean)
    if direction not in ("noising", "denoising"):
        raise UserError(f"direction must be 'noising' or 'denoising', got {direction!r}")
    if unknown := set(placebos) - set(PLACEBOS):
        raise UserError(f"unknown placebos {sorted(unknown)}; known: {', '.join(PLACEBOS)}")
    wanted, original = answers or _choices(subject, base, source)
    replace = intervention or Resample()

    def moved(cells: Sequence[Cell], source: Run, replace: Intervention) -> Float64[np.ndarray, "cell batch"]:
        found = patched_logits(subject, base, source, cells, replace, ablation=ablation)
        after, before = (logit_difference(logits, wanted, original) for logits in (found.patched, found.base))
        return (after - before).double().numpy()

    kinds = [kind for kind in placebos if not (kind == "irrelevant" and ablation == "zero")]
    effects = {"effect": moved(cells, source, replace)}
    for kind in kinds:
        if kind == "identity":
            effects[kind] = moved(cells, source, Identity())
        elif kind == "random":
            effects[kind] = moved(cells, source, NormMatchedRandom(seed))
        elif kind == "irrelevant":
            effects[kind] = moved(cells, _drawn(subject, base, seed) if irrelevant is None else irrelevant, replace)
        else:
            others = _elsewhere(subject, base, cells, seed)
            effects[kind] = np.full((len(cells), len(base)), np.nan)
            if kept := [i for i, cell in enumerate(others) if cell is not None]:
                effects[kind][kept] = moved([c for c in others if c is not None], source, replace)
    ends = [subject.next_city_logits(run.features, run.prefixes[:, : run.length]).cpu() for run in (source, base)]
    available = [logit_difference(logits, wanted, original).double().numpy() for logits in ends]
    return PatchEffects(
        tuple(cells), tuple(effects), np.stack(list(effects.values())), available[0] - available[1], direction, ablation
    )


def logit_difference(
    logits: Float[Tensor, "*cell batch n"], wanted: Int[Tensor, " batch"], original: Int[Tensor, " batch"]
) -> Float[Tensor, "*cell batch"]:
    """logit(wanted) - logit(original) of every state.

    >>> logit_difference(torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([1]), torch.tensor([2])).tolist()
    [2.0]
    """
    rows = torch.arange(logits.shape[-2])
    return logits[..., rows, wanted] - logits[..., rows, original]


def choices(subject: Subject, run: Run) -> Int[Tensor, " batch"]:
    """The most likely unvisited city of every state."""
    chosen = torch.zeros(len(run), dtype=torch.long)
    for _, rows, part in run.by_length():
        logits = subject.next_city_logits(part.features, part.prefixes).cpu()
        chosen[rows] = logits.scatter(1, part.prefixes, -torch.inf).argmax(dim=1)
    return chosen


def _choices(subject: Subject, base: Run, source: Run) -> Answers:
    wanted, original = choices(subject, source), choices(subject, base)
    if same := int((wanted == original).sum()):
        raise UserError(
            f"base and source choose the same city in {same} of {len(base)} pairs, where nothing can be recovered: "
            "leave these out, or give the answers"
        )
    return wanted, original


def _drawn(subject: Subject, base: Run, seed: int) -> Run:
    """As many fresh instances, with the base run's prefixes."""
    instances = subject.problem.draw(len(base), np.random.default_rng([seed, 1]))
    return Run(torch.from_numpy(instances.features), base.prefixes, base.lengths)


def _elsewhere(subject: Subject, base: Run, cells: Sequence[Cell], seed: int) -> list[Cell | None]:
    generator = torch.Generator().manual_seed(seed)
    hook = cells[0].hook
    one = subject.activations(base.features[:1], base.prefixes[:1, : base.length], [hook])[hook]
    sequence = one.shape[2 if axes(hook) == "pattern" else 1]
    return [elsewhere(subject, cell, len(base), base.length, sequence, generator) for cell in cells]
