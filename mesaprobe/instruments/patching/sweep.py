"""The patch primitive: next-city logits of a run with each of many cells patched in turn.

In our own networks all cells go through the layers in one batch that grows: a cell joins, as a copy of the unpatched
rows, at the layer in which it is patched, so the layers before it are computed once and the unpatched rows share
every batch with the patched ones. Other subjects run from their inputs, one batch for each hook point.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mesaprobe.instruments.patching.cells import Cell, cell_masks, patched
from mesaprobe.instruments.patching.interventions import ABLATIONS, Intervention, Resample, for_rows
from mesaprobe.instruments.patching.runs import ROWS, Run, module_inputs, resume_layer
from mesaprobe.models.gpt import Block, TourGPT
from mesaprobe.models.subject import Edit, ModuleSubject, Subject


@dataclass(frozen=True, eq=False)
class PatchedLogits:
    """Next-city logits under each patch, and without one, computed in the same batch."""

    patched: Float[Tensor, "cell batch n"]
    base: Float[Tensor, "cell batch n"]


def patched_logits(
    subject: Subject,
    base: Run,
    source: Run,
    cells: Sequence[Cell],
    intervention: Intervention | None = None,
    *,
    ablation: str = "resample",
    rows: int = ROWS,
) -> PatchedLogits:
    """Logits of the base run with each cell in turn set to `intervention(base, written)`, on the CPU.

    `written` is what the named ablation makes of the source run's activations (see ABLATIONS): the source run has
    as many states as the base run, or any number where only their mean counts, and prefixes of the same length.
    The default intervention is `Resample`. At most about `rows` states are run in one pass.

    >>> from mesaprobe.models import GPTConfig, TourGPT, wrap
    >>> from mesaprobe.patching import Cell, Location, Run
    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> subject = wrap(TourGPT(GPTConfig(d_model=8, n_heads=2, d_mlp=8), 6, 6), make_problem(ProblemConfig(n=6)))
    >>> base, source = (Run(torch.rand(3, 6, 6), torch.tensor([[0, 2]] * 3)) for _ in range(2))
    >>> everything = Cell("blocks.0.hook_resid_pre", Location("all tokens", tuple(range(8))))
    >>> logits = patched_logits(subject, base, source, [everything])
    >>> torch.allclose(logits.patched[0], subject.next_city_logits(source.features, source.prefixes), atol=1e-5)
    True
    """
    if base.length != source.length:
        raise ValueError(f"base and source prefixes must have one length, got {base.length} and {source.length}")
    replace, count = intervention or Resample(), len(base)
    seen = subject.activations(source.features, source.prefixes[:, : source.length], list({c.hook: 0 for c in cells}))
    written = {hook: ABLATIONS[ablation](activation) for hook, activation in seen.items()}
    if any(len(activation) not in (1, count) for activation in written.values()):
        raise ValueError(f"the source run has {len(source)} states, the base run {count}")
    found = PatchedLogits(*torch.empty(2, len(cells), count, subject.problem.n).unbind())
    for group in _groups(subject, cells, rows - 1):
        chosen = [cells[i] for i in group]
        step = max(1, rows // (len(group) + 1))
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            local = {h: a if len(a) == 1 else a[part] for h, a in written.items()}
            batch = _Batch(subject, base[part], part, count, local, for_rows(replace, start))
            logits = batch.logits(chosen)
            found.base[group, part] = logits[:1].expand(len(group), -1, -1)
            found.patched[group, part] = logits[1:]
    return found


def _groups(subject: Subject, cells: Sequence[Cell], most: int) -> list[list[int]]:
    """Numbers of the cells that can share a batch, in the order in which the network comes to them."""
    groups: dict[str, list[int]] = {}
    for index, cell in enumerate(cells):
        groups.setdefault("" if resume_layer(subject, cell.hook) is not None else cell.hook, []).append(index)
    ordered = [sorted(group, key=lambda i: _turn(subject, cells[i])) for group in groups.values()]
    return [group[i : i + most] for group in ordered for i in range(0, len(group), most)]


def _turn(subject: Subject, cell: Cell) -> tuple[int, bool]:
    """When a cell joins the batch: its layer, and there whether it is patched inside or on entering."""
    return resume_layer(subject, cell.hook) or 0, not cell.hook.endswith("hook_resid_pre")


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some states of the base run, and what is to be written into them."""

    subject: Subject
    run: Run
    part: slice
    total: int
    written: dict[str, Tensor]
    replace: Intervention

    def logits(self, cells: Sequence[Cell]) -> Float[Tensor, "1+cell batch n"]:
        """Logits without a patch, then under each; the cells come in the order of their layers."""
        with torch.no_grad():
            if resume_layer(self.subject, cells[0].hook) is None:
                logits = self._from_the_inputs(cells)
            else:
                logits = self._growing(cells)
        return logits.float().cpu().unflatten(0, (-1, len(self.run)))

    def _from_the_inputs(self, cells: Sequence[Cell]) -> Float[Tensor, "row n"]:
        copies = len(cells) + 1
        inputs = self.run.features.repeat(copies, 1, 1), self.run.prefixes[:, : self.run.length].repeat(copies, 1)
        return self.subject.edited_logits(*inputs, {cells[0].hook: self._edit(cells, slice(1, copies))})

    def _growing(self, cells: Sequence[Cell]) -> Float[Tensor, "row n"]:
        assert isinstance(self.subject, ModuleSubject)
        assert isinstance(self.subject.module, TourGPT)
        module, count = self.subject.module, len(self.run)
        turns = [_turn(self.subject, cell) for cell in cells]
        answer, last = self.subject.decode_position(self.run.length), len(module.blocks) - 1
        x = module(*module_inputs(self.subject, self.run), stop_at_layer=0)
        for layer in range(last + 1):
            entering = [cell for cell, turn in zip(cells, turns, strict=True) if turn == (layer, False)]
            inside = [i for i, turn in enumerate(turns) if turn == (layer, True)]
            base = x[:count]
            joining = [self._patched(entering, base).flatten(0, 1)] if entering else []
            x = torch.cat([x, *joining, base.repeat(len(inside), 1, 1)])
            edits = []
            for hook in dict.fromkeys(cells[i].hook for i in inside):
                at = [i for i in inside if cells[i].hook == hook]
                edits.append((hook, self._edit([cells[i] for i in at], 1 + torch.tensor(at))))
            with module.hooks(fwd_hooks=list(edits)) if edits else contextlib.nullcontext():
                if layer == last and all("attn" in hook for hook, _ in edits):
                    return _answers(module, x, answer)
                x = module(None, None, resid=x, start_at_layer=layer, stop_at_layer=layer + 1)
        return module.unembed(module.ln_final(x[:, answer]))

    def _edit(self, cells: Sequence[Cell], at: slice | Int[Tensor, " cell"]) -> Edit:
        """An edit that patches each cell in its own copies of the batch; copy 0 is the unpatched base."""

        def edit(activation: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            copies = activation.unflatten(0, (-1, len(self.run))).clone()
            copies[at] = self._patched(cells, copies[0])
            return copies.flatten(0, 1)

        return edit

    def _patched(self, cells: Sequence[Cell], base: Float[Tensor, "batch *d"]) -> Float[Tensor, "cell batch *d"]:
        """What the hook that the cells share is to hold, for each of them."""
        masks = cell_masks(cells, base.shape)
        if masks.shape[1] not in (1, self.total):
            raise ValueError(f"a location is masked for {masks.shape[1]} states, the run has {self.total}")
        masks = (masks if masks.shape[1] == 1 else masks[:, self.part]).to(base.device)
        return patched(cells, masks, base, self.replace(base, self.written[cells[0].hook].expand_as(base)))


def _answers(module: TourGPT, x: Float[Tensor, "row pos d_model"], answer: int) -> Float[Tensor, "row n"]:
    """The last block and the unembedding: attention reads every token, all that follows only the one that answers."""
    block = module.blocks[-1]
    assert isinstance(block, Block)
    mask = module.mask[: x.shape[1], : x.shape[1]]
    x = (x + block.hook_attn_out(block.attn(block.ln1(x), mask)))[:, answer]
    return module.unembed(module.ln_final(x + block.mlp(block.ln2(x))))
