"""Run the lines of evidence over the certified zoo: parallel, resumable, line by line (method.md section 6)."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mesaprobe.decoding import greedy_rollout
from mesaprobe.evidence import LINES, draw_set, line_hash
from mesaprobe.labels import optimality_gaps
from mesaprobe.models.subject import ModuleSubject, Subject
from mesaprobe.problems import random_tours
from mesaprobe.solvers.exact.held_karp import held_karp
from mesaprobe.solvers.known_rules import leaving_out
from mesaprobe.statistics.bootstrap import bootstrap_mean
from mesaprobe.zoo import store
from mesaprobe.zoo.build import Outcome, each_member
from mesaprobe.zoo.members import OWN_ALGORITHMS, Member
from mesaprobe.zoo.records import LineFigure, Performance, Record, Shape, read_record, write_record

SEED = 1
"""Seed of the calibration: its instances are not those of an analysis with the default seed."""
INSTANCES = 1000
"""For the performance of a member."""


@dataclass(frozen=True)
class _Job:
    budget: str
    lines: tuple[str, ...]
    folder: Path

    def __call__(self, zoo: Path, member: Member) -> Outcome:
        return _calibrate_one(zoo, member, self)


def calibrate(
    zoo: Path, members: Sequence[Member], processes: int, *, budget: str, lines: Sequence[str], folder: Path
) -> Iterator[Outcome]:
    """Measure `lines` on the members that are certified; yields one outcome per member as each is done.

    Every line is measured twice where the library of algorithms holds the member's own: once as it is, and once
    without it (what the line does not ask for is not measured again). What a stored record already holds under the
    present protocol and weights is kept; each line is stored as soon as it is measured, so that an interrupted run
    goes on where it stopped. Members without a passed certificate are left out, except sanity members.
    """
    for line in lines:
        LINES[line]
    yield from each_member(_Job(budget, tuple(lines), folder), zoo, members, processes)


def _calibrate_one(zoo: Path, member: Member, job: _Job) -> Outcome:
    certificate = store.read_certificate(zoo, member)
    if certificate is None or not (certificate.passed or member.role == "sanity"):
        return Outcome(member.name, "left out: no passed certificate")
    subject = store.load_member(zoo, member)
    path = job.folder / job.budget / f"{member.name}.json"
    record = _known(path, subject) or _begin(subject, member, certificate.kind)
    measured = 0
    own = OWN_ALGORITHMS.get(member.family, ())
    record = dataclasses.replace(record, own_algorithms=own)
    for line, unaided in itertools.product(job.lines, (False, True) if own else (False,)):
        with leaving_out(own if unaided else ()):
            wanted = line_hash(line, job.budget)
            held = [figures.get(line) for figures in (record.unaided, record.lines)]
            known = next((figure for figure in held if figure is not None and figure.line_hash == wanted), None)
            try:
                figure = known or measure(subject, line, job.budget, SEED)
            except Exception as error:  # one line that breaks on one network must not cost the others their hours
                return Outcome(member.name, f"line {line} broke: {type(error).__name__}: {error}", failed=True)
        record = with_line(record, line, figure, unaided=unaided)
        if known is None:
            write_record(job.folder, job.budget, record)
            measured += 1
    write_record(job.folder, job.budget, record)
    return Outcome(member.name, f"{measured} figures measured, the others already there")


def measure(subject: Subject, line: str, budget: str, seed: int) -> LineFigure:
    """One line on one network, as it is stored."""
    found = LINES[line](subject, budget, seed)
    low, high = found.ci or (None, None)
    return LineFigure(found.status, found.value, low, high, found.p, line_hash(line, budget), found.seconds)


def with_line(record: Record, line: str, figure: LineFigure, *, unaided: bool = False) -> Record:
    """The record with one figure more."""
    if unaided:
        return dataclasses.replace(record, unaided={**record.unaided, line: figure})
    return dataclasses.replace(record, lines={**record.lines, line: figure})


def shape_of(subject: Subject) -> Shape:
    """Class, normalisation and size of a network."""
    if isinstance(subject, ModuleSubject):
        cfg = getattr(subject.module, "cfg", None)
        norm = getattr(cfg, "normalization_type", None) or "no norm"
        kind = f"{type(subject.module).__name__}, {norm}"
    else:
        kind = type(subject).__name__
    layers = subject.description.get("layers")
    return Shape(kind, layers, int(subject.description.get("parameters") or 0))


def _known(path: Path, subject: Subject) -> Record | None:
    if not path.is_file():
        return None
    record = read_record(path)
    return record if record.weights_hash == subject.weights_hash and record.seed == SEED else None


def _begin(subject: Subject, member: Member, certificate: str) -> Record:
    return Record(
        name=member.name,
        family=member.family,
        role=member.role,
        degree=member.degree,
        disguise=member.disguise,
        sealed=member.sealed,
        certificate=certificate,
        problem=subject.problem.config.family,
        n=subject.problem.n,
        weights_hash=subject.weights_hash,
        seed=SEED,
        shape=shape_of(subject),
        performance=_performance(subject),
        lines={},
    )


def _performance(subject: Subject) -> Performance:
    instances = draw_set(subject.problem, "behaviour", INSTANCES, SEED)
    rng = np.random.default_rng([SEED, 4])
    rollout = greedy_rollout(subject, torch.from_numpy(instances.features))
    best = instances.tour_costs(held_karp(instances.weights).tours)
    gaps = optimality_gaps(instances, rollout.tours.numpy(), best)
    random = optimality_gaps(instances, random_tours(INSTANCES, subject.problem.n, rng), best)
    gap, random_gap = bootstrap_mean(gaps, rng), bootstrap_mean(random, rng)
    return Performance(
        legal_fraction=float(rollout.legal.float().mean()),
        gap=(gap.value, *gap.ci),
        random_gap=(random_gap.value, *random_gap.ci),
        optimal_fraction=float((gaps <= 1e-12).mean()),
    )
