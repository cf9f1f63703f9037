"""The verdict of one analysed network, as report.json holds it."""

from mesaprobe.evidence import LineResult, line_hash
from mesaprobe.models.subject import Subject
from mesaprobe.verdict.gates import Gate, gates
from mesaprobe.verdict.rule import Judgement, Verdict, judge, objective_axis
from mesaprobe.verdict.store import Shipped, read_table, shipped_zoo
from mesaprobe.zoo.calibrate import shape_of
from mesaprobe.zoo.records import LineFigure, Performance, Record


def subject_record(
    subject: Subject, performance: Performance, lines: tuple[LineResult, ...], budget: str, seed: int
) -> Record:
    """A network under analysis in the form of the zoo's records."""
    return Record(
        name=subject.name,
        family=subject.name,
        role="subject",
        degree=-1,
        disguise=None,
        sealed=False,
        certificate="none",
        problem=subject.problem.config.family,
        n=subject.problem.n,
        weights_hash=subject.weights_hash,
        seed=seed,
        shape=shape_of(subject),
        performance=performance,
        lines={line.id: _figure(line, budget) for line in lines},
    )


def _figure(line: LineResult, budget: str) -> LineFigure:
    low, high = line.ci or (None, None)
    return LineFigure(line.status, line.value, low, high, line.p, line_hash(line.id, budget), line.seconds)


def decide(record: Record, budget: str, *, shipped: Shipped | None = None) -> tuple[Verdict, tuple[Gate, ...]]:
    """Verdict and gates of a network, by the zoo that ships for its problem and budget (or by `shipped`)."""
    zoo = shipped_zoo(budget, record.problem, record.n) if shipped is None else shipped
    if zoo.calibration is None:
        found = Judgement("INCONCLUSIVE", zoo.problem, None, tuple(gates(record, None)))
        return Verdict("INCONCLUSIVE", zoo.problem, objective=objective_axis(record)), found.gates
    found = judge(record, zoo.calibration)
    likelihood = zoo.calibration.likelihood
    table = read_table(zoo)
    verdict = Verdict(
        label=found.label,
        reason=found.reason,
        leaning=found.leaning,
        objective=objective_axis(record),
        kind=found.kind,
        log10_lr=found.log10_lr,
        log10_lr_cap=max(abs(likelihood.low), abs(likelihood.high)),
        conformal_p_under_heuristic=found.p_heuristic,
        conformal_p_under_search=found.p_search,
        error_rates={key: None if table is None else table[key] for key in ERROR_RATES},
        zoo={"hash": zoo.hash, "members": len(zoo.calibration.records), "families": sum(zoo.calibration.families)},
    )
    return verdict, found.gates


ERROR_RATES = ("false_search", "false_heuristic", "inconclusive", "false_leaning_search", "false_leaning_heuristic")
"""Rates of the error table that stand in every report."""
