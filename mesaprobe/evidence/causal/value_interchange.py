"""E7a: does a low-dimensional subspace carry the value that decides? (method.md section 5)

A subspace is learned (linear DAS, Geiger et al. 2024) whose interchange, from a source on which the search changes its
mind and no heuristic does, makes the network choose what the search then chooses (y*). Its accuracy is held against
what the same procedure reaches where there is nothing to find: the best heuristic as the high-level model, on pairs
where that one predicts a change; arbitrary labels; a network with random weights; random subspaces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mesaprobe.evidence.causal.flips import Flips
from mesaprobe.instruments.activations import Site, residual_sites
from mesaprobe.instruments.interchange import (
    Interchange,
    check_dormancy,
    downstream_row_space,
    interchange_accuracy,
    learn_subspace,
    random_subspaces,
)
from mesaprobe.instruments.patching.effects import logit_difference
from mesaprobe.models.subject import Subject
from mesaprobe.statistics import resampled_counts, sign_flip_p

ROW_SPACE_STATES = 48
"""States on which the directions are found that the logits read."""
CLOSE = 0.05
"""Sites this close in accuracy count as equally good."""


@dataclass(frozen=True)
class SubspaceSearch:
    """How a subspace is looked for: the same for the subject's claim and for every baseline."""

    sites: int
    """So many candidate sites at most, those where exchanging the whole site does most on the probe pairs."""
    dimensions: tuple[int, ...]
    epochs: int
    batch: int = 32
    learning_rate: float = 0.03
    validation: float = 0.25
    """Share of the probe pairs that choose site and dimension and train nothing."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """What a search for a subspace found."""

    site: Site
    basis: Tensor
    validation: float
    """Accuracy on the probe pairs that trained nothing."""


@dataclass(frozen=True, eq=False)
class ValueInterchange:
    """Interchange accuracies on the test pairs; 1 where the network then chose what was predicted."""

    aligned: Aligned
    search: Float64[np.ndarray, " pair"]
    paired: dict[str, Float64[np.ndarray, " pair"]]
    """Baselines on the same pairs."""
    rival: Float64[np.ndarray, " other"]
    """The best heuristic's, on pairs of its own."""
    details: dict[str, Any]

    @property
    def baselines(self) -> dict[str, float]:
        """Mean accuracy of every baseline."""
        own = {name: float(values.mean()) for name, values in self.paired.items()}
        return own | {"rival heuristic": float(self.rival.mean()) if len(self.rival) else 0.0}

    @property
    def value(self) -> float:
        """E7a = accuracy of the search less that of the strongest baseline."""
        return float(self.search.mean()) - max(self.baselines.values())

    def draws(self, rng: np.random.Generator, resamples: int) -> Float64[np.ndarray, " draw"]:
        """E7a on resampled instances."""
        weights = resampled_counts(len(self.search), rng, resamples) / len(self.search)
        others = [weights @ values for values in self.paired.values()]
        if len(self.rival):
            others.append(resampled_counts(len(self.rival), rng, resamples) @ self.rival / len(self.rival))
        return weights @ self.search - np.max(others, axis=0)

    def p(self, rng: np.random.Generator, flips: int) -> float:
        """The largest p-value over the baselines: a claim above every one of them needs no correction (Berger 1982).

        Sign flips by pair; against the rival, whose pairs are others, a permutation of the two groups.
        """
        found = [sign_flip_p(self.search - values, rng, flips=flips) for values in self.paired.values()]
        if len(self.rival):
            found.append(_permutation_p(self.search, self.rival, rng, flips))
        return max(found)


def candidate_sites(subject: Subject) -> list[Site]:
    """The residual stream at the answering token, behind every part of the network but its last.

    That is behind every layer but the last, and in the last one behind its attention: what follows still computes.
    Behind the last layer the stream is the output. (A city's own token can't be a site here: to take that of y* would
    tell the procedure the answer, and an untrained network then reaches a fifth of the labels.) Networks without such
    hooks have the sites that they have.
    """
    sites = residual_sites(subject, roles=("decode",))
    last = max((site.layer for site in sites), default=0)
    inner = [site for site in sites if site.kind == "resid_post" and site.layer < last]
    middle = f"blocks.{last}.hook_resid_mid"
    if middle in subject.hook_names:
        inner.append(Site(middle, "decode", last, "resid_mid"))
    return inner or sites


