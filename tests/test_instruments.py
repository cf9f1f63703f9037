"""Probes, patching, attention and activations: exact facts first."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from mesaprobe.errors import UserError
from mesaprobe.models import GPTConfig, ModuleSubject, TourGPT
from mesaprobe.patching import Cell, Identity, Location, NormMatchedRandom, Run, instance_locations, patched_logits
from mesaprobe.probes import LinearProbe, collect_activations, fit_softmax_probe, residual_sites
from mesaprobe.problems import ProblemConfig, make_problem

N = 6


def small_subject(seed: int = 0, attention: str = "prefix") -> ModuleSubject:
    """A random network with weights large enough that every part matters."""
    problem = make_problem(ProblemConfig(n=N))
    model = TourGPT(GPTConfig(d_model=16, n_layers=2, n_heads=2, d_mlp=32, attention=attention), N, N, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return ModuleSubject(model, problem)


def drawn(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(make_problem(ProblemConfig(n=N)).draw(count, np.random.default_rng(seed)).features)


def choices(samples: int, width: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations with correlated columns, and labels drawn from a softmax of them."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    x = torch.randn(samples, width, generator=generator) @ mixing + 3.0
    logits = (x - x.mean(0)) @ torch.randn(width, classes, generator=generator) * 0.3
    return x, torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_softmax_probe_finds_the_optimum_that_scikit_learn_finds(penalty: float) -> None:
    x, y = choices(800, 12, 4, seed=1)
    allowed = torch.ones(800, 4, dtype=torch.bool)
    probe = fit_softmax_probe(x[None], y, torch.arange(800), allowed, penalties=(penalty,), iterations=400)
    standardised = ((x - x.mean(0)) / x.std(0, correction=0)).double().numpy()
    reference = LogisticRegression(C=1 / (penalty * 800), max_iter=5000, tol=1e-10).fit(standardised, y.numpy())
    expected = reference.predict_log_proba(standardised)
    np.testing.assert_allclose(probe.log_probabilities(x[None], allowed)[0], expected, atol=2e-3)


def test_sites_and_penalties_are_fitted_independently() -> None:
    x, y = choices(300, 6, 3, seed=2)
    other, _ = choices(300, 6, 3, seed=3)
    allowed, groups = torch.ones(300, 3, dtype=torch.bool), torch.arange(300) // 3
    both = fit_softmax_probe(torch.stack([x, other]), y, groups, allowed, chunk=2)
    alone = [fit_softmax_probe(site[None], y, groups, allowed) for site in (x, other)]
    torch.testing.assert_close(both.weights, torch.cat([p.weights for p in alone]), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(both.penalty, torch.cat([p.penalty for p in alone]))


def test_forbidden_classes_get_no_probability_and_labels_must_be_allowed() -> None:
    x, y = choices(200, 5, 4, seed=4)
    allowed = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    allowed[torch.arange(200), y] = True
    probe = fit_softmax_probe(x[None], y, torch.arange(200), allowed)
    probabilities = probe.log_probabilities(x[None], allowed)[0].exp()
    assert (probabilities[~allowed] == 0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(200))
    allowed[0, y[0]] = False
    with pytest.raises(ValueError, match="every label must be one of the allowed"):
        fit_softmax_probe(x[None], y, torch.arange(200), allowed)


def test_an_offset_that_knows_everything_leaves_nothing_to_the_probe() -> None:
    """With the true log-odds as offset, activations that only repeat them must not lower the loss of new data."""
    x, _ = choices(4000, 8, 3, seed=5)
    logits = (x - x.mean(0)) @ torch.randn(8, 3, generator=torch.Generator().manual_seed(5)) * 0.3
    y = torch.multinomial(logits.softmax(-1), 1, generator=torch.Generator().manual_seed(6))[:, 0]
    allowed = torch.ones(4000, 3, dtype=torch.bool)
    train, test = slice(0, 2000), slice(2000, 4000)
    probe = fit_softmax_probe(x[None, train], y[train], torch.arange(2000), allowed[train], offset=logits[train])
    own = -logits[test].log_softmax(-1)[torch.arange(2000), y[test]].mean()
    with_probe = -probe.log_probabilities(x[None, test], allowed[test], logits[test])[0][torch.arange(2000), y[test]]
    assert float(with_probe.mean()) > float(own) - 0.003


def test_shuffled_labels_are_not_predictable() -> None:
    x, y = choices(3000, 10, 4, seed=7)
    shuffled = y[torch.randperm(3000, generator=torch.Generator().manual_seed(0))].numpy()
    probe = LinearProbe().fit(x[:2000].numpy(), shuffled[:2000])
    majority = np.bincount(shuffled[2000:]).max() / 1000
    assert probe.score(x[2000:].numpy(), shuffled[2000:]) < majority + 0.05
    assert LinearProbe().fit(x[:2000].numpy(), y[:2000].numpy()).score(x[2000:].numpy(), y[2000:].numpy()) > 0.6


@parametrize_with_checks([LinearProbe(iterations=20)])
def test_linear_probe_is_a_scikit_learn_estimator(estimator: LinearProbe, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_sites_are_in_the_order_of_the_pass() -> None:
    kinds = [(site.layer, site.kind) for site in residual_sites(small_subject(), ("decode",))]
    layers = [(layer, kind) for layer in range(2) for kind in ("attn_out", "mlp_out", "resid_post")]
    assert kinds == [(0, "resid_pre"), *layers]


@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_collected_activations_are_those_of_each_state_alone(attention: str) -> None:
    """One pass over whole tours gives at every state what a pass over its prefix alone gives."""
    subject, features = small_subject(attention=attention), drawn(5)
    tours = torch.stack([torch.cat([torch.zeros(1).long(), torch.randperm(N - 1) + 1]) for _ in range(5)])
    sites, steps = residual_sites(subject), slice(1, 4)
    cities = tours[:, 2:5]
    collected = collect_activations(subject, features, tours, steps, cities, sites, chunk=2)
    for column, step in enumerate(range(1, 4)):
        seen = subject.activations(features, tours[:, : step + 1], [site.hook for site in sites])
        for index, site in enumerate(sites):
            position = subject.decode_position(step + 1) if site.role == "decode" else cities[:, column]
            expected = seen[site.hook][torch.arange(5), position]
            torch.testing.assert_close(collected[index, :, column], expected, atol=1e-5, rtol=1e-4)


def test_collecting_checks_that_cities_fit_the_states() -> None:
    subject = small_subject()
    with pytest.raises(ValueError, match=r"\(batch, step\) = \(3, 2\)"):
        collect_activations(
            subject, drawn(3), torch.zeros(3, N).long(), slice(0, 2), torch.zeros(3, 1).long(), residual_sites(subject)
        )


PREFIX = torch.tensor([[0, 2]])


def test_identity_patch_changes_nothing_and_the_whole_stream_changes_everything() -> None:
    subject, base, source = small_subject(), drawn(1), drawn(1, seed=1)
    hooks = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
    everything = Location("all", tuple(range(N + 2)))
    locations = [*instance_locations(subject, 2, [(1, 3)]), everything]
    assert [location.label for location in locations[N:]] == ["cities 1+3", "step 1", "step 2", "all"]
    own, other = (subject.next_city_logits(x, PREFIX)[0] for x in (base, source))
    cells, runs = [Cell(hook, place) for hook in hooks for place in locations], (Run(base, PREFIX), Run(source, PREFIX))
    unchanged = patched_logits(subject, *runs, cells, Identity())
    torch.testing.assert_close(unchanged.patched, unchanged.base, atol=0, rtol=0)
    patched = patched_logits(subject, *runs, cells).patched[:, 0].unflatten(0, (len(hooks), -1))
    torch.testing.assert_close(patched[:, -1], other.expand(3, -1), atol=1e-5, rtol=1e-4)
    # After the last layer only the token that answers matters.
    torch.testing.assert_close(patched[2, :-2], own.expand(len(locations) - 2, -1), atol=1e-5, rtol=1e-4)


def test_cells_of_a_sweep_equal_patches_made_one_by_one() -> None:
    subject, base, source = small_subject(), drawn(1), drawn(1, seed=1)
    hook = "blocks.1.hook_resid_pre"
    locations = instance_locations(subject, 2, [(1, 3)])
    cells = [Cell(hook, place) for place in locations]
    sweep = patched_logits(subject, Run(base, PREFIX), Run(source, PREFIX), cells).patched[:, 0]
    stream = subject.activations(source, PREFIX, [hook])[hook]
    for row, location in enumerate(locations):

        def edit(x: torch.Tensor, hook: object, at: tuple[int, ...] = location.positions) -> torch.Tensor:  # noqa: ARG001
            x = x.clone()
            x[:, list(at)] = stream[:, list(at)]
            return x

        expected = subject.edited_logits(base, PREFIX, {hook: edit})[0]
        torch.testing.assert_close(sweep[row], expected, atol=1e-5, rtol=1e-4)


def test_random_patch_has_the_length_of_the_real_difference() -> None:
    base, source = torch.randn(5, 16), torch.randn(5, 16)
    noise = NormMatchedRandom(1)(base, source) - base
    torch.testing.assert_close(noise.norm(dim=-1), (source - base).norm(dim=-1))
    assert not torch.allclose(noise, source - base)


def test_unknown_hooks_are_refused() -> None:
    subject = small_subject()
    run, cell = Run(drawn(1), PREFIX), Cell("blocks.9.hook_resid_pre", Location("x", (0,)))
    with pytest.raises(UserError, match=r"no hook point 'blocks.9.hook_resid_pre'"):
        patched_logits(subject, run, run, [cell])


def test_attention_patterns_are_probabilities_over_what_may_be_seen() -> None:
    from mesaprobe.attention import attention_patterns

    patterns = attention_patterns(small_subject(), drawn(3), PREFIX.expand(3, -1))
    assert patterns is not None
    assert patterns.shape == (3, 2, 2, N + 2, N + 2)
    torch.testing.assert_close(patterns.sum(-1), torch.ones(patterns.shape[:-1]))
    assert (patterns[..., :N, N:] == 0).all()  # city tokens see no tour token
    assert (patterns[..., N, N + 1] == 0).all()  # a tour token sees no later one
