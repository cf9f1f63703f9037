"""Attention to cities that play a role, against cities at the same distance that do not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from mesaprobe.errors import UserError
from mesaprobe.problems import Instances
from mesaprobe.solvers.constructive import step_weights, unvisited


def plan_roles(
    plans: Int64[np.ndarray, "batch step n"], steps: slice, horizon: int
) -> list[Bool[np.ndarray, "batch step n"]]:
    """For look-ahead k = 1 .. horizon: the city that each plan (a whole tour) visits k steps after its state.

    No city where the tour is over by then.

    >>> plan_roles(np.array([[[0, 2, 1, 3]]]), slice(1, 2), 3)[0].astype(int)
    array([[[0, 1, 0, 0]]])
    """
    n = plans.shape[2]
    roles = [np.zeros(plans.shape, dtype=np.bool_) for _ in range(horizon)]
    for column, step in enumerate(range(n)[steps]):
        for ahead in range(1, min(horizon, n - 1 - step) + 1):
            np.put_along_axis(roles[ahead - 1][:, column], plans[:, column, step + ahead, None], True, axis=1)
    return roles


def matched_cells(
    instances: Instances,
    tours: Int64[np.ndarray, "batch n"],
    steps: slice,
    *,
    rank: bool = True,
    bins: int = 64,
) -> Int64[np.ndarray, "batch step n"]:
    """Which cities may be compared: same step, same distance from the current city (`bins` quantiles of all distances;
    64 levels fall apart into single ones), and with `rank` the same rank of it among the unvisited ones.

    The nearest city can't be matched on rank: there is no other.
    """
    distances = step_weights(instances.weights, tours)[:, steps].astype(np.float64)
    free = unvisited(tours)[:, steps]
    edges = np.unique(np.quantile(distances[free], np.linspace(0, 1, bins + 1)))
    cells = np.searchsorted(edges, distances, side="right")
    cells = cells * distances.shape[1] + np.arange(distances.shape[1])[:, None]
    if rank:
        known = np.where(free, distances, np.inf)
        cells = cells * free.shape[2] + (known[..., None, :] < known[..., :, None]).sum(axis=3)
    return cells.astype(np.int64)


def identity_cells(tours: Int64[np.ndarray, "batch n"], steps: slice) -> Int64[np.ndarray, "batch step n"]:
    """Step, current city and city, as one code: what a head does with names alone, whatever the instance."""
    n = tours.shape[1]
    current = tours[:, :-1][:, steps, None]
    return (np.arange(current.shape[1])[:, None] * n + current) * n + np.arange(n)


@dataclass(frozen=True, eq=False)
class HeadContrast:
    """How much more each head looks at cities of a role than at matched others."""

    role: str
    excess: Float64[np.ndarray, "layer head"]
    """Mean attention to the role's cities, minus that to matched others (both in [0, 1])."""
    standard_error: Float64[np.ndarray, "layer head"]
    """Of the excess, over instances."""
    attention: Float64[np.ndarray, "layer head"]
    """Mean attention to the role's cities."""
    totals: Float64[np.ndarray, "batch layer head"]
    """Sum of the excess over the role's cities in each instance; with `counts` for a bootstrap by instance."""
    counts: Float64[np.ndarray, " batch"]
    matched: float
    """Fraction of the role's cities that have a match; the others are left out."""

    @property
    def z(self) -> Float64[np.ndarray, "layer head"]:
        """Excess in standard errors; 0 for a head that never differs. Compare with random twins', not with a normal."""
        error = self.standard_error
        return np.divide(self.excess, error, out=np.zeros_like(error), where=error > 0)

    @property
    def ranked(self) -> list[tuple[int, int]]:
        """(layer, head), the largest excess first."""
        order = np.argsort(-self.excess, axis=None, kind="stable")
        return [divmod(int(place), self.excess.shape[1]) for place in order]


