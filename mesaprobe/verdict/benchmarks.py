"""What the full battery is measured against: simpler detectors, single lines, other cuts (method.md section 7.6)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64
from sklearn.metrics import roc_auc_score

from mesaprobe.verdict.calibration import Calibration
from mesaprobe.verdict.score import held_out_scores
from mesaprobe.verdict.vector import BEHAVIOUR, COMPONENTS, PROBES, component_values, family_weights
from mesaprobe.zoo.overlap import held_out_logistic
from mesaprobe.zoo.records import Record

RESAMPLES = 500


def auroc(records: Sequence[Record], scores: Float64[np.ndarray, " record"]) -> float | None:
    """Families weigh the same; records without a score (NaN) are left out."""
    known = np.isfinite(scores)
    kept = [record for record, k in zip(records, known, strict=True) if k]
    search = np.array([record.search for record in kept], dtype=bool)
    if search.all() or not search.any():
        return None
    return float(roc_auc_score(search, scores[known], sample_weight=family_weights(kept)))


def _resampled(records: Sequence[Record], rng: np.random.Generator) -> list[int]:
    """Families drawn with replacement within each class; a family drawn twice counts twice."""
    chosen: list[int] = []
    for search in (True, False):
        families = sorted({record.family for record in records if record.search is search})
        for family in rng.choice(families, len(families)):
            chosen += [i for i, record in enumerate(records) if record.family == family]
    return chosen


def benchmarks(records: Sequence[Record], zoo: Calibration, rng: np.random.Generator) -> dict[str, Any]:
    """What simpler detectors reach beside the full battery (`full`), each with the 95 % interval of its AUROC and of
    the paired difference, full minus simple, over families. `point_estimates` scores the ranks of the lines' values
    in place of what their intervals leave no doubt of, as the first error table did; `own_algorithm_known` leaves a
    family out of the fit, but not its algorithms out of the lines: the easier rate; `fitted_unknown` also fits to what
    is measured of the other members without theirs."""
    values = component_values([record.as_unknown for record in records])
    singles = {c: auroc(records, values[:, i]) for i, c in enumerate(COMPONENTS)}
    best = max(singles, key=lambda c: singles[c] or 0.0)
    scores: dict[str, np.ndarray] = {
        "full": zoo.held_out,
        "accuracy_only": np.array([record.performance.optimal_fraction for record in records]),
        "architecture_only": _architecture_scores(records),
        "behaviour_only": held_out_scores(records, components=BEHAVIOUR),
        "probe_only": held_out_scores(records, components=PROBES),
        "point_estimates": held_out_scores(records, measure=component_values),
        "own_algorithm_known": held_out_scores(records, unknown=False),
        "fitted_unknown": held_out_scores([record.as_unknown for record in records]),
        "best_single_line": values[:, list(COMPONENTS).index(best)],
    }
    draws = [_resampled(records, rng) for _ in range(RESAMPLES)]
    drawn = {
        name: np.array([auroc([records[i] for i in rows], each[rows]) for rows in draws], dtype=float)
        for name, each in scores.items()
    }
    table: dict[str, Any] = {
        name: {
            "auroc": auroc(records, each),
            "ci": _interval(drawn[name]),
            "difference_ci": None if name == "full" else _interval(drawn["full"] - drawn[name]),
        }
        for name, each in scores.items()
    }
    table["best_single_line"]["line"] = best
    return {**table, "single_lines": singles}


def _interval(values: Float64[np.ndarray, " draw"]) -> list[float] | None:
    known = values[np.isfinite(values)]
    return [float(np.quantile(known, q)) for q in (0.025, 0.975)] if len(known) else None


def _architecture_scores(records: Sequence[Record]) -> np.ndarray:
    """A logistic score on class and size of the network, each family scored by a fit to the others."""
    kinds = sorted({record.shape.kind for record in records})
    shapes = np.array(
        [
            [
                *(float(record.shape.kind == kind) for kind in kinds),
                float(record.shape.layers or 0),
                float(np.log2(max(record.shape.parameters, 1))),
            ]
            for record in records
        ]
    )
    search, families = np.array([r.search for r in records]), np.array([r.family for r in records])
    return held_out_logistic(shapes, search, families)


def without_each(records: Sequence[Record]) -> dict[str, float | None]:
    """AUROC with one component left out."""
    return {
        left_out: auroc(records, held_out_scores(records, components=[c for c in COMPONENTS if c != left_out]))
        for left_out in COMPONENTS
    }


def cuts(records: Sequence[Record], zoo: Calibration) -> dict[str, float | None]:
    """AUROC of the same scores if search began at another degree (method.md section 1): a sensitivity analysis."""
    table = {}
    for name, lowest in (("1|2", 2), ("2|3", 3), ("3|4", 4)):
        moved = [replace(r, role="search" if r.degree >= lowest else "heuristic") for r in records]
        table[name] = auroc(moved, zoo.held_out)
    return table
