"""Rows of `mesaprobe zoo list`, and the members as `overlap` compares them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.zoo.catalogue import select
from mesaprobe.zoo.members import ZOO, Member
from mesaprobe.zoo.overlap import Described, Overlap, accuracy_alone, architecture_alone
from mesaprobe.zoo.store import is_built, load_member, read_certificate


def list_rows(zoo: Path, names: Sequence[str] = ("all",)) -> Iterator[dict[str, Any]]:
    """One row per member (DESIGN section 4); a figure that is not known is None."""
    for member in select(names):
        certificate = read_certificate(zoo, member)
        if certificate is None:
            why = "no certificate yet" if is_built(zoo, member) else "not built"
        else:
            why = certificate.why
        yield {
            "name": member.name,
            "family": member.family,
            "class": member.role,
            "degree": member.degree,
            "certified": certificate is not None and certificate.passed,
            "why": why,
            "gap_mean": None if certificate is None else certificate.performance.gap_mean,
            "sealed": member.sealed,
            "disguise": member.disguise,
            "mechanism": member.mechanism,
            "rival": None if certificate is None else certificate.rival,
            "rival_agreement": None if certificate is None else certificate.rival_agreement,
        }


def overlaps(zoo: Path) -> list[Overlap]:
    """What accuracy alone and architecture alone tell of the class, over certified members that are built."""
    described = []
    for name in ZOO:
        member = ZOO[name]
        certificate = read_certificate(zoo, member)
        if member.role not in ("search", "heuristic") or certificate is None or not certificate.passed:
            continue
        if is_built(zoo, member) and member.disguise is None:
            shape = architecture(load_member(zoo, member))
            fraction = certificate.performance.optimal_fraction
            described.append(Described(member.family, member.role == "search", fraction, shape))
    return [accuracy_alone(described), architecture_alone(described)]


def architecture(subject: Subject) -> tuple[float, ...]:
    """Layers, log2 of width, of hidden units, of heads, of parameters; layer norm, SoLU or ReLU (0 or 1 each)."""
    assert isinstance(subject, ModuleSubject)
    cfg: Any = subject.module.cfg
    sizes = [cfg.d_model, cfg.d_mlp, cfg.n_heads, subject.description["parameters"]]
    return (
        float(cfg.n_layers),
        *(float(np.log2(max(size, 1))) for size in sizes),
        float(cfg.normalization_type is not None),
        float(cfg.act_fn in ("solu", "relu")),
    )


def families_certified(zoo: Path) -> dict[str, list[str]]:
    """Families with at least one certified member, per class."""
    found: dict[str, set[str]] = {"search": set(), "heuristic": set()}
    for name in ZOO:
        member: Member = ZOO[name]
        certificate = read_certificate(zoo, member)
        if member.role in found and certificate is not None and certificate.passed:
            found[member.role].add(member.family)
    return {role: sorted(families) for role, families in found.items()}
