"""Path patching: what one component says to another, with everything that stands between them held still."""

import re
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from mesaprobe.instruments.patching.cells import Cell, cell_masks, patched
from mesaprobe.instruments.patching.interventions import Intervention, Resample
from mesaprobe.instruments.patching.runs import Run
from mesaprobe.models.subject import Edit, Subject

_PART = re.compile(
    r"blocks\.(\d+)\.(hook_resid_pre|hook_attn_out|attn|ln1|hook_resid_mid|hook_mlp_out|mlp|ln2|hook_resid_post)\b"
)
_ORDER = {"hook_resid_pre": 0, "ln1": 1, "attn": 1, "hook_attn_out": 1, "hook_resid_mid": 2}
_ORDER |= {"ln2": 3, "mlp": 3, "hook_mlp_out": 3, "hook_resid_post": 4}


def path_patched_logits(
    subject: Subject,
    base: Run,
    source: Run,
    sender: Cell,
    receivers: Sequence[Cell],
    intervention: Intervention | None = None,
) -> Float[Tensor, "batch n"]:
    """Next-city logits of the base run when only the direct paths from `sender` to `receivers` carry the patch.

    First the sender is patched while the outputs of every attention and MLP sublayer between it and the last
    receiver keep their base values; what then arrives at each receiver is recorded. In a second run only the
    receivers are patched with it and everything behind them follows (Wang et al. 2022; the MLPs between are held
    still too, as in Goldowsky-Dill et al. 2023). Receivers are cells such as `blocks.2.attn.hook_k` of one head, or
    `hook_resid_post` of the last layer for the path to the logits. Needs hooks named as TransformerLens does.
    """
    replace, inputs = intervention or Resample(), (base.features, base.prefixes[:, : base.length])
    start, ends = pass_order(sender.hook), [pass_order(cell.hook) for cell in receivers]
    if not all(start < end for end in ends):
        raise ValueError(f"the sender {sender} must come before every receiver, got {[str(c) for c in receivers]}")
    writers = [name for name in subject.hook_names if re.fullmatch(r"blocks\.\d+\.hook_(attn|mlp)_out", name)]
    still = [name for name in writers if start < pass_order(name) < max(ends)]
    own = subject.activations(*inputs, [*still, sender.hook])
    other = subject.activations(source.features, source.prefixes[:, : source.length], [sender.hook])[sender.hook]
    arrived: dict[str, Tensor] = {}

    def record(activation: Tensor, hook: object, name: str) -> Tensor:  # noqa: ARG001
        arrived[name] = activation.detach().clone()
        return activation

    edits: dict[str, Edit] = {name: _constant(own[name]) for name in still}
    edits[sender.hook] = _writing([sender], replace(own[sender.hook], other))
    hooks = list(dict.fromkeys(cell.hook for cell in receivers))
    edits |= {name: _named(record, name) for name in hooks}
    subject.edited_logits(*inputs, edits)
    final = {name: _writing([cell for cell in receivers if cell.hook == name], arrived[name]) for name in hooks}
    return subject.edited_logits(*inputs, final).cpu()


def pass_order(hook: str) -> int:
    """A number that grows along the forward pass; all of one sublayer share it. ValueError for other hook names.

    >>> pass_order("blocks.0.attn.hook_z") < pass_order("blocks.0.hook_mlp_out") < pass_order("blocks.1.attn.hook_q")
    True
    """
    match = _PART.match(hook)
    if match is None:
        raise ValueError(f"{hook!r} has no place in the order of the pass; expected a name like blocks.0.hook_mlp_out")
    return 4 * int(match[1]) + _ORDER[match[2]]


def _writing(cells: Sequence[Cell], replacement: Tensor) -> Edit:
    """All the cells of one hook set to their part of the replacement."""

    def edit(activation: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        for cell in cells:
            activation = patched([cell], cell_masks([cell], activation.shape), activation, replacement)[0]
        return activation

    return edit


def _constant(value: Tensor) -> Edit:
    return lambda activation, hook: value  # noqa: ARG005


def _named(record: Edit, name: str) -> Edit:
    return lambda activation, hook: record(activation, hook, name)
