"""Swaps of subspaces, learned subspaces and dormant pathways, on networks whose right answer is known."""

import numpy as np
import pytest
import torch
from small_networks import BATCH, MODES, PROBLEM, N, inputs, network, shape
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.tools.analysis.interchange import arbitrary_targets

from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.interchange import project
from mesaprobe.models import ModuleSubject, gpt_subject, wrap
from mesaprobe.patching import (
    Cell,
    Interchange,
    Location,
    Run,
    check_dormancy,
    downstream_row_space,
    interchange_accuracy,
    interchange_logits,
    learn_subspace,
    patched_logits,
    random_subspaces,
    subspace_effect,
    swap,
)

WIDTH = 8
MIDDLE = 65 / 128  # between two levels, so that no weight stands on the border
HIDDEN = Site("hook_hidden", "decode", 0, "hidden")
START = torch.zeros(1, 1, dtype=torch.long)


class TwoVariables(HookedRootModule):
    """Chooses city 1 + 2 [a > middle] + [b > middle] from two weights a, b, held in two directions of a rotated stream.

    The other directions hold other weights, which nothing reads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))).Q
        self.scale = torch.nn.Parameter(torch.tensor(8.0))
        self.hook_hidden = HookPoint()
        self.setup()

    def forward(self, features: Tensor, tour: Tensor) -> Tensor:
        a, b = features[:, 1, 2] - MIDDLE, features[:, 3, 4] - MIDDLE
        others = torch.stack([features[:, 0, j] for j in range(1, 6)] + [features[:, 2, 5]], dim=1)
        hidden = torch.cat([a[:, None], b[:, None], others], dim=1) @ self.rotation.T
        hidden = self.hook_hidden(hidden[:, None].expand(-1, tour.shape[1], -1).contiguous())
        a, b = (hidden @ self.rotation)[..., :2].unbind(-1)
        signs = [torch.full_like(a, -torch.inf), -a - b, -a + b, a - b, a + b, torch.full_like(a, -torch.inf)]
        return self.scale * torch.stack([s.clamp(min=-50.0) for s in signs], dim=-1)


def two_variables() -> ModuleSubject:
    found = wrap(TwoVariables(), PROBLEM, decode_positions=range(N))
    assert isinstance(found, ModuleSubject)
    return found


def states(count: int, seed: int) -> Run:
    features = torch.from_numpy(PROBLEM.draw(count, np.random.default_rng(seed)).features)
    return Run(features, START.expand(count, 1))


def high_level(base: Run, source: Run) -> Tensor:
    """The choice when a comes from the source and b from the base."""
    a, b = source.features[:, 1, 2] > MIDDLE, base.features[:, 3, 4] > MIDDLE
    return 1 + 2 * a.long() + b.long()


def small(attention: str = "prefix") -> ModuleSubject:
    found = gpt_subject(network(shape(attention), loudness=20.0), PROBLEM, "small", {})
    assert isinstance(found, ModuleSubject)
    return found


def mixed(seed: int) -> Run:
    return Run(inputs(seed=seed)[0], torch.tensor([[0, 2, 4, 1]]).expand(BATCH, -1), torch.tensor([1, 4, 2]))


@pytest.mark.parametrize("attention", MODES)
@pytest.mark.parametrize("role", ["decode", "city"])
def test_swapping_the_full_space_is_patching(attention: str, role: str) -> None:
    model, base, source = small(attention), mixed(1)[:1], mixed(2)[:1]
    base, source = (
        Run(*[x.repeat(3, *[1] * (x.ndim - 1)) for x in (run.features, run.prefixes)]) for run in (base, source)
    )
    base.features[1:], source.features[1:] = mixed(3).features[:2], mixed(4).features[:2]
    site = Site("blocks.1.hook_resid_pre", role, 1, "resid_pre")  # type: ignore[arg-type]
    cities = torch.tensor([[1, 3]]).expand(BATCH, -1) if role == "city" else None
    positions = (1, 3) if role == "city" else (model.decode_position(4),)
    pairs = Interchange.at(model, base, source, site, cities=cities)
    expected = patched_logits(model, base, source, [Cell(site.hook, Location("here", positions))]).patched[0]
    torch.testing.assert_close(pairs.logits(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pairs.logits(torch.eye(16)), expected, atol=1e-4, rtol=1e-4)
    assert float((pairs.logits() - pairs.base_logits()).abs().max()) > 1e-2


def test_a_swap_takes_the_coordinates_inside_and_keeps_those_outside() -> None:
    site = Site("blocks.0.hook_resid_pre", "city", 0, "resid_pre")
    base, source = torch.randn(2, 5, 16), torch.randn(2, 2, 16)
    positions = torch.tensor([[0, 3], [2, 1]])
    basis = random_subspaces(16, 4, 1, torch.Generator().manual_seed(0))[0]
    found = swap(source, site, positions, basis)(base)
    rows = torch.arange(2)[:, None]
    torch.testing.assert_close(found[rows, positions] @ basis, source @ basis, atol=1e-5, rtol=1e-5)
    outside = torch.eye(16) - basis @ basis.T
    torch.testing.assert_close(found @ outside, base @ outside, atol=1e-5, rtol=1e-5)
    untouched = torch.ones(2, 5, dtype=torch.bool)
    untouched[rows, positions] = False
    assert torch.equal(found[untouched], base[untouched])
    with pytest.raises(ValueError, match="not the identity"):
        swap(source, site, positions, 2 * basis)
    with pytest.raises(ValueError, match=r"\(d, k\) = \(16, k\), got \(8, 2\)"):
        swap(source, site, positions, torch.eye(8)[:, :2])


def test_one_head_is_swapped_alone() -> None:
    model, base, source = small(), mixed(1), mixed(2)
    site = Site("blocks.1.attn.hook_z", "decode", 1, "z", head=1)
    found = interchange_logits(model, base, source, site)
    for row, length in enumerate(base.lengths.tolist()):
        one = [Run(run.features[row : row + 1], run.prefixes[row : row + 1, :length]) for run in (base, source)]
        cell = Cell(site.hook, Location("answer", (model.decode_position(length),)), head=1)
        torch.testing.assert_close(found[row], patched_logits(model, *one, [cell]).patched[0, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", MODES)
def test_pairs_of_many_lengths_are_swapped_as_each_pair_alone(attention: str) -> None:
    model, base, source = small(attention), mixed(1), mixed(2)
    source = Run(source.features, source.prefixes, torch.tensor([2, 3, 4]))  # other lengths than their partners
    site = Site("blocks.1.hook_resid_pre", "decode", 1, "resid_pre")
    basis = random_subspaces(16, 3, 1, torch.Generator().manual_seed(0))[0]
    together = interchange_logits(model, base, source, site, basis)
    for row in range(BATCH):
        alone = interchange_logits(model, base[row : row + 1], source[row : row + 1], site, basis)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_alignment_finds_the_one_direction_that_carries_the_variable() -> None:
    model = two_variables()
    train, test = (states(400, 0), states(400, 1)), (states(400, 2), states(400, 3))
    found = learn_subspace(model, *train, high_level(*train), HIDDEN, 1, seed=0, epochs=30, batch=50)
    pairs, labels = Interchange.at(model, *test, HIDDEN), high_level(*test)
    accuracy = interchange_accuracy(pairs.logits(found.basis), labels).mean()
    true = model.module.rotation[:, :1]
    assert abs(float(found.basis[:, 0] @ true[:, 0])) > 0.99
    assert interchange_accuracy(pairs.logits(true), labels).mean() == 1.0
    assert accuracy > 0.95
    untouched = interchange_accuracy(pairs.base_logits(), labels).mean()
    rates = [
        interchange_accuracy(pairs.logits(basis), labels).mean()
        for basis in random_subspaces(WIDTH, 1, 20, torch.Generator().manual_seed(0))
    ]
    assert abs(np.mean(rates) - untouched) < 0.15
    assert max(rates) < 0.85
    assert interchange_accuracy(pairs.logits(), labels).mean() < 0.7  # the whole site takes b along
    assert found.losses[-1] < found.losses[0]


def test_alignment_to_arbitrary_labels_does_not_carry_over() -> None:
    model = two_variables()
    train, test = (states(300, 0), states(300, 1)), (states(300, 2), states(300, 3))
    labels = [
        arbitrary_targets([tuple(x.ravel().tolist()) for x in run[1].features], 4, 0) + 1 for run in (train, test)
    ]
    found = learn_subspace(model, *train, labels[0], HIDDEN, 4, seed=0, epochs=10)
    pairs = Interchange.at(model, *test, HIDDEN)
    assert interchange_accuracy(pairs.logits(found.basis), labels[1]).mean() < 0.4


@pytest.mark.parametrize("attention", MODES)
def test_our_networks_learn_from_the_layer_on_and_stay_as_they_were(attention: str) -> None:
    model, site = small(attention), Site("blocks.1.hook_resid_pre", "decode", 1, "resid_pre")
    before = model.weights_hash
    base, source = (
        Run(states(60, seed).features, torch.tensor([[0, 2, 4]]).expand(60, -1), torch.arange(60) % 3 + 1)
        for seed in (0, 1)
    )
    pairs = Interchange.at(model, base, source, site)
    labels = pairs.logits().argmax(1)  # what the whole site would give
    found = learn_subspace(model, base, source, labels, site, 8, seed=0, epochs=15, batch=30)
    again = learn_subspace(model, base, source, labels, site, 8, seed=0, epochs=15, batch=30)
    assert torch.equal(found.basis, again.basis)
    torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(8), atol=1e-4, rtol=0)
    loss = torch.nn.functional.cross_entropy(pairs.logits(found.basis), labels)
    random = torch.stack(
        [
            torch.nn.functional.cross_entropy(pairs.logits(basis), labels)
            for basis in random_subspaces(16, 8, 5, torch.Generator().manual_seed(0))
        ]
    )
    assert float(loss) < float(random.min())
    assert model.weights_hash == before
    city = Site(site.hook, "city", 1, "resid_pre")
    with pytest.raises(ValueError, match="one token is exchanged"):
        learn_subspace(model, base, source, labels, city, 1, seed=0, cities=torch.ones(60, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="not at one head's"):
        learn_subspace(model, base, source, labels, Site("blocks.1.attn.hook_z", "decode", 1, "z", 0), 1, seed=0)


class Dormant(HookedRootModule):
    """Makelov's trap. The site holds a, which is not read there, and a second coordinate that is read and always 0.

    The answer follows a along another way. A third coordinate holds b and moves the answer a little.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(10.0))
        self.hook_hidden = HookPoint()
        self.setup()

    def forward(self, features: Tensor, tour: Tensor) -> Tensor:
        a, b = features[:, 1, 2] - MIDDLE, features[:, 3, 4] - MIDDLE
        hidden = torch.stack([a, torch.zeros_like(a), b, torch.zeros_like(a)], dim=1)
        hidden = self.hook_hidden(hidden[:, None].expand(-1, tour.shape[1], -1).contiguous())
        rising = a[:, None] + hidden[..., 1] + 0.1 * hidden[..., 2]
        nothing = torch.zeros_like(rising) - 5.0
        return self.scale * torch.stack([nothing, rising, -rising, nothing, nothing, nothing], dim=-1)


