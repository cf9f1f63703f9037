"""Partial tours of a `TourBuilder`, and the elementary steps that make them grow.

Three kinds, each with a stream of n rows of n cities. All leave what is not decided yet empty, and begin with what the
prefix fixes; its length, which says how much that is, is known from the position.

`insertion`: row k is the k-th city of a closed tour, one-hot; rows behind its last city are 0. Row 0 is the current
city, then come the cities inserted so far, then city 0 and the rest of the prefix. A step puts a free city behind row
j; the edges of the prefix are never cut, so that row j is before city 0 (everywhere, where the prefix is city 0 alone).

`edges`: row k belongs to one city: -1 there, 1 at every city that it is linked to. Row 0 is the current city, then
come the free cities, then city 0 and the rest of the prefix; consecutive cities of the prefix are linked by standing so
and have no entries. A step links two cities that have fewer than two links each and are not joined yet; where all
cities are on one path, it closes the tour.

`tree`: rows as of `edges`, 1 at every city that hangs on theirs. A step hangs a free city on one of the tree, which
begins with the path through the prefix. Once all hang, one more step names a city: any that hangs on the prefix, and 1
is added to its entry in row 0.

A step is known by quantities of its own: a few weights, or sums of them. Step 0 is to stay as it is; it is taken where
nothing else is left.
"""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mesaprobe.models.tour_refiner import first_tours

Partial = Float[Tensor, "batch t row n"]
"""Partial tours at every position of the tour's tokens."""


class Steps(Protocol):
    """One kind of partial tours and steps."""

    quantities: tuple[str, ...]
    """What is known of a step."""

    def count(self, n: int) -> int:
        """How many steps there are, staying among them."""

    def start(self, tour: Int[Tensor, "batch t"], n: int) -> Int[Tensor, "batch t row n"]:
        """What the prefixes fix."""

    def rounded(self, partial: Partial) -> Partial:
        """The nearest partial tour, entry by entry or row by row, whatever an edit has made of it."""

    def allowed(self, partial: Partial) -> Bool[Tensor, "batch t step"]:
        """Which steps can be taken, after prefixes of 1 to t cities; `partial` is rounded."""

    def describe(self, weights: Float[Tensor, "batch n n"], partial: Partial) -> Float[Tensor, "batch t step quantity"]:
        """The quantities of every step, in units of the weights."""

    def taken(self, partial: Partial, shares: Float[Tensor, "batch t step"]) -> Partial:
        """The mixture of the partial tours after each step."""

    def following(self, partial: Partial) -> Bool[Tensor, "batch t n"]:
        """Where the finished tour goes on: one city, or two where it has no direction and only city 0 is named."""


class InsertionSteps:
    """Put city x between neighbours a and b of the tour."""

    quantities: tuple[str, ...] = (
        "d(a, x)",
        "d(x, b)",
        "d(a, b)",
        "least d(u, x) over cities u of the tour",
        "largest d(u, x) over cities u of the tour",
    )

    def count(self, n: int) -> int:
        return (n - 1) ** 2 + 1  # row j = 0 .. n - 2, city x = 1 .. n - 1

    def start(self, tour: Int[Tensor, "batch t"], n: int) -> Int[Tensor, "batch t row n"]:
        """The current city, city 0, and the cities visited since.

        >>> InsertionSteps().start(torch.tensor([[0, 3]]), 4).argmax(-1)[0, 1], InsertionSteps().start(
        ...     torch.tensor([[0, 3]]), 4).sum(-1)[0]
        (tensor([3, 0, 0, 0]), tensor([[1, 0, 0, 0],
                [1, 1, 0, 0]]))
        """
        steps = tour.shape[1]
        now, row = torch.arange(steps, device=tour.device)[:, None], torch.arange(n, device=tour.device)
        # row 0: the current city; row k: the city named at time k - 1
        when = torch.where(row == 0, now, row - 1).clamp(max=steps - 1)
        return F.one_hot(tour[:, when], n) * (row <= now)[..., None]

    def rounded(self, partial: Partial) -> Partial:
        return F.one_hot(partial.argmax(-1), partial.shape[-1]) * (partial.sum(-1, keepdim=True) > 0.5)

    def allowed(self, partial: Partial) -> Bool[Tensor, "batch t step"]:
        steps, n = partial.shape[1:3]
        filled, free = partial.sum(-1)[..., :-1] > 0, partial.sum(-2)[..., 1:] == 0
        row, length = torch.arange(n - 1).to(partial), torch.arange(1, steps + 1).to(partial)
        behind = row <= partial.sum((-1, -2))[..., None] - length[:, None]  # those before city 0
        place = filled & behind & (partial[..., -1, :].sum(-1, keepdim=True) == 0)
        return _or_stay((place[..., None] & free[..., None, :]).flatten(2))

    def describe(self, weights: Float[Tensor, "batch n n"], partial: Partial) -> Float[Tensor, "batch t step quantity"]:
        filled = partial.sum(-1, keepdim=True)
        last = (filled > 0.5) & (filled.roll(-1, -2) < 0.5)
        following = torch.where(last, partial[:, :, :1], partial.roll(-1, -2))
        before, behind = partial @ weights[:, None], following @ weights[:, None].mT  # [batch, t, row, city]
        cut = (before * following).sum(-1, keepdim=True)
        inside = (partial.sum(-2) > 0.5)[..., None]  # [batch, t, u, 1]
        least = torch.where(inside, weights[:, None], torch.inf).amin(-2, keepdim=True)
        largest = torch.where(inside, weights[:, None], -torch.inf).amax(-2, keepdim=True)
        known = torch.broadcast_tensors(before, behind, cut, _finite(least), _finite(largest))
        return _with_stay(torch.stack(known, dim=-1)[:, :, :-1, 1:].flatten(2, 3))

    def taken(self, partial: Partial, shares: Float[Tensor, "batch t step"]) -> Partial:
        n = partial.shape[-1]
        here = F.pad(shares[..., 1:].unflatten(-1, (n - 1, n - 1)), (1, 0, 1, 0))  # what comes into row k
        before = here.sum(-1).cumsum(-1)  # some city comes into row k or an earlier one
        moved = F.pad(before, (1, 0))[..., :-1, None] * partial.roll(1, -2)
        return (1 - before[..., None]) * partial + moved + here

    def following(self, partial: Partial) -> Bool[Tensor, "batch t n"]:
        return partial[..., 1, :] > 0.5


