"""The error table: every member judged as if its family had never been seen (method.md sections 6.4 and 7.6).

The published rates leave a whole family out of the fit, of the conformal sets and of the gates, and its algorithms
out of the library, of the rules that count as heuristics, of every filter and null when the member is measured
(amendment 2). The easier rate, which leaves the algorithms in, stands beside it. The other members' figures are those
of the whole library in both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from mesaprobe.verdict.benchmarks import benchmarks, cuts, without_each
from mesaprobe.verdict.calibration import MIN_PER_CLASS, Calibration, count_families, fits
from mesaprobe.verdict.likelihood import log_likelihood_cost
from mesaprobe.verdict.rule import MIN_FAMILIES, Judgement, judge
from mesaprobe.verdict.vector import family_weights
from mesaprobe.zoo.records import Record


@dataclass(frozen=True)
class Judged:
    """One member with the verdict that the rest of the zoo gives it."""

    record: Record
    judgement: Judgement


def error_table(records: Sequence[Record], *, seed: int = 0) -> dict[str, Any]:
    """All rates of one zoo as plain values; raises ValueError with fewer than three families a class.

    `auroc` and the benchmarks weigh families equally and score every family by a fit to the others.
    """
    fitted = [record for record in records if fits(record)]
    if min(count_families(fitted)) <= MIN_PER_CLASS:
        raise ValueError(f"error rates need {MIN_PER_CLASS + 1} families a class, got {count_families(fitted)}")
    zoo = Calibration.fit(fitted)
    without = {family: zoo.without(family) for family in sorted({record.family for record in fitted})}
    judged = [_judged(without[record.family], record) for record in fitted]
    others = [record for record in records if not fits(record) and record.role != "sanity"]
    attacked = [_judged(without.get(record.family, zoo), record) for record in others]
    hidden = [record for record in fitted if record.sealed]
    rivals = benchmarks(fitted, zoo, np.random.default_rng(seed))
    return {
        "auroc": rivals["full"]["auroc"],
        "auroc_ci": rivals["full"]["ci"],
        **_rates(judged),
        "decoys_called_search": _count(attacked, "decoy", lambda j: j.label == "SEARCH"),
        "decoys_leaning_search": _count(attacked, "decoy", lambda j: j.leaning == "search"),
        "camouflage_called_heuristic": _count(attacked, "search", lambda j: j.label == "HEURISTIC"),
        "camouflage_leaning_heuristic": _count(attacked, "search", lambda j: j.leaning == "heuristic"),
        "bounds": _bounds(judged),
        "sealed": _sealed(_judge_sealed(fitted, hidden)),
        "families": {
            "search": count_families(fitted)[0],
            "heuristic": count_families(fitted)[1],
            "asked": MIN_FAMILIES,
            "each": _by_family(judged),
        },
        "cllr": list(_cost(judged)),
        "log10_lr_bounds": [zoo.likelihood.low, zoo.likelihood.high],
        "benchmarks": rivals,
        "leave_one_line_out": without_each(fitted),
        "cuts": cuts(fitted, zoo),
        "members": [_row(each) for each in [*judged, *attacked]],
        "left_out": "a family; its algorithms are not known when it is measured",
    }


def _judged(rest: Calibration, record: Record) -> Judged:
    return Judged(record, judge(record.as_unknown, rest, min_families=MIN_FAMILIES - 1))


def _cost(judged: Sequence[Judged]) -> tuple[float, float]:
    """Cllr of the capped ratios that members get from a zoo without their family, and its minimum."""
    records = [each.record for each in judged]
    ratios = np.array([each.judgement.log10_lr for each in judged], dtype=float)
    return log_likelihood_cost(ratios, np.array([r.search for r in records]), family_weights(records))


def _rates(judged: Sequence[Judged]) -> dict[str, float]:
    """Shares of models; a leaning is counted where no word was earned."""

    def share(of: Iterable[Judged], holds: Callable[[Judgement], bool]) -> float:
        found = [holds(each.judgement) for each in of]
        return float(np.mean(found)) if found else float("nan")

    searchers = [each for each in judged if each.record.search]
    heuristics = [each for each in judged if not each.record.search]
    return {
        "false_search": share(heuristics, lambda j: j.label == "SEARCH"),
        "false_heuristic": share(searchers, lambda j: j.label == "HEURISTIC"),
        "inconclusive": share(judged, lambda j: j.label == "INCONCLUSIVE"),
        "false_leaning_search": share(heuristics, lambda j: j.label == "SEARCH" or j.leaning == "search"),
        "false_leaning_heuristic": share(searchers, lambda j: j.label == "HEURISTIC" or j.leaning == "heuristic"),
        "right_leaning": float(np.mean([_leans_right(each) for each in judged])) if judged else float("nan"),
    }


def _leans_right(each: Judged) -> bool:
    return each.judgement.leaning == ("search" if each.record.search else "heuristic")


def _bounds(judged: Sequence[Judged]) -> dict[str, Any]:
    """Exact upper 95 % bounds (Clopper and Pearson), over models and over families."""
    searchers = [each for each in judged if each.record.search]
    heuristics = [each for each in judged if not each.record.search]
    return {
        "false_search": _bound(heuristics, lambda j: j.label == "SEARCH"),
        "false_heuristic": _bound(searchers, lambda j: j.label == "HEURISTIC"),
        "false_leaning_search": _bound(heuristics, lambda j: j.label == "SEARCH" or j.leaning == "search"),
        "false_leaning_heuristic": _bound(searchers, lambda j: j.label == "HEURISTIC" or j.leaning == "heuristic"),
    }


def _bound(judged: Sequence[Judged], wrong: Callable[[Judgement], bool]) -> dict[str, float]:
    families = {each.record.family for each in judged}
    bad = {each.record.family for each in judged if wrong(each.judgement)}
    return {
        "models": upper_bound(sum(wrong(each.judgement) for each in judged), len(judged)),
        "families": upper_bound(len(bad), len(families)),
    }


def upper_bound(errors: int, trials: int) -> float:
    """One-sided exact upper 95 % bound of a rate.

    >>> round(upper_bound(0, 10), 3), upper_bound(3, 3)
    (0.259, 1.0)
    """
    return 1.0 if errors >= trials else float(beta.ppf(0.95, errors + 1, trials - errors))


def _count(judged: Sequence[Judged], role: str, holds: Callable[[Judgement], bool]) -> dict[str, int]:
    """Among disguised members or decoys."""
    of_role = [each for each in judged if each.record.role == role]
    return {"members": len(of_role), "count": sum(holds(each.judgement) for each in of_role)}


def _judge_sealed(fitted: Sequence[Record], hidden: Sequence[Record]) -> list[Judged]:
    """The sealed members' verdicts by the open families alone."""
    still_open = [record for record in fitted if not record.sealed]
    if not hidden or min(count_families(still_open)) < MIN_PER_CLASS:
        return []
    zoo = Calibration.fit(still_open)
    return [
        Judged(record, judge(record.as_unknown, zoo, min_families=min(count_families(still_open)))) for record in hidden
    ]


