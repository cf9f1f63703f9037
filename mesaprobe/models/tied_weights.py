"""Blocks that share one block's weights (looped networks), with hook points of their own in every loop.

Only the first block's weights are listed among the parameters and written to files, so that a file of a looped
network holds each weight once and fits any number of loops.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def tie(owner: nn.Module, blocks: nn.ModuleList, name: str) -> None:
    """Make all blocks hold the first one's parameters; `name` is the list's name in `owner`.

    >>> layers = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(3, 3) for _ in range(4))})
    >>> tie(layers, layers["blocks"], "blocks")
    >>> len(list(layers.parameters())), sorted(layers.state_dict())
    (2, ['blocks.0.bias', 'blocks.0.weight'])
    """
    shared = dict(blocks[0].named_parameters())
    for block in blocks[1:]:
        for path in [path for path, _ in block.named_parameters()]:
            module, _, attribute = path.rpartition(".")
            setattr(block.get_submodule(module), attribute, shared[path])
    copies = {f"{name}.{loop}.{path}": f"{name}.0.{path}" for loop in range(1, len(blocks)) for path in shared}

    def leave_out(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:  # noqa: ARG001
        for copy in copies:
            state.pop(prefix + copy, None)

    def put_in(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *others: Any) -> None:  # noqa: ARG001
        assert isinstance(state, dict)
        for copy, original in copies.items():
            if prefix + original in state:
                state.setdefault(prefix + copy, state[prefix + original])

    owner.register_state_dict_post_hook(leave_out)
    owner.register_load_state_dict_pre_hook(put_in)
