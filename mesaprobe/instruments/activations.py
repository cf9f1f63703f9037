"""Activations at sites: which hook, and at which token (DESIGN section 2), collected in a stream.

A run's activations are written chunk by chunk to memory or to a memory-mapped file, so that what is held at once
does not grow with the data. They carry the keys of the instances that were run, and can check that labels belong
to the same instances and prefixes: a shifted row is the one error that every probe forgives in silence.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt64
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.files import atomic_path
from mesaprobe.models.subject import Subject

_STREAM = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|attn_out|mlp_out|resid_post)")
_HIDDEN = re.compile(r"blocks\.(\d+)\.mlp\.hook_post")
_HEADS = re.compile(r"blocks\.(\d+)\.attn\.hook_z")

Role = Literal["decode", "city"]


@dataclass(frozen=True)
class Site:
    """A hook point and a position role: `decode` is the token that answers the state, `city` a city's own token."""

    hook: str
    role: Role
    layer: int
    kind: str
    head: int | None = None
    """Which head of a hook `[batch, position, head, d_head]`; None reads all of them, side by side."""

    def __str__(self) -> str:
        head = "" if self.head is None else f" head {self.head}"
        return f"{self.hook}{head} @ {self.role}"


def residual_sites(subject: Subject, roles: Sequence[Role] = ("decode", "city")) -> list[Site]:
    """The sites of residual width: what enters the first layer, then what each layer writes and leaves.

    Empty for a network that has no hook points of these names.
    """
    found = []
    for name in subject.hook_names:
        match = _STREAM.fullmatch(name)
        if match and not (match[2] == "resid_pre" and match[1] != "0"):
            found.append((int(match[1]), match[2], name))
    order = ["resid_pre", "attn_out", "mlp_out", "resid_post"]
    found.sort(key=lambda entry: (entry[0], order.index(entry[1])))
    return [Site(name, role, layer, kind) for role in roles for layer, kind, name in found]


def mlp_sites(subject: Subject, roles: Sequence[Role] = ("decode",)) -> list[Site]:
    """The hidden units of every MLP, after their activation; of width d_mlp."""
    found = [(int(match[1]), name) for name in subject.hook_names if (match := _HIDDEN.fullmatch(name))]
    return [Site(name, role, layer, "mlp_hidden") for role in roles for layer, name in sorted(found)]


def head_sites(subject: Subject, heads: int, roles: Sequence[Role] = ("decode",)) -> list[Site]:
    """The output z of each of the `heads` heads of every layer, before the output weights; of width d_head."""
    found = [(int(match[1]), name) for name in subject.hook_names if (match := _HEADS.fullmatch(name))]
    return [
        Site(name, role, layer, "z", head) for role in roles for layer, name in sorted(found) for head in range(heads)
    ]