class EdgeSteps:
    """Link cities i and j."""

    quantities: tuple[str, ...] = (
        "d(i, j)",
        "d(0, i) + d(0, j)",
        "|d(0, i) - d(0, j)|",
        "sum of the mean weights of i and of j",
        "difference of the mean weights of i and of j, without sign",
        "1 where i or j is city 0",
    )

    def count(self, n: int) -> int:
        return n * (n - 1) // 2 + 1

    def start(self, tour: Int[Tensor, "batch t"], n: int) -> Int[Tensor, "batch t row n"]:
        return -F.one_hot(first_tours(tour, n), n)

    def rounded(self, partial: Partial) -> Partial:
        return partial.round().clamp(-1, 1)

    def allowed(self, partial: Partial) -> Bool[Tensor, "batch t step"]:
        n = partial.shape[-1]
        links = partial.clamp(min=0) @ owners(partial).mT + _prefix_links(partial)  # [batch, t, row, row]
        joined = links + torch.eye(n).to(links)
        for _ in range(math.ceil(math.log2(n))):
            joined = (joined @ joined).clamp(max=1)
        open_ended = links.sum(-1) < 1.5
        one_path = links.sum((-1, -2)) > 2 * n - 2.5
        legal = open_ended[..., None] & open_ended[..., None, :] & ((joined < 0.5) | one_path[..., None, None])
        i, j = pairs(n)
        return _or_stay(legal[..., i, j])

    def describe(self, weights: Float[Tensor, "batch n n"], partial: Partial) -> Float[Tensor, "batch t step quantity"]:
        n = partial.shape[-1]
        owner, (i, j) = owners(partial), pairs(n)
        between = (owner @ weights[:, None] @ owner.mT)[..., i, j]
        home = (owner @ weights[:, None, :, :1])[..., 0]
        mean = (owner @ weights[:, None].sum(-1, keepdim=True))[..., 0] / (n - 1)
        depot = owner[..., 0]
        known = [between]
        for values in (home, mean):
            known += [values[..., i] + values[..., j], (values[..., i] - values[..., j]).abs()]
        return _with_stay(torch.stack([*known, depot[..., i] + depot[..., j]], dim=-1))

    def taken(self, partial: Partial, shares: Float[Tensor, "batch t step"]) -> Partial:
        n = partial.shape[-1]
        i, j = pairs(n)
        linked = partial.new_zeros(*partial.shape)
        linked[..., i, j] = shares[..., 1:]
        return partial + (linked + linked.mT) @ owners(partial)

    def following(self, partial: Partial) -> Bool[Tensor, "batch t n"]:
        return partial[..., 0, :] > 0.5


