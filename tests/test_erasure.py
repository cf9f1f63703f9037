"""Erasure: nothing linear is left afterwards, there was something before, and random erasures take as much."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from small_networks import MODES, PROBLEM, N, network, shape
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.instruments.activations import Site, residual_sites
from mesaprobe.instruments.erasure import _seen
from mesaprobe.instruments.patching.runs import EditableRun
from mesaprobe.models import ModuleSubject, gpt_subject
from mesaprobe.patching import Erasure, Run, fit_eraser, fit_erasure

SITE = Site("blocks.0.hook_resid_post", "decode", 0, "resid_post")


def planted(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Correlated activations [sample, 24] with three classes planted along two directions."""
    generator = torch.Generator().manual_seed(0)
    mixing, directions = torch.randn(24, 24, generator=generator), torch.randn(3, 24, generator=generator)
    generator.manual_seed(seed)
    labels = torch.randint(3, (samples,), generator=generator)
    x = torch.randn(samples, 24, generator=generator) @ mixing + 4 * directions[labels] + 2.0
    return x.double(), labels


def one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, 3).double()


def test_after_erasure_a_linear_probe_is_at_chance_and_before_it_is_not() -> None:
    (x, y), (new_x, new_y) = planted(4000, 1), planted(4000, 2)
    eraser = fit_eraser(SITE, x, one_hot(y))
    assert eraser.rank == 2

    def score(a: Tensor, b: Tensor) -> tuple[float, float]:
        probe = LogisticRegression(C=1e6, max_iter=2000, tol=1e-10).fit(a.numpy(), y.numpy())
        return log_loss(y.numpy(), probe.predict_proba(a.numpy())), probe.score(b.numpy(), new_y.numpy())

    shares, majority = np.bincount(y) / len(y), float(np.bincount(new_y).max() / len(new_y))
    constant = float(-(shares * np.log(shares)).sum())
    loss, accuracy = score(x, new_x)
    assert loss < constant - 0.2
    assert accuracy > 0.7
    loss, accuracy = score(eraser(x), eraser(new_x))
    assert loss > constant - 1e-6  # the theorem: no linear probe of the erased sample beats a constant
    assert accuracy < majority + 0.03
    centred = one_hot(y) - one_hot(y).mean(0)
    assert float((eraser(x).mT @ centred / len(x)).abs().max()) < 1e-12
    torch.testing.assert_close(eraser(eraser(x)), eraser(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(eraser(x).mean(0), x.mean(0), atol=1e-3, rtol=1e-3)


def test_numbers_are_erased_too_whatever_their_unit() -> None:
    x, _ = planted(3000, 1)
    generator = torch.Generator().manual_seed(5)
    z = x @ torch.randn(24, 2, generator=generator).double() + torch.randn(3000, 2, generator=generator)
    erased = [fit_eraser(SITE, x, unit * z)(x) for unit in (1.0, 1e-6)]
    assert Ridge(1e-6).fit(x, z).score(x, z) > 0.9
    for kept in erased:
        assert Ridge(1e-6).fit(kept, z).score(kept, z) < 1e-6
    torch.testing.assert_close(erased[0], erased[1], atol=1e-3, rtol=1e-3)


def test_random_erasures_take_the_same_rank_and_variance_but_not_the_concept() -> None:
    x, y = planted(4000, 1)
    fitted = fit_eraser(SITE, x, one_hot(y))
    taken = float((fitted(x) - x).double().square().sum(1).mean())
    assert fitted.removed_variance == pytest.approx(taken, rel=1e-3)
    generator = torch.Generator().manual_seed(0)
    twins = [Erasure((fitted,)).matched_random(generator).erasers[0] for _ in range(5)]
    for twin in twins:
        assert twin.rank == 2
        assert torch.linalg.matrix_rank(twin.left @ twin.right) == 2
        assert float((twin(x) - x).double().square().sum(1).mean()) == pytest.approx(taken, rel=1e-3)
        torch.testing.assert_close(twin(twin(x)), twin(x), atol=1e-3, rtol=1e-3)
        probe = LogisticRegression(C=1e6, max_iter=2000).fit(twin(x).numpy(), y.numpy())
        assert probe.score(twin(x).numpy(), y.numpy()) > 0.5
    assert not torch.allclose(twins[0].left, twins[1].left)


def test_a_concept_that_does_not_vary_is_refused() -> None:
    x, _ = planted(100, 1)
    with pytest.raises(UserError, match="the same in all 100 samples"):
        fit_eraser(SITE, x, torch.ones(100, 2))


def subject(attention: str) -> ModuleSubject:
    found = gpt_subject(network(shape(attention), loudness=20.0), PROBLEM, "small", {})
    assert isinstance(found, ModuleSubject)
    return found


def states(count: int, seed: int = 0) -> Run:
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(PROBLEM.draw(count, rng).features)
    lengths = torch.from_numpy(rng.integers(1, 4, count))
    return Run(features, torch.tensor([[0, 2, 4]]).expand(count, -1), lengths)


@pytest.mark.parametrize("attention", MODES)
def test_at_all_layers_nothing_linear_is_left_anywhere(attention: str) -> None:
    model, run = subject(attention), states(400)
    concept = run.features[:, 1, 2:4].double()
    sites = residual_sites(model, ("decode",))
    erasure = fit_erasure(model, run, concept, sites)
    editable = EditableRun(model, run, list(dict.fromkeys(site.hook for site in sites)))
    before = _seen(model, editable, [], sites[-1])[:, 0]
    assert Ridge(1e-6).fit(before, concept).score(before, concept) > 0.05
    for index, site in enumerate(sites):
        erased = erasure.erasers[index](_seen(model, editable, erasure.erasers[:index], site))[:, 0]
        assert Ridge(1e-6).fit(erased, concept).score(erased, concept) < 1e-4, str(site)
    changed, own = erasure.logits(model, run), editable.logits({})
    assert float((changed - own).abs().max()) > 1e-3
    # The stream behind a layer is a sum of what was erased before it, so that nothing but rounding is left to erase
    # there; fitted alone, the eraser of the last site finds the concept.
    for eraser in erasure.erasers:
        if eraser.site.kind == "resid_post":
            assert eraser.removed_variance < 1e-4 * float(eraser.covariance.trace())
    assert fit_erasure(model, run, concept, sites[-1:]).erasers[0].rank == 2
    twins = erasure.matched_random(torch.Generator().manual_seed(0)).erasers
    for eraser, twin in zip(erasure.erasers, twins, strict=True):
        assert twin.rank == eraser.rank
        assert twin.removed_variance == pytest.approx(eraser.removed_variance, rel=1e-6)


def test_a_concept_of_cities_is_erased_from_their_tokens_as_fitted_on_the_samples() -> None:
    model, run = subject("prefix"), states(200)
    concept = run.features.diagonal(1, 1, 2)  # weight to the next city, one number a city
    concept = torch.nn.functional.pad(concept, (0, 1))[..., None].double()
    samples = torch.rand(200, N, generator=torch.Generator().manual_seed(0)) < 0.7
    site = Site("blocks.1.hook_resid_pre", "city", 1, "resid_pre")
    erasure = fit_erasure(model, run, concept, [site], samples=samples)
    editable = EditableRun(model, run, [site.hook])
    after = erasure.erasers[0](_seen(model, editable, [], site))[samples]
    assert Ridge(1e-6).fit(after, concept[samples]).score(after, concept[samples]) < 1e-4
    by_hand = []
    for row in range(3):
        length = int(run.lengths[row])

        def edit(x: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            x = x.clone()
            x[:, :N] = erasure.erasers[0](x[:, :N])
            return x

        by_hand.append(
            model.edited_logits(run.features[row : row + 1], run.prefixes[row : row + 1, :length], {site.hook: edit})
        )
    torch.testing.assert_close(erasure.logits(model, run)[:3], torch.cat(by_hand), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"\(batch, n, z\) for sites of role city"):
        fit_erasure(model, run, concept[:, 0], [site])


def test_two_roles_at_one_hook_are_both_erased() -> None:
    model, run = subject("prefix"), states(150)
    sites = [
        Site("blocks.1.hook_resid_pre", "decode", 1, "resid_pre"),
        Site("blocks.1.attn.hook_z", "decode", 1, "z", 0),
    ]
    concept = run.features[:, 1, 2:3]
    both = fit_erasure(model, run, concept, [*sites, sites[1]])
    assert both.erasers[1].left.shape[0] == 8
    alone = Erasure(both.erasers[:1]).logits(model, run)
    assert float((both.logits(model, run) - alone).abs().max()) > 1e-4
    assert both.erasers[2].removed_variance == pytest.approx(0, abs=1e-6)  # the second time nothing is left