def value_interchange(
    subject: Subject,
    probe: Flips,
    test: Flips,
    rivals: tuple[Flips, Flips],
    search: SubspaceSearch,
    randoms: int,
    seed: int,
) -> ValueInterchange:
    """Learn on the probe pairs, measure on the test pairs; `rivals` are the best heuristic's probe and test pairs."""
    n, rng = subject.problem.n, np.random.default_rng([seed, 710])
    sites = best_sites(subject, probe, search.sites)
    aligned = align(subject, probe, torch.from_numpy(probe.new), sites, search, seed)
    labels = torch.from_numpy(test.new)
    own = accuracy(subject, test, aligned, labels)
    control = [arbitrary_labels(part, n) for part in (probe, test)]
    fitted = align(subject, probe, control[0], sites, search, seed + 1)
    twin = subject.random_twin(seed + 1)
    blind = align(twin, probe, torch.from_numpy(probe.new), sites, search, seed + 2)
    pairs = at_site(subject, test, aligned.site)
    d, k = aligned.basis.shape
    generator = torch.Generator().manual_seed(seed + 3)
    drawn = np.stack(
        [interchange_accuracy(pairs.logits(basis), labels) for basis in random_subspaces(d, k, randoms, generator)]
    )
    order = np.argsort(drawn.mean(axis=1), kind="stable")
    upper = drawn[order[min(int(np.ceil(0.95 * randoms)), randoms) - 1]]
    rival = np.empty(0)
    if min(map(len, rivals)) >= 8:
        theirs = align(subject, rivals[0], torch.from_numpy(rivals[0].new), sites, search, seed + 4)
        rival = accuracy(subject, rivals[1], theirs, torch.from_numpy(rivals[1].new))
    logits = run_logits(subject, test.runs[1])
    answers = labels, torch.from_numpy(test.old)
    available = logit_difference(logits, *answers) - logit_difference(pairs.base_logits(), *answers)
    whole = interchange_accuracy(pairs.logits(), labels)
    dormancy: dict[str, Any] = {"dormant": bool(own.mean() > whole.mean())}
    if float(available.sum()) > 0:
        space = downstream_row_space(subject, probe[:ROW_SPACE_STATES].runs[0], aligned.site)
        found = check_dormancy(pairs, logits, answers, aligned.basis, space, rng)
        dormancy = {
            "dormant": found.flagged,
            "recovered": found.subspace.value,
            "recovered_ci": list(found.subspace.ci),
            "recovered_whole_site": found.full_site.value,
            "recovered_inside_row_space": found.projected.value,
            "row_space_rank": found.projected_rank,
        }
    return ValueInterchange(
        aligned,
        own,
        {
            "control labels": accuracy(subject, test, fitted, control[1]),
            "random twin": accuracy(twin, test, blind, labels),
            "random subspaces (95 % quantile)": upper,
        },
        rival,
        {
            "site": str(aligned.site),
            "dimension": k,
            "validation_accuracy": aligned.validation,
            "whole_site_accuracy": float(whole.mean()),
            "source_accuracy": float((logits.argmax(dim=1) == labels).double().mean()),
            "test_pairs": len(test),
            "rival_pairs": len(rival),
            **dormancy,
        },
    )


def best_sites(subject: Subject, probe: Flips, count: int, sites: Sequence[Site] | None = None) -> list[Site]:
    """The candidate sites where exchanging everything most often gives y*; the later ones first among those within
    `CLOSE` of the best, since a value is the more compact the nearer it is to the choice."""
    labels = torch.from_numpy(probe.new)
    rates = [
        (float(interchange_accuracy(at_site(subject, probe, site).logits(), labels).mean()), place, site)
        for place, site in enumerate(candidate_sites(subject) if sites is None else sites)
    ]
    best = max(rate for rate, _, _ in rates)
    order = sorted(
        rates, key=lambda rate: (rate[0] < best - CLOSE, 0.0 if rate[0] >= best - CLOSE else -rate[0], -rate[1])
    )
    return [site for _, _, site in order[:count]]


