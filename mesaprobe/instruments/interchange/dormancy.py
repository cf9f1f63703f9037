"""Dormant pathways: does a subspace work by waking a direction that the network leaves unused?

A direction that combines one the output ignores, which varies with the concept, and one that moves the output but
never varies can carry a patch without carrying the computation (Makelov, Lange and Nanda 2023; see also the reply by
Wu et al. 2024). Two signs: the subspace does more than the whole site, and its effect is gone once the part that
the network behind cannot read is projected out.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.interchange.subspaces import Basis, Interchange, subspace_effect
from mesaprobe.instruments.patching.effects import Answers
from mesaprobe.instruments.patching.runs import ROWS, Run, Tail, read_site, site_positions
from mesaprobe.models.subject import Subject
from mesaprobe.statistics.bootstrap import Estimate, bootstrap_ratio

READ = 0.99
"""Share of the squared gradient that the directions counted as read must hold."""


@dataclass(frozen=True)
class Dormancy:
    """Recovered fractions of one subspace, with 95 % intervals."""

    subspace: Estimate
    full_site: Estimate
    excess: Estimate
    """Subspace minus full site, pair by pair."""
    projected: Estimate
    """The subspace projected on what the network behind the site reads."""
    projected_rank: int
    """Dimensions left after the projection; 0 if nothing was, and then `projected` is 0."""

    @property
    def flagged(self) -> bool:
        """The subspace does more than the whole site: read `projected` before any claim."""
        return self.excess.value > 1e-6


def check_dormancy(
    pairs: Interchange,
    source_logits: Float[Tensor, "batch n"],
    answers: Answers,
    basis: Basis,
    row_space: Basis,
    rng: np.random.Generator,
) -> Dormancy:
    """Compare a subspace with its whole site, and test it again inside `row_space` (see `downstream_row_space`)."""
    inside = project(basis, row_space)
    part = subspace_effect(pairs, source_logits, answers, basis)
    whole = subspace_effect(pairs, source_logits, answers)
    nothing = Estimate(0.0, 0.0, 0.0)
    again = subspace_effect(pairs, source_logits, answers, inside).fraction(rng) if inside.shape[1] else nothing
    excess = bootstrap_ratio(part.moved - whole.moved, whole.available, rng)
    return Dormancy(part.fraction(rng), whole.fraction(rng), excess, again, inside.shape[1])


def downstream_row_space(
    subject: Subject, run: Run, site: Site, *, cities: Int[Tensor, "batch token"] | None = None, share: float = READ
) -> Basis:
    """The directions of a site that the next-city logits depend on: an orthonormal basis [d, r].

    They are the main directions of d logit / d activation over the states of the run and all n logits, as many as
    hold `share` of its squared length. Behind one linear map this is the map's row space; behind more it is what
    is read near these states. Raises UserError for a subject whose module cannot be reached.
    """
    tail, positions = Tail(subject, run, [site.hook]), site_positions(subject, site, run, cities)
    moment: Tensor | float = 0.0
    for rows in torch.arange(len(run)).split(ROWS):
        leaves: list[Tensor] = []

        def watch(activation: Tensor, hook: object, leaves: list[Tensor] = leaves) -> Tensor:  # noqa: ARG001
            leaves.append(torch.zeros_like(activation, requires_grad=True))
            return activation + leaves[0]

        with tail.module.hooks(fwd_hooks=[(site.hook, watch)]):
            logits = tail(rows)
        for city in range(logits.shape[1]):
            (slope,) = torch.autograd.grad(logits[:, city].sum(), leaves, retain_graph=True)
            vectors = read_site(slope, site, positions[rows]).flatten(0, 1).double().cpu()
            moment = moment + vectors.mT @ vectors
    assert isinstance(moment, Tensor)
    values, directions = torch.linalg.eigh(moment)
    values, directions = values.flip(0).clamp(min=0), directions.flip(1)
    held = values.cumsum(0) / values.sum().clamp(min=1e-300)
    return directions[:, : int((held < share).sum()) + 1].float()


def project(basis: Basis, onto: Basis) -> Basis:
    """An orthonormal basis of the subspace's shadow in another; directions that all but vanish there are dropped.

    >>> project(torch.tensor([[0.6], [0.8]]), torch.tensor([[1.0], [0.0]])).abs().tolist()
    [[1.0], [0.0]]
    """
    left, sizes, _ = torch.linalg.svd(onto.mT @ basis, full_matrices=False)
    return onto @ left[:, sizes > 1e-3]