class TreeSteps:
    """Hang city l on city k; at last, go on to a city that hangs on the prefix."""

    quantities: tuple[str, ...] = (
        "d(k, l)",
        "mean weight of k",
        "mean weight of l",
        "at the last step: how many cities of the prefix come after k; else 0",
    )

    def count(self, n: int) -> int:
        return n * (n - 1) + 1  # row k = 0 .. n - 1, row l = 1 .. n - 1

    def start(self, tour: Int[Tensor, "batch t"], n: int) -> Int[Tensor, "batch t row n"]:
        return EdgeSteps().start(tour, n)

    def rounded(self, partial: Partial) -> Partial:
        return partial.round().clamp(-1, 2)

    def allowed(self, partial: Partial) -> Bool[Tensor, "batch t step"]:
        hung = partial.clamp(min=0) @ owners(partial).mT  # [batch, t, row k, row l]
        prefix = _prefix_rows(partial) >= 0
        inside = prefix | (hung.sum(-2) > 0.5)
        hang = inside[..., None] & ~inside[..., None, :]
        name = prefix[..., None] & (hung > 0.5) & (self._missing(partial) == 0)[..., None, None]
        return _or_stay((hang | name)[..., 1:].flatten(2))

    def describe(self, weights: Float[Tensor, "batch n n"], partial: Partial) -> Float[Tensor, "batch t step quantity"]:
        owner = owners(partial)
        between = owner @ weights[:, None] @ owner.mT
        mean = (owner @ weights[:, None].sum(-1, keepdim=True))[..., 0] / (partial.shape[-1] - 1)
        later = _prefix_rows(partial).clamp(min=0) * (self._missing(partial) == 0)[..., None]
        known = torch.broadcast_tensors(between, mean[..., None], mean[..., None, :], later.to(partial)[..., None])
        return _with_stay(torch.stack(known, dim=-1)[:, :, :, 1:].flatten(2, 3))

    def taken(self, partial: Partial, shares: Float[Tensor, "batch t step"]) -> Partial:
        n = partial.shape[-1]
        linked = F.pad(shares[..., 1:].unflatten(-1, (n, n - 1)), (1, 0))
        named = F.pad(linked.sum(-2, keepdim=True), (0, 0, 0, n - 1))
        finished = (self._missing(partial) == 0)[..., None, None]
        return partial + torch.where(finished, named, linked) @ owners(partial)

    def following(self, partial: Partial) -> Bool[Tensor, "batch t n"]:
        row = partial[..., 0, :]
        return (row > 0.5) & (row == row.amax(-1, keepdim=True))

    def _missing(self, partial: Partial) -> Int[Tensor, "batch t"]:
        """How many cities do not hang yet; -1 once one is named."""
        steps, n = partial.shape[1:3]
        free = n - torch.arange(1, steps + 1, device=partial.device)
        return free - partial.detach().clamp(min=0).sum((-1, -2)).round().long()


STEPS: dict[str, Callable[[], Steps]] = {"insertion": InsertionSteps, "edges": EdgeSteps, "tree": TreeSteps}


def pairs(n: int) -> tuple[list[int], list[int]]:
    """Rows i < j of every edge, in the order of the steps that add them."""
    rows, others = zip(*combinations(range(n), 2), strict=True)
    return list(rows), list(others)


def owners(partial: Partial) -> Partial:
    """The city of each row, one-hot; where rows belong to cities."""
    return (-partial).clamp(min=0)


def _prefix_links(partial: Partial) -> Float[Tensor, "t row row"]:
    """A prefix of length L stands in rows n - L + 1 .. n - 1 and then row 0, neighbours side by side."""
    steps, n = partial.shape[1:3]
    row, length = torch.arange(n).to(partial), torch.arange(1, steps + 1).to(partial)
    forward = (row > n - length[:, None])[..., None] * torch.eye(n).to(partial).roll(1, -1)
    return forward + forward.mT


def _prefix_rows(partial: Partial) -> Int[Tensor, "t row"]:
    """How many cities of the prefix come after the row's; -1 for rows of other cities."""
    steps, n = partial.shape[1:3]
    row, length = torch.arange(n, device=partial.device), torch.arange(1, steps + 1, device=partial.device)
    return torch.where((row == 0) | (row > n - length[:, None]), -row % n, -1)


def _or_stay(legal: Bool[Tensor, "batch t step"]) -> Bool[Tensor, "batch t step"]:
    return torch.cat([~legal.any(-1, keepdim=True), legal], dim=-1)


def _with_stay(known: Float[Tensor, "batch t step quantity"]) -> Float[Tensor, "batch t step quantity"]:
    return F.pad(known, (0, 0, 1, 0))


def _finite(values: Tensor) -> Tensor:
    """0 where the tour is empty, as edits can make it."""
    return torch.where(values.isinf(), 0.0, values)