def align(
    subject: Subject, probe: Flips, labels: Tensor, sites: Sequence[Site], search: SubspaceSearch, seed: int
) -> Aligned:
    """The subspace, over sites and dimensions, that is most accurate on the probe pairs it was not trained on.

    Beside each learned subspace stands one that no label enters: the k main directions that the logits read there.
    From a random start gradient descent misses it where the stream is wide and the choice sharp.
    """
    kept = max(1, int(len(probe) * search.validation))
    train, held = probe[kept:], probe[:kept]
    base, source = train.runs
    found = []
    for site in sites:
        read = downstream_row_space(subject, base[torch.arange(min(len(train), ROW_SPACE_STATES))], site)
        for k in search.dimensions:
            learned = learn_subspace(
                subject,
                base,
                source,
                labels[kept:],
                site,
                k,
                seed=seed,
                epochs=search.epochs,
                batch=search.batch,
                learning_rate=search.learning_rate,
            )
            for basis in (learned.basis, read[:, :k]):
                trial = Aligned(site, basis, 0.0)
                rate = float(accuracy(subject, held, trial, labels[:kept]).mean())
                found.append(Aligned(site, basis, rate))
    return max(found, key=lambda one: one.validation)


def at_site(subject: Subject, flips: Flips, site: Site) -> Interchange:
    """The pairs at one site."""
    base, source = flips.runs
    return Interchange.at(subject, base, source, site)


def accuracy(subject: Subject, flips: Flips, aligned: Aligned, labels: Tensor) -> Float64[np.ndarray, " pair"]:
    """1 where the exchange of the subspace makes the network choose the label."""
    return interchange_accuracy(at_site(subject, flips, aligned.site).logits(aligned.basis), labels)


def arbitrary_labels(flips: Flips, n: int) -> Tensor:
    """A city that is neither the base's choice nor y*, by a fixed hash of the source (a control task)."""
    inside = np.arange(n) < flips.lengths[:, None]
    visited = np.zeros((len(flips), n), dtype=np.bool_)
    np.put_along_axis(visited, np.where(inside, flips.prefixes, 0), True, axis=1)
    rows = np.arange(len(flips))
    visited[rows, flips.old] = visited[rows, flips.new] = True
    flat = flips.source.weights.reshape(len(flips), -1).astype(np.uint64)
    powers = np.uint64(1_000_003) ** np.arange(flat.shape[1], dtype=np.uint64)
    keys = (flat * powers).sum(axis=1) >> np.uint64(17)
    free = (~visited).sum(axis=1)
    place = (keys % np.maximum(free, 1).astype(np.uint64)).astype(np.int64)
    order = np.argsort(visited, axis=1, kind="stable")
    return torch.from_numpy(order[rows, place])


def run_logits(subject: Subject, run: Any) -> Tensor:
    """Next-city logits of every state of a run, on the CPU."""
    logits = torch.empty(len(run), subject.problem.n)
    for _, rows, part in run.by_length():
        logits[rows] = subject.next_city_logits(part.features, part.prefixes).float().cpu()
    return logits


def _permutation_p(
    ours: Float64[np.ndarray, " pair"], theirs: Float64[np.ndarray, " other"], rng: np.random.Generator, count: int
) -> float:
    """p-value of mean(ours) > mean(theirs) under exchange of the groups."""
    pooled = np.concatenate([ours, theirs])
    observed = ours.mean() - theirs.mean()
    sums: Int64[np.ndarray, " draw"] = np.array([rng.permutation(pooled)[: len(ours)].sum() for _ in range(count)])
    rest = (pooled.sum() - sums) / len(theirs)
    return (1 + int((sums / len(ours) - rest >= observed - 1e-12).sum())) / (1 + count)