def test_a_dormant_pathway_is_flagged_and_gone_after_the_projection() -> None:
    model = wrap(Dormant(), PROBLEM, decode_positions=range(N))
    base, source = states(200, 0), states(200, 1)
    logits = [model.next_city_logits(run.features, run.prefixes) for run in (base, source)]
    differ = logits[0].argmax(1) != logits[1].argmax(1)
    base, source = base[differ], source[differ]
    answers = logits[1][differ].argmax(1), logits[0][differ].argmax(1)
    pairs = Interchange.at(model, base, source, HIDDEN)
    space = downstream_row_space(model, base, HIDDEN, share=0.999)
    assert space.shape == (4, 1)  # one logit difference reads the site, along (0, 1, 0.1, 0)
    torch.testing.assert_close(space[:, 0].abs() / space[1, 0].abs(), torch.tensor([0, 1, 0.1, 0]), atol=1e-5, rtol=0)
    trap = torch.tensor([[1.0], [1.0], [0.0], [0.0]]) / 2**0.5
    rng = np.random.default_rng(0)
    found = check_dormancy(pairs, logits[1][differ], answers, trap, space, rng)
    assert found.flagged
    assert found.subspace.value == pytest.approx(0.5, abs=0.05)  # half of a's change goes down the dormant direction
    assert abs(found.full_site.value) < 0.1
    assert abs(found.projected.value) < 0.1
    assert found.projected_rank == 1
    dead = check_dormancy(pairs, logits[1][differ], answers, torch.eye(4)[:, 3:], space, rng)
    assert (dead.flagged, dead.projected_rank, dead.projected.value) == (False, 0, 0.0)


