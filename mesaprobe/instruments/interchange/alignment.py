"""Distributed alignment search: learn the subspace whose interchange gives the counterfactual answers."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.tools.analysis.interchange import fit_das

from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.patching.runs import Run, Tail, site_positions
from mesaprobe.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Alignment:
    """A learned subspace. Evaluate it on pairs that it was not trained on."""

    site: Site
    basis: Float[Tensor, "d k"]
    """Orthonormal columns."""
    losses: tuple[float, ...]
    """Mean cross-entropy of each epoch."""


def learn_subspace(
    subject: Subject,
    base: Run,
    source: Run,
    labels: Int[Tensor, " batch"],
    site: Site,
    k: int,
    *,
    seed: int,
    cities: Int[Tensor, "batch 1"] | None = None,
    source_cities: Int[Tensor, "batch 1"] | None = None,
    epochs: int = 20,
    batch: int = 128,
    learning_rate: float = 1e-2,
) -> Alignment:
    """Linear DAS: an orthonormal basis [d, k], trained so that the swapped base states choose `labels`.

    `labels[i]` is the city that a high-level causal model names for base i with its variable taken from source i;
    the loss is the cross-entropy of the edited logits over all n cities (Geiger et al. 2024; TransformerLens'
    `fit_das`, Adam, the network frozen). One token is exchanged in each state: the answering one, or that of
    `cities` and `source_cities` (default: the same). Our own networks run from the site's layer on. Control
    labels, a rival's labels and a random twin go through this same function.
    """
    if not len(base) == len(source) == len(labels):
        raise ValueError(f"one label a pair: got {len(base)} base, {len(source)} source states, {len(labels)} labels")
    if site.head is not None:
        raise ValueError(f"a subspace is learned at sites [batch, position, d], not at one head's: {site}")
    ours = site_positions(subject, site, base, cities)
    theirs = site_positions(subject, site, source, cities if source_cities is None else source_cities)
    if ours.shape[1] != 1 or theirs.shape[1] != 1:
        raise ValueError(f"one token is exchanged in each state, got {ours.shape[1]} and {theirs.shape[1]}")
    tail = Tail(subject, Run.concatenate(base, source), [site.hook])
    rows = torch.arange(len(base))
    learned = fit_das(
        tail.module,
        site.hook,
        rows,
        len(base) + rows,
        labels,
        tail,
        rank=k,
        base_positions=ours[:, 0],
        source_positions=theirs[:, 0],
        epochs=epochs,
        batch_size=batch,
        lr=learning_rate,
        seed=seed,
    )
    return Alignment(site, learned.basis.cpu(), learned.losses)