def instance_keys(features: Float[Tensor, "batch n f"] | np.ndarray) -> UInt64[np.ndarray, " batch"]:
    """A 64-bit hash of each instance's features: equal keys mean the same instance.

    >>> keys = instance_keys(torch.tensor([[[0.5]], [[0.25]], [[0.5]]]))
    >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
    (True, False)
    """
    rows = np.ascontiguousarray(np.asarray(features, dtype=np.float32))
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of all sites in one array. A column is a state along the tour, or a city's token at one state."""

    sites: tuple[Site, ...]
    values: Float[np.ndarray, "site instance column d"]
    """In memory, or mapped from a file (read it site by site)."""
    keys: UInt64[np.ndarray, " instance"]
    """`instance_keys` of the instances that were run."""
    tours: Int64[np.ndarray, "instance t"]
    """What was run: the state of column c has the prefix `tours[:, : steps[c] + 1]`."""
    steps: Int64[np.ndarray, " column"]
    cities: Int64[np.ndarray, "instance column"] | None
    """Whose token the sites of role `city` read."""

    @property
    def samples(self) -> Float[np.ndarray, "site sample d"]:
        """Instances and columns as one axis, instance by instance: what the probes take."""
        sites, instances, columns, width = self.values.shape
        return self.values.reshape(sites, instances * columns, width)

    @property
    def groups(self) -> Int64[np.ndarray, " sample"]:
        """The instance of every sample."""
        return np.repeat(np.arange(self.values.shape[1]), self.values.shape[2])

    def check_pairing(
        self,
        features: Float[Tensor, "batch n f"] | np.ndarray,
        tours: Int[Tensor, "batch n"] | np.ndarray | None = None,
    ) -> None:
        """Raise ValueError unless row i of these (the labels') instances and tours is row i of the activations."""
        keys = instance_keys(features)
        if keys.shape != self.keys.shape:
            raise ValueError(f"the labels speak of {len(keys)} instances, the activations of {len(self.keys)}")
        wrong = np.flatnonzero(keys != self.keys)
        if len(wrong):
            raise ValueError(
                f"labels and activations are of different instances in {len(wrong)} of {len(keys)} rows, "
                f"first in row {wrong[0]}"
            )
        if tours is not None:
            shown = int(self.steps.max()) + 1
            wrong = np.flatnonzero((np.asarray(tours)[:, :shown] != self.tours[:, :shown]).any(axis=1))
            if len(wrong):
                raise ValueError(f"labels and activations follow different tours, first in row {wrong[0]}")


def collect(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch n"],
    steps: slice,
    sites: Sequence[Site],
    *,
    cities: Int[Tensor, "batch step"] | None = None,
    dtype: type[np.floating] = np.float16,
    file: Path | None = None,
    chunk: int = 256,
) -> Activations:
    """Activations of the states `tours[:, :t + 1]` for every t in `steps`, at sites of equal width.

    At sites of role `city` the token of `cities[b, s]` is read. Networks that answer all states in one pass are
    run once per instance, others once per state. With `file` (a name that ends in .npy) the values go there and
    are mapped read-only, and only one chunk is ever in memory; otherwise the result and one chunk are.
    `float16` keeps three digits and raises UserError where a value would overflow.
    """
    columns = np.arange(tours.shape[1])[steps]
    return _collect(subject, features, tours, columns, cities, sites, dtype, file, chunk)


def collect_city_tokens(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    sites: Sequence[Site],
    *,
    dtype: type[np.floating] = np.float16,
    file: Path | None = None,
    chunk: int = 256,
) -> Activations:
    """Activations of every city's own token at the root state, one column per city; sites of role `city`.

    Where tour tokens are not seen by the instance block (causal and prefix attention) this is all that these
    tokens ever hold. Options are those of `collect`.
    """
    batch, n = features.shape[:2]
    root, cities = torch.zeros(batch, 1, dtype=torch.long), torch.arange(n).expand(batch, n)
    return _collect(subject, features, root, np.zeros(n, dtype=np.int64), cities, sites, dtype, file, chunk)


def collect_activations(
    subject: Subject,
    features: Float[Tensor, "batch n f"],
    tours: Int[Tensor, "batch n"],
    steps: slice,
    cities: Int[Tensor, "batch step"],
    sites: list[Site],
    *,
    chunk: int = 512,
) -> Float[Tensor, "site batch step d_model"]:
    """What `collect` gives, as one float32 tensor on the CPU."""
    found = collect(subject, features, tours, steps, sites, cities=cities, dtype=np.float32, chunk=chunk)
    return torch.from_numpy(found.values)


