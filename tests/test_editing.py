"""Refilling and editing of tours: legal, counted, and driven by the network or by the cost as asked."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mesaprobe.decoding.editing import Acceptance, draft, edit, random_masks, swap_one
from mesaprobe.decoding.refilling import refill
from mesaprobe.models.config import UNKNOWN
from mesaprobe.problems import Instances, ProblemConfig, make_problem, random_tours
from mesaprobe.solvers.exact.held_karp import held_karp

N, COUNT = 7, 64


def _instances() -> tuple[Instances, Tensor, Tensor]:
    rng = np.random.default_rng(0)
    instances = make_problem(ProblemConfig(n=N)).draw(COUNT, rng)
    return instances, torch.from_numpy(instances.features), torch.from_numpy(random_tours(COUNT, N, rng))


def _naming(wanted: Tensor) -> object:
    """A network that wants the same city at each position whatever it reads."""
    return lambda _, tours: 50.0 * torch.nn.functional.one_hot(wanted, N).float()[: len(tours)]


def _uncertain(features: Tensor, tours: Tensor) -> Tensor:  # noqa: ARG001
    return torch.zeros(len(tours), N, N)


def _legal(tours: Tensor | np.ndarray) -> bool:
    found = np.asarray(tours)
    return bool((np.sort(found, axis=1) == np.arange(N)).all() and (found[:, 0] == 0).all())


def test_refilling_keeps_what_is_known_and_stays_legal() -> None:
    _, features, tours = _instances()
    masked = random_masks(COUNT, N, torch.Generator().manual_seed(1))
    asked: list[int] = []

    def answers(features: Tensor, holed: Tensor) -> Tensor:
        asked.append(len(holed))
        assert (holed == UNKNOWN).any(dim=1).all(), "an instance without holes costs no pass"
        return _uncertain(features, holed)

    filled = refill(answers, features, tours, masked, torch.Generator().manual_seed(2), 1.0)
    assert _legal(filled)
    assert torch.equal(filled[~masked], tours[~masked])
    assert sum(asked) == int(masked.sum()), "one pass for each masked city"
    assert (filled != tours).any(dim=1).float().mean() > 0.4


def test_the_draft_and_every_edit_follow_the_network() -> None:
    instances, features, tours = _instances()
    wanted = torch.arange(N).expand(COUNT, N)
    answers = _naming(wanted)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(draft(answers, features, generator, 0.0), wanted)  # type: ignore[arg-type]
    run = edit(answers, features, instances.weights, tours, None, 60, generator)  # type: ignore[arg-type]
    np.testing.assert_array_equal(run.tours, wanted)
    np.testing.assert_array_equal(run.current, run.proposed)


def test_annealing_turns_chance_into_short_tours_and_never_loses_the_best() -> None:
    """A network that knows nothing proposes at random: only the acceptance can help."""
    instances, features, tours = _instances()
    optimum = held_karp(instances.weights).costs
    schedule = Acceptance().temperatures(150)
    generator = torch.Generator().manual_seed(0)
    run = edit(_uncertain, features, instances.weights, tours, schedule, 150, generator)
    blind = edit(_uncertain, features, instances.weights, tours, None, 150, generator)
    assert _legal(run.tours)
    assert (np.diff(run.best, axis=1) <= 0).all()
    assert (run.current >= run.best).all()
    np.testing.assert_array_equal(run.current[:, -1], instances.tour_costs(run.tours))
    annealed, unguided = run.current[:, -1] / optimum - 1, blind.current[:, -1] / optimum - 1
    assert annealed.mean() < 0.1 < 0.4 < unguided.mean()
    assert run.passes[-1] == pytest.approx(run.masked.sum(axis=1).mean())


def test_only_free_positions_are_edited() -> None:
    instances, features, tours = _instances()
    free = torch.arange(N).expand(COUNT, N) >= 3
    masks = torch.stack([random_masks(COUNT, N, torch.Generator().manual_seed(k), free) for k in range(20)])
    assert not masks[:, :, :3].any()
    assert set(masks.sum(dim=2).flatten().tolist()) == {2, 3, 4}
    generator = torch.Generator().manual_seed(0)
    run = edit(_uncertain, features, instances.weights, tours, None, 5, generator, free=free)
    np.testing.assert_array_equal(run.tours[:, :3], tours[:, :3])
    assert (run.tours != tours.numpy()).any()


def test_cold_acceptance_takes_nothing_worse() -> None:
    instances, features, tours = _instances()
    run = edit(_uncertain, features, instances.weights, tours, np.full(40, 1e-6), 40, torch.Generator().manual_seed(0))
    assert (np.diff(run.current, axis=1) <= 0).all()


def test_single_positions_are_edited_by_exchange() -> None:
    _, features, tours = _instances()
    moved = swap_one(_uncertain, features, tours, torch.Generator().manual_seed(0), 1.0)
    assert _legal(moved)
    assert set((moved != tours).sum(dim=1).tolist()) == {0, 2}