def head_contrast(
    name: str,
    attention: Float32[np.ndarray, "batch step layer head n"],
    role: Bool[np.ndarray, "batch step n"],
    control: Bool[np.ndarray, "batch step n"],
    cells: Int64[np.ndarray, "batch step n"],
    identities: Int64[np.ndarray, "batch step n"] | None = None,
) -> HeadContrast:
    """Excess attention to the cities of `role` over those of `control` (not of the role) in the same cell.

    Controls are pooled over all instances. With `identities` the mean deviation of controls of the same identity
    from their cells is taken off, too: a network whose plans and attention both follow the names of cities (a random
    one) would else look as if it attended to its plan. Raises UserError where no city of the role has a match.
    """
    layers, heads = attention.shape[2:4]
    flat = np.moveaxis(attention, 4, 2).reshape(-1, layers * heads).astype(np.float64)
    chosen, others = role.reshape(-1), (control & ~role).reshape(-1)
    gaps, usable = _deviations(flat, cells.reshape(-1), others)
    if identities is not None:
        gaps, known = _deviations(gaps, identities.reshape(-1), others & usable)
        usable &= known
    usable &= chosen
    if not usable.any():
        raise UserError(f"no city of the role {name!r} has another at the same distance and rank to compare with")
    instance = np.repeat(np.arange(len(role)), role[0].size)[usable]
    totals = np.zeros((len(role), layers * heads))
    np.add.at(totals, instance, gaps[usable])
    counts = np.bincount(instance, minlength=len(role)).astype(np.float64)
    excess = totals.sum(axis=0) / counts.sum()
    spread = totals - counts[:, None] * excess
    shape = (layers, heads)
    return HeadContrast(
        role=name,
        excess=excess.reshape(shape),
        standard_error=(np.sqrt((spread**2).sum(axis=0)) / counts.sum()).reshape(shape),
        attention=flat[usable].mean(axis=0).reshape(shape),
        totals=totals.reshape(-1, *shape),
        counts=counts,
        matched=float(usable.sum() / chosen.sum()),
    )


def _deviations(
    values: Float64[np.ndarray, "entry head"], cells: Int64[np.ndarray, " entry"], others: Bool[np.ndarray, " entry"]
) -> tuple[Float64[np.ndarray, "entry head"], Bool[np.ndarray, " entry"]]:
    """Values less the mean of `others` in their cell, and where there is one."""
    names, cell = np.unique(cells, return_inverse=True)
    number = np.bincount(cell[others], minlength=len(names))
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, cell[others], values[others])
    return values - (sums / np.maximum(number, 1)[:, None])[cell], number[cell] > 0


def against_twins(contrast: HeadContrast, twins: Sequence[HeadContrast]) -> Float64[np.ndarray, "layer head"]:
    """p-value of every head: how often the largest |z| of a random twin's heads reaches the head's own.

    Random weights make smooth maps of the input, whose attention depends a little on everything (method.md,
    amendment 10): with many states a normal null would call them significant. The twins' roles are on their own
    plans; the least p is 1 / (1 + twins).
    """
    largest = np.array([np.abs(twin.z).max() for twin in twins])
    return (1 + (largest[:, None, None] >= np.abs(contrast.z)).sum(axis=0)) / (1 + len(twins))


def role_contrasts(
    attention: Float32[np.ndarray, "batch step layer head n"],
    instances: Instances,
    tours: Int64[np.ndarray, "batch n"],
    steps: slice,
    *,
    own: Int64[np.ndarray, "batch step n"],
    runner_up: Int64[np.ndarray, "batch step n"],
    pruned: Bool[np.ndarray, "batch step n"],
    horizon: int = 3,
) -> list[HeadContrast]:
    """All roles at once: the nearest city, look-ahead 1 .. horizon on the network's own plan and on the runner-up's,
    and candidates that a bound rules out (`labels.bound_labels(...).prune`, one relaxation).

    Plans are whole tours that keep the prefix. Cities of the runner-up's plan that the own plan visits within the
    horizon do not count for it; controls play neither plan's role within the horizon. All but the nearest are
    matched on distance and rank, and all on the names of the current city and the city.
    """
    free = unvisited(tours)[:, steps]
    distances = np.where(free, step_weights(instances.weights, tours)[:, steps], np.iinfo(np.int32).max)
    nearest = free & (distances == distances.min(axis=2, keepdims=True))
    both, distance = (matched_cells(instances, tours, steps, rank=rank) for rank in (True, False))
    chosen, rejected = plan_roles(own, steps, horizon), plan_roles(runner_up, steps, horizon)
    on_own = np.logical_or.reduce(chosen)
    idle = free & ~on_own & ~np.logical_or.reduce(rejected)
    roles = [("nearest", nearest, free, distance)]
    roles += [(f"own plan, {k} ahead", role, idle, both) for k, role in enumerate(chosen, 1)]
    roles += [(f"runner-up's plan, {k} ahead", role & ~on_own, idle, both) for k, role in enumerate(rejected, 1)]
    roles += [("pruned", pruned & free, free, both)]
    names = identity_cells(tours, steps)
    return [
        head_contrast(name, attention, role, control, cells, names)
        for name, role, control, cells in roles
        if role.any()
    ]