def test_an_honest_subspace_is_not_flagged() -> None:
    model = two_variables()
    base, source = states(200, 0), states(200, 1)
    logits = [model.next_city_logits(run.features, run.prefixes) for run in (base, source)]
    differ = logits[0].argmax(1) != logits[1].argmax(1)
    base, source, ends = base[differ], source[differ], [x[differ] for x in logits]
    answers = ends[1].argmax(1), ends[0].argmax(1)
    pairs, space = Interchange.at(model, base, source, HIDDEN), downstream_row_space(model, base, HIDDEN)
    assert space.shape == (WIDTH, 2)
    found = check_dormancy(pairs, ends[1], answers, model.module.rotation[:, :1], space, np.random.default_rng(0))
    assert not found.flagged
    assert found.full_site.value == pytest.approx(1, abs=1e-4)
    assert found.projected.value == pytest.approx(found.subspace.value, abs=1e-3)
    whole = subspace_effect(pairs, ends[1], answers, space).fraction(np.random.default_rng(0))
    assert whole.value == pytest.approx(1, abs=1e-3)  # the row space is all that the network reads


def test_projection_into_a_space_that_holds_the_subspace_changes_nothing() -> None:
    space = random_subspaces(8, 5, 1, torch.Generator().manual_seed(0))[0]
    inside = space @ random_subspaces(5, 2, 1, torch.Generator().manual_seed(1))[0]
    found = project(inside, space)
    torch.testing.assert_close(found @ found.T, inside @ inside.T, atol=1e-5, rtol=1e-5)
    outside = torch.linalg.svd(space).U[:, 5:]
    assert project(outside, space).shape == (8, 0)