def _collect(
    subject: Subject,
    features: Tensor,
    tours: Tensor,
    steps: np.ndarray,
    cities: Tensor | None,
    sites: Sequence[Site],
    dtype: type[np.floating],
    file: Path | None,
    chunk: int,
) -> Activations:
    if len(features) == 0 or len(features) != len(tours):
        raise ValueError(f"no instances were given, or not one tour each: {len(features)} and {len(tours)}")
    shape = (len(features), len(steps))
    if cities is None and any(site.role == "city" for site in sites):
        raise ValueError("sites of role city need cities: whose token is to be read")
    if cities is not None and tuple(cities.shape) != shape:
        raise ValueError(f"cities must have shape (batch, step) = {shape}, got {tuple(cities.shape)}")
    blocks = _blocks(subject, features, tours, steps, cities, sites, chunk)
    values = _store(blocks, sites, shape, dtype, file)
    seen = None if cities is None else np.asarray(cities, dtype=np.int64)
    kept = np.asarray(tours, dtype=np.int64)
    return Activations(tuple(sites), values, instance_keys(features), kept, steps.astype(np.int64), seen)


def _blocks(
    subject: Subject,
    features: Tensor,
    tours: Tensor,
    steps: np.ndarray,
    cities: Tensor | None,
    sites: Sequence[Site],
    chunk: int,
) -> Iterator[tuple[slice, Float[np.ndarray, "site rows column d"]]]:
    hooks = list(dict.fromkeys(site.hook for site in sites))
    for start in range(0, len(features), chunk):
        rows = slice(start, min(start + chunk, len(features)))
        columns: list[list[Tensor]] = []
        shown = -1
        for column, step in enumerate(steps.tolist()):
            last = int(steps.max()) if subject.sequential else step
            if last != shown:
                seen, shown = subject.activations(features[rows], tours[rows, : last + 1], hooks), last
            city = None if cities is None else cities[rows, column]
            columns.append([_at_role(subject, seen[site.hook], site, step, city).float().cpu() for site in sites])
        widths = {tensor.shape[1] for tensor in columns[0]}
        if len(widths) > 1:
            raise ValueError(f"sites collected together must be of one width, got {sorted(widths)}")
        yield rows, torch.stack([torch.stack(column) for column in columns], dim=2).numpy()


def _at_role(subject: Subject, seen: Tensor, site: Site, step: int, cities: Tensor | None) -> Float[Tensor, "rows d"]:
    if site.role == "decode":
        picked = seen[:, subject.decode_position(step + 1)]
    else:
        assert cities is not None
        positions = torch.tensor(subject.city_positions)[cities].to(seen.device)
        picked = seen[torch.arange(len(seen), device=seen.device), positions]
    return picked.flatten(1) if site.head is None else picked[:, site.head]


def _store(
    blocks: Iterator[tuple[slice, np.ndarray]],
    sites: Sequence[Site],
    shape: tuple[int, int],
    dtype: type[np.floating],
    file: Path | None,
) -> np.ndarray:
    """All blocks as one array. A file is mapped anew for each block: pages that were written don't pile up."""
    values: np.ndarray | None = None
    with atomic_path(file) if file is not None else contextlib.nullcontext() as partial:
        for index, (rows, block) in enumerate(blocks):
            size = (len(sites), *shape, block.shape[-1])
            if partial is not None:
                mode: Literal["w+", "r+"] = "r+" if index else "w+"
                values = np.lib.format.open_memmap(partial, mode, dtype=dtype, shape=size)
            elif values is None:
                values = np.empty(size, dtype=dtype)
            assert values is not None
            values[:, rows] = _narrowed(block, sites, dtype)
            if partial is not None:
                values = None
    if file is not None:
        return np.load(file, mmap_mode="r")
    assert values is not None
    return values


def _narrowed(block: np.ndarray, sites: Sequence[Site], dtype: type[np.floating]) -> np.ndarray:
    largest = np.abs(block).reshape(len(sites), -1).max(axis=1)
    worst = int(np.argmax(largest))
    if not largest[worst] <= np.finfo(dtype).max:
        raise UserError(
            f"activations at {sites[worst]} reach {largest[worst]:g}, more than {np.dtype(dtype).name} holds: "
            "collect them as float32"
        )
    return block.astype(dtype)
