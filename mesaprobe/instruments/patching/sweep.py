"""The patch primitive: next-city logits of a run with each of many cells patched in turn.

In our own networks all cells go through the layers in one batch that grows: a cell joins, as a copy of the unpatched
rows, at the layer in which it is patched, so the layers before it are computed once and the unpatched rows share
every batch with the patched ones. Of patches of the residual stream only what they can reach is computed (`reach`).
Other subjects run from their inputs, one batch for each hook point.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mesaprobe.instruments.patching.cells import Cell, cell_masks, patched
from mesaprobe.instruments.patching.interventions import ABLATIONS, Intervention, Resample, for_rows
from mesaprobe.instruments.patching.reach import Joining, nobody_looks, reached_logits
from mesaprobe.instruments.patching.runs import ROWS, Run, module_inputs, own_network, resume_layer
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
    ways = _ways(subject, cells)
    together = ablation == "resample" and set(ways.values()) == {"reach"} and len(source) == count
    seen = {} if together else subject.activations(source.features, source.prefixes[:, : source.length], list(ways))
    written = {hook: ABLATIONS[ablation](activation) for hook, activation in seen.items()}
    if any(len(activation) not in (1, count) for activation in written.values()):
        raise ValueError(f"the source run has {len(source)} states, the base run {count}")
    found = PatchedLogits(*torch.empty(2, len(cells), count, subject.problem.n).unbind())
    for way, group in _groups(subject, cells, ways, rows - 1):
        chosen = [cells[i] for i in group]
        step = max(1, rows // (len(group) + 1))
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            local = {h: a if len(a) == 1 else a[part] for h, a in written.items()}
            beside = source[part] if together else None
            batch = _Batch(subject, base[part], part, count, local, beside, for_rows(replace, start))
            logits = batch.logits(chosen, way)
            found.base[group, part] = logits[:1].expand(len(group), -1, -1)
            found.patched[group, part] = logits[1:]
    return found


def _ways(subject: Subject, cells: Sequence[Cell]) -> dict[str, str]:
    """How the cells of each hook are run: "reach", "layers" or, from the inputs and by itself, the hook's own name."""
    hooks, network = dict.fromkeys(cell.hook for cell in cells), own_network(subject)
    stream = "reach" if network is not None and nobody_looks(network) else "layers"

    def way(hook: str) -> str:
        if network is None or hook not in network.hook_dict or resume_layer(subject, hook) is None:
            return hook
        return stream if hook.endswith("hook_resid_pre") else "layers"

    return {hook: way(hook) for hook in hooks}


def _groups(subject: Subject, cells: Sequence[Cell], ways: Mapping[str, str], most: int) -> list[tuple[str, list[int]]]:
    """How to run each batch, and the numbers of its cells in the order in which the network comes to them."""
    groups: dict[str, list[int]] = {}
    for _, at in sorted(_by_layer(subject, cells).items()):
        for index in at:
            groups.setdefault(ways[cells[index].hook], []).append(index)
    return [(way, group[i : i + most]) for way, group in groups.items() for i in range(0, len(group), most)]


def _by_layer(subject: Subject, cells: Sequence[Cell]) -> dict[int, list[int]]:
    """Numbers of the cells of each layer; those that are run from the inputs count as layer 0's."""
    layers = {hook: resume_layer(subject, hook) or 0 for hook in dict.fromkeys(cell.hook for cell in cells)}
    found: dict[int, list[int]] = {}
    for index, cell in enumerate(cells):
        found.setdefault(layers[cell.hook], []).append(index)
    return found


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some states of the base run, and what is to be written into them."""

    subject: Subject
    run: Run
    part: slice
    total: int
    written: dict[str, Tensor]
    source: Run | None
    """The source run's states, where they run in the same batch and their own activations are written."""
    replace: Intervention

    def logits(self, cells: Sequence[Cell], way: str) -> Float[Tensor, "1+cell batch n"]:
        """Logits without a patch, then under each; the cells come in the order of their layers."""
        runs = {"reach": self._reached, "layers": self._growing}
        with torch.no_grad():
            logits = runs.get(way, self._from_the_inputs)(cells)
        return logits.float().cpu().unflatten(0, (-1, len(self.run)))

    def _from_the_inputs(self, cells: Sequence[Cell]) -> Float[Tensor, "row n"]:
        copies = len(cells) + 1
        inputs = self.run.features.repeat(copies, 1, 1), self.run.prefixes[:, : self.run.length].repeat(copies, 1)
        return self.subject.edited_logits(*inputs, {cells[0].hook: self._edit(cells, slice(1, copies))})

    def _reached(self, cells: Sequence[Cell]) -> Float[Tensor, "row n"]:
        network, answer = _own(self.subject), self.subject.decode_position(self.run.length)
        runs = [self.run] if self.source is None else [self.run, self.source]
        streams = [network(*_inputs(self.subject, run), stop_at_layer=0) for run in runs]
        masks, at = self._masks(cells, streams[0]), _by_layer(self.subject, cells)

        def join(layer: int, base: Tensor, *source: Tensor) -> Joining | None:
            if layer not in at:
                return None
            here, mask = [cells[i] for i in at[layer]], masks[at[layer]]
            written = source[0] if source else self.written[here[0].hook].expand_as(base)
            return Joining(
                mask[..., 0].expand(-1, *base.shape[:2]), patched(here, mask, base, self.replace(base, written))
            )

        return reached_logits(network, torch.stack(streams), join, answer)

    def _growing(self, cells: Sequence[Cell]) -> Float[Tensor, "row n"]:
        module, count = _own(self.subject), len(self.run)
        at_layer = _by_layer(self.subject, cells)
        answer, last = self.subject.decode_position(self.run.length), len(module.blocks) - 1
        x = module(*_inputs(self.subject, self.run), stop_at_layer=0)
        for layer in range(last + 1):
            joining = at_layer.get(layer, [])
            x = torch.cat([x, x[:count].repeat(len(joining), 1, 1)])
            edits = []
            for hook in dict.fromkeys(cells[i].hook for i in joining):
                at = [i for i in joining if cells[i].hook == hook]
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
            written = self.written[cells[0].hook].expand_as(copies[0])
            copies[at] = patched(cells, self._masks(cells, copies[0]), copies[0], self.replace(copies[0], written))
            return copies.flatten(0, 1)

        return edit

    def _masks(self, cells: Sequence[Cell], base: Float[Tensor, "batch *d"]) -> Bool[Tensor, "cell #batch *d"]:
        """Where each of the cells, whose hooks have one shape, replaces what its hook holds."""
        masks = cell_masks(cells, base.shape)
        if masks.shape[1] not in (1, self.total):
            raise ValueError(f"a location is masked for {masks.shape[1]} states, the run has {self.total}")
        return (masks if masks.shape[1] == 1 else masks[:, self.part]).to(base.device)


def _own(subject: Subject) -> TourGPT:
    network = own_network(subject)
    assert network is not None
    return network


def _inputs(subject: Subject, run: Run) -> tuple[Tensor, Tensor]:
    assert isinstance(subject, ModuleSubject)
    return module_inputs(subject, run)


def _answers(module: TourGPT, x: Float[Tensor, "row pos d_model"], answer: int) -> Float[Tensor, "row n"]:
    """The last block and the unembedding: attention reads every token, all that follows only the one that answers."""
    block = module.blocks[-1]
    assert isinstance(block, Block)
    mask = module.mask[: x.shape[1], : x.shape[1]]
    x = (x + block.hook_attn_out(block.attn(block.ln1(x), mask)))[:, answer]
    return module.unembed(module.ln_final(x + block.mlp(block.ln2(x))))
