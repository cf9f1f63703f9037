"""How hard an instance is, measured in several ways that do not agree (method.md section 2, hardness covariates)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mesaprobe.labels.near_optimal import near_optimal_counts
from mesaprobe.labels.tiers import instance_tiers
from mesaprobe.problems import Instances
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound_totals

NEAR_PERCENTS = (0, 1, 5)


@dataclass(frozen=True, eq=False)
class InstanceDifficulty:
    """Labels of whole instances. Branch and bound is depth-first, nearest city first, bounded by spanning trees (the
    weak `mst` bound), without a start tour; like the tiers it depends on how equal weights are ordered by index."""

    tiers: Int64[np.ndarray, " batch"]
    """0 to 4 (see `instance_tiers`)."""
    near_optimal: Int64[np.ndarray, "batch percent"]
    """Number of tours within 0, 1 and 5 % of the optimum; on symmetric families a tour and its reverse are one."""
    nodes: Int64[np.ndarray, " batch"]
    """Nodes of branch and bound until the proof."""
    finding_nodes: Int64[np.ndarray, " batch"]
    """Those up to the last new incumbent."""
    backtracks: Int64[np.ndarray, " batch"]
    """How often it took cities back before it went forward again."""
    deepest_backtrack: Int64[np.ndarray, " batch"]
    """Most cities taken back at once."""


def instance_difficulty(instances: Instances) -> InstanceDifficulty:
    """Tiers, nearly optimal tours and the effort of branch and bound; exact, for n <= 20 cities."""
    weights = instances.weights
    search = branch_and_bound_totals(weights)
    return InstanceDifficulty(
        tiers=instance_tiers(instances, search.costs),
        near_optimal=near_optimal_counts(weights, instances.problem.symmetric, NEAR_PERCENTS),
        nodes=search.nodes,
        finding_nodes=search.finding_nodes,
        backtracks=search.backtracks,
        deepest_backtrack=search.deepest_backtrack,
    )