def _sealed(judged: Sequence[Judged]) -> dict[str, Any]:
    """Rates of the families on which no line was developed, judged by the open ones; None where there are none."""
    rates = _rates(judged) if judged else {}
    return {
        "families": sorted({each.record.family for each in judged}),
        **{name: None if np.isnan(rate) else rate for name, rate in rates.items()},
        "members": [_row(each) for each in judged],
    }


def _by_family(judged: Sequence[Judged]) -> dict[str, Mapping[str, Any]]:
    table: dict[str, Mapping[str, Any]] = {}
    for family in sorted({each.record.family for each in judged}):
        mine = [each for each in judged if each.record.family == family]
        scores = [each.judgement.score for each in mine if each.judgement.score is not None]
        table[family] = {
            "class": "search" if mine[0].record.search else "heuristic",
            "members": len(mine),
            "score": float(np.mean(scores)),
            "labels": _tally(each.judgement.label for each in mine),
            "leanings": _tally(each.judgement.leaning or "none" for each in mine),
            "reasons": _tally(each.judgement.reason or "none" for each in mine),
        }
    return table


def _tally(words: Iterable[str]) -> dict[str, int]:
    found = list(words)
    return {word: found.count(word) for word in sorted(set(found))}


def _row(each: Judged) -> dict[str, Any]:
    record, found = each.record, each.judgement
    return {
        "name": record.name,
        "family": record.family,
        "class": record.role,
        "sealed": record.sealed,
        "disguise": record.disguise,
        "score": found.score,
        "label": found.label,
        "leaning": found.leaning,
        "reason": found.reason,
        "p_heuristic": found.p_heuristic,
        "p_search": found.p_search,
        "log10_lr": found.log10_lr,
        "failed_gates": [gate.id for gate in found.gates if gate.passed is not True],
    }
