"""How hard whole instances are, by measures a curriculum can order them by (method.md section 2, hardness covariates).

The nearest-neighbour gap is not among them: it hardly predicts the size of a search tree (Spearman about .04 on
`matrix`), where the number of non-greedy steps does (about .5).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mesaprobe.labels.horizon import lookahead_needs
from mesaprobe.labels.tiers import TIERS, instance_tiers
from mesaprobe.labels.values import MIN_CITIES_LEFT
from mesaprobe.problems import Instances
from mesaprobe.registry import Registry
from mesaprobe.solvers.constructive import nearest_cities
from mesaprobe.solvers.exact.branch_and_bound import branch_and_bound_totals
from mesaprobe.solvers.exact.held_karp import action_values, held_karp


@dataclass(frozen=True)
class HardnessMeasure:
    """A number per instance, larger for harder ones, and levels to count it by."""

    score: Callable[[Instances], Float64[np.ndarray, " batch"]]
    edges: tuple[float, ...]
    """Level k holds scores from edges[k - 1] to below edges[k]."""
    levels: tuple[str, ...]
    """Their names, one more than there are edges."""

    def level(self, scores: Float64[np.ndarray, " batch"]) -> Int64[np.ndarray, " batch"]:
        """The level of each score."""
        return np.searchsorted(self.edges, scores, side="right")


def non_greedy_steps(instances: Instances) -> Float64[np.ndarray, " batch"]:
    """Steps of an optimal tour that do not go to a nearest unvisited city; on symmetric problems in the direction
    that has fewer of them. The last step is forced and does not count."""
    tours = held_karp(instances.weights).tours
    count = _non_greedy(instances, tours)
    if instances.problem.symmetric:
        count = np.minimum(count, _non_greedy(instances, np.concatenate([tours[:, :1], tours[:, :0:-1]], axis=1)))
    return count.astype(np.float64)


def _non_greedy(instances: Instances, tours: Int64[np.ndarray, "batch n"]) -> Int64[np.ndarray, " batch"]:
    nearest = nearest_cities(instances.weights, tours)
    greedy = np.take_along_axis(nearest, tours[:, 1:, None], axis=2)[:, :-1, 0]
    return (~greedy).sum(axis=1)


def _tier(instances: Instances) -> Float64[np.ndarray, " batch"]:
    return instance_tiers(instances, held_karp(instances.weights).costs).astype(np.float64)


def _log_nodes(instances: Instances) -> Float64[np.ndarray, " batch"]:
    """log10 of the nodes of branch and bound under the weak spanning-tree bound."""
    return np.log10(branch_and_bound_totals(instances.weights).nodes)


def _largest_need(instances: Instances) -> Float64[np.ndarray, " batch"]:
    """The largest d* of the decisions along an optimal tour; on symmetric problems from the second step on."""
    tours = held_karp(instances.weights).tours
    steps = slice(1 if instances.problem.symmetric else 0, tours.shape[1] - MIN_CITIES_LEFT)
    needs = lookahead_needs(instances.weights, tours, action_values(instances.weights, tours), steps)
    return needs.max(axis=1).astype(np.float64)


MEASURES: Registry[HardnessMeasure] = Registry("hardness measure")
MEASURES.add("non_greedy_steps", HardnessMeasure(non_greedy_steps, (1, 2, 3, 4), ("0", "1", "2", "3", "4+")))
MEASURES.add(
    "log_nodes",
    HardnessMeasure(_log_nodes, (1.5, 2.0, 2.5, 3.0), ("up to 31", "32-99", "100-316", "317-999", "1000+")),
)
MEASURES.add("tier", HardnessMeasure(_tier, (1, 2, 3, 4), TIERS))
MEASURES.add("dstar", HardnessMeasure(_largest_need, (1, 2, 3), ("0", "1", "2", "3+")))
