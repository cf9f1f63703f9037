"""Which heads bring the planned entry from its tokens to the answer (method.md E9): beside the line, no part of it.

Every head's output at the token that answers is screened by attribution patching from the relevant twin. The heads
with the largest guesses are then patched, and others drawn at random, which show what the screen misses. Whole: the
head's output there is the twin's, which is what the screen guesses. By path: only what the head reads of the entry's
tokens is the twin's, as they enter its layer, and only for the token that answers. The placebo is the same path from
the matched entry's tokens and the irrelevant twin, which was edited as much.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mesaprobe.evidence.causal.future_entries import FutureTokens, run_of, token_mask
from mesaprobe.instruments.patching import (
    Cell,
    Location,
    Run,
    attributions,
    component_cells,
    logit_difference,
    patched_logits,
    path_patched_logits,
)
from mesaprobe.instruments.patching.effects import Answers
from mesaprobe.labels.pairs import CounterfactualPairs
from mesaprobe.models.subject import Subject
from mesaprobe.statistics import Estimate, bootstrap_ratios

HEAD_PAIRS = 32
"""Pairs on which heads are screened and patched."""
TOP_HEADS, DRAWN_HEADS = 4, 2
RESAMPLES = 2000


@dataclass(frozen=True)
class HeadFlow:
    """One head: shifts of the answer from the network's choice towards its rival, in units of |LD|, pooled."""

    layer: int
    head: int
    screened: bool
    """Among the largest guesses; else drawn from the other heads."""
    guessed: Estimate
    whole: Estimate
    path: Estimate
    placebo: Estimate

    @property
    def figures(self) -> dict[str, Estimate]:
        return {"guessed": self.guessed, "whole": self.whole, "path": self.path, "placebo": self.placebo}


@dataclass(frozen=True, eq=False)
class _Group:
    """The pairs of one prefix length."""

    rows: Int64[np.ndarray, " row"]
    base: Run
    twins: tuple[Run, Run]
    """Relevant, irrelevant."""
    entries: tuple[Bool[Tensor, "row pos"], Bool[Tensor, "row pos"]]
    """The tokens of the entries in which each twin differs."""
    answers: Answers
    cells: list[Cell]
    """Every head at the token that answers."""


def head_flows(
    subject: Subject, pairs: CounterfactualPairs, tokens: FutureTokens, rng: np.random.Generator
) -> list[HeadFlow]:
    """Screen all heads and patch the top ones, on at most HEAD_PAIRS of the pairs; top guesses first.

    Raises UserError for a subject without heads, or whose module cannot be reached for gradients.
    """
    some = np.sort(rng.permutation(len(pairs))[:HEAD_PAIRS])
    groups = list(_groups(subject, pairs[some], tokens[some]))
    cells = groups[0].cells
    guessed = np.zeros((len(cells), len(some)))
    for group in groups:
        guessed[:, group.rows] = attributions(subject, group.base, group.twins[0], group.cells, group.answers)
    order = np.argsort(-np.abs(guessed.sum(axis=1)), kind="stable")
    chosen = np.concatenate([order[:TOP_HEADS], rng.permutation(order[TOP_HEADS:])[:DRAWN_HEADS]])
    moved, scale = np.zeros((3, len(chosen), len(some))), np.zeros(len(some))
    for group in groups:
        moved[:, :, group.rows], scale[group.rows] = _patched(subject, group, chosen)
    found = bootstrap_ratios(
        np.concatenate([guessed[None, chosen], moved]), np.maximum(scale, 1e-12), rng, resamples=RESAMPLES
    )
    return [
        HeadFlow(_layer(cells[i]), cells[i].head or 0, place < TOP_HEADS, *(found[kind, place] for kind in range(4)))
        for place, i in enumerate(chosen)
    ]


def _groups(subject: Subject, pairs: CounterfactualPairs, tokens: FutureTokens) -> Iterator[_Group]:
    twins = run_of(pairs.relevant, pairs), run_of(pairs.irrelevant, pairs)
    for length, rows, base in run_of(pairs.base, pairs).by_length():
        at = rows.numpy()
        entries = [token_mask(subject, base, mask[at]) for mask in (tokens.entry, tokens.matched_entry)]
        yield _Group(
            at,
            base,
            (_cut(twins[0], rows, length), _cut(twins[1], rows, length)),
            (entries[0], entries[1]),
            (torch.from_numpy(tokens.rival[at]), torch.from_numpy(tokens.chosen[at])),
            component_cells(subject, "head", [Location("answer", (subject.decode_position(length),))]),
        )


def _patched(
    subject: Subject, group: _Group, chosen: Sequence[int] | Int64[np.ndarray, " head"]
) -> tuple[Float64[np.ndarray, "kind head row"], Float64[np.ndarray, " row"]]:
    """Shifts of every chosen head patched whole, by path and by the placebo's path; |LD| without a patch."""
    cells = [group.cells[i] for i in chosen]
    whole = patched_logits(subject, group.base, group.twins[0], cells)
    by_path = [
        torch.stack(
            [
                path_patched_logits(
                    subject,
                    group.base,
                    twin,
                    Cell(f"blocks.{_layer(cell)}.hook_resid_pre", Location(name, mask)),
                    [cell],
                )
                for cell in cells
            ]
        )
        for name, twin, mask in zip(("entry", "matched entry"), group.twins, group.entries, strict=True)
    ]
    own = subject.next_city_logits(group.base.features, group.base.prefixes).cpu()
    before = logit_difference(own.double(), *group.answers)
    after = [logit_difference(logits.double(), *group.answers) for logits in (whole.patched, *by_path)]
    unpatched = logit_difference(whole.base.double(), *group.answers)
    moved = torch.stack([after[0] - unpatched, *(logits - before for logits in after[1:])])
    return moved.numpy(), before.abs().numpy()


def _layer(cell: Cell) -> int:
    return int(cell.hook.split(".")[1])


def _cut(run: Run, rows: Tensor, length: int) -> Run:
    return Run(run.features[rows], run.prefixes[rows, :length])
