"""Interchange: a linear subspace at a site takes the value that it has in another run, h <- h + R R'(h_src - h).

With the right subspace the network answers as if one variable of a high-level causal model had come from the other
run (Geiger et al. 2021, 2024). No interchange accuracy is evidence on its own: compare random subspaces, control
labels, a network with random weights and the rival model under the same search (method.md section 5, E7).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from transformer_lens.tools.analysis.interchange import SubspaceInterchange

from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.patching.effects import Answers, logit_difference
from mesaprobe.instruments.patching.runs import (
    EditableRun,
    Run,
    read_site,
    site_positions,
    site_vectors,
    write_site,
)
from mesaprobe.models.subject import Edit, Subject
from mesaprobe.statistics.bootstrap import Estimate, bootstrap_ratio

Basis = Float[Tensor, "d k"]
"""Orthonormal columns that span a subspace of a site."""


def swap(
    source: Float[Tensor, "batch token d"],
    site: Site,
    positions: Int[Tensor, "batch token"],
    basis: Basis | None = None,
) -> Edit:
    """The edit that sets a subspace of a site to its value in another run, for `Subject.edited_logits`.

    `source` holds the other run's vectors (`site_vectors`), row by row the partner of the batch; `positions` says
    where they go. Without a basis the whole site is replaced, which is resample patching. Raises ValueError for a
    basis that is not orthonormal or of another width.

    >>> site = Site("blocks.0.hook_resid_pre", "decode", 0, "resid_pre")
    >>> edit = swap(torch.tensor([[[5.0, 7.0]]]), site, torch.tensor([[1]]), torch.tensor([[1.0], [0.0]]))
    >>> edit(torch.zeros(1, 3, 2)).tolist()
    [[[0.0, 0.0], [5.0, 0.0], [0.0, 0.0]]]
    """
    if basis is not None:
        _check(basis, source.shape[-1])

    def edit(activation: Tensor, hook: object = None) -> Tensor:  # noqa: ARG001
        base, other = read_site(activation, site, positions), source.to(activation)
        changed = other if basis is None else SubspaceInterchange(basis)(base, other)
        return write_site(activation, site, positions, changed)

    return edit


@dataclass(frozen=True, eq=False)
class Interchange:
    """Pairs of states at one site: the source states ran once, the base states are swapped as often as asked."""

    site: Site
    positions: Int[Tensor, "batch token"]
    """Where the site stands in the base run."""
    own: Float[Tensor, "batch token d"]
    source: Float[Tensor, "batch token d"]
    base: EditableRun

    @classmethod
    def at(
        cls,
        subject: Subject,
        base: Run,
        source: Run,
        site: Site,
        *,
        cities: Int[Tensor, "batch token"] | None = None,
        source_cities: Int[Tensor, "batch token"] | None = None,
    ) -> "Interchange":
        """Pair row i of the base run with row i of the source run.

        At a site of role `city` the tokens of `cities` are exchanged, with those of `source_cities` (default: the
        same cities). Prefixes of a pair may differ in length.
        """
        if len(base) != len(source):
            raise ValueError(f"an interchange pairs states: got {len(base)} base and {len(source)} source states")
        positions = site_positions(subject, site, base, cities)
        theirs = site_positions(subject, site, source, cities if source_cities is None else source_cities)
        vectors = [site_vectors(subject, run, site, at) for run, at in ((base, positions), (source, theirs))]
        return cls(site, positions, vectors[0], vectors[1], EditableRun(subject, base, [site.hook]))

    def logits(self, basis: Basis | None = None) -> Float[Tensor, "batch n"]:
        """Next-city logits of the base states with the subspace (default: the whole site) taken from the source."""

        def edit(activation: Tensor, rows: Tensor) -> Tensor:
            return swap(self.source[rows], self.site, self.positions[rows], basis)(activation)

        return self.base.logits({self.site.hook: edit})

    def base_logits(self) -> Float[Tensor, "batch n"]:
        """Next-city logits of the base states as they are, computed as under a swap."""
        return self.base.logits({self.site.hook: lambda activation, rows: activation})  # noqa: ARG005


def interchange_logits(
    subject: Subject, base: Run, source: Run, site: Site, basis: Basis | None = None, **cities: Tensor
) -> Float[Tensor, "batch n"]:
    """Next-city logits of the base states with a subspace of a site taken from the source states.

    For many subspaces at one site, or for its options, see `Interchange.at`, which runs the sources once.
    """
    return Interchange.at(subject, base, source, site, **cities).logits(basis)


@dataclass(frozen=True, eq=False)
class Recovery:
    """How far an intervention moved LD = logit(wanted) - logit(original), of how much there was to move."""

    moved: Float64[np.ndarray, " batch"]
    available: Float64[np.ndarray, " batch"]
    """LD of the source run minus LD of the base run."""

    def fraction(self, rng: np.random.Generator) -> Estimate:
        """RF = sum(moved) / sum(available) with its bootstrap interval over pairs: 0 = base, 1 = source."""
        return bootstrap_ratio(self.moved, self.available, rng)


def subspace_effect(
    pairs: Interchange, source_logits: Float[Tensor, "batch n"], answers: Answers, basis: Basis | None = None
) -> Recovery:
    """The recovered fraction of an interchange (method.md section 5, E7), pair by pair.

    `source_logits` are those of the source states, `answers` the wanted (y*) and the original city of each pair.
    """
    after, before, source = (
        logit_difference(logits, *answers).double().numpy()
        for logits in (pairs.logits(basis), pairs.base_logits(), source_logits)
    )
    return Recovery(after - before, source - before)


def interchange_accuracy(
    logits: Float[Tensor, "batch n"], labels: Int[Tensor, " batch"]
) -> Float64[np.ndarray, " batch"]:
    """1 where the edited network's most likely city, of all n, is the counterfactual label; IIA is the mean.

    >>> interchange_accuracy(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), torch.tensor([1, 1])).tolist()
    [1.0, 0.0]
    """
    return (logits.argmax(dim=-1) == labels).double().numpy()


def random_subspaces(d: int, k: int, count: int, generator: torch.Generator) -> Float[Tensor, "count d k"]:
    """Orthonormal bases of `count` subspaces of dimension k, uniformly distributed.

    >>> bases = random_subspaces(8, 3, 5, torch.Generator().manual_seed(0))
    >>> torch.allclose(bases.mT @ bases, torch.eye(3), atol=1e-5)
    True
    """
    if not 1 <= k <= d:
        raise ValueError(f"a subspace of {d} dimensions has dimension 1..{d}, got {k}")
    return torch.linalg.qr(torch.randn(count, d, k, generator=generator)).Q


def _check(basis: Basis, width: int) -> None:
    if basis.ndim != 2 or basis.shape[0] != width:
        raise ValueError(f"the basis must have shape (d, k) = ({width}, k), got {tuple(basis.shape)}")
    if not torch.allclose(basis.mT @ basis, torch.eye(basis.shape[1]).to(basis), atol=1e-4):
        raise ValueError("the basis must be orthonormal: R'R is not the identity")
