"""E8, E9 and E10b on networks whose mechanism is known."""

import dataclasses

import numpy as np
import pytest
import torch
from known_subjects import optimal_subject
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.errors import UserError
from mesaprobe.evidence import LINES
from mesaprobe.evidence.causal import future_cities
from mesaprobe.evidence.causal.erasure_necessity import ErasureSettings
from mesaprobe.evidence.causal.future_cities import CONTRASTS, FutureCitiesSettings, flow
from mesaprobe.evidence.causal.future_entries import FutureTokens, future_tokens
from mesaprobe.evidence.causal.future_heads import DRAWN_HEADS, TOP_HEADS, HeadFlow, head_flows
from mesaprobe.evidence.causal.revisions import RevisionSettings
from mesaprobe.evidence.result import LineResult
from mesaprobe.evidence.states.own_decisions import own_decisions, own_prefixes, residual_on
from mesaprobe.evidence.states.pairs import mined_pairs
from mesaprobe.labels.pairs import CounterfactualPairs
from mesaprobe.models import GPTConfig, TourGPT, gpt_subject, wrap
from mesaprobe.models.subject import Subject
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.report.lines.erasure_necessity import erasure_figure
from mesaprobe.report.lines.future_cities import future_cities_figure, head_numbers
from mesaprobe.report.lines.revised_answers import revised_answers_figure
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.zoo.compiled import best_of_k_enumerator, nearest_neighbour_network

PROBLEM = make_problem(ProblemConfig(n=8))
ERASURE = ErasureSettings(120, 300, 60, 40, 6, 1, sign_flips=199, resamples=200)
FUTURE = FutureCitiesSettings(80, 20, flips=199, resamples=200)
REVISIONS = RevisionSettings(100, 200, 40, least_events=3, flips=199, resamples=200)


class RegretReader(HookedRootModule):
    """A stream that holds each city's true regret, its distance above the nearest one's, and whether it is free; the
    answer reads the regrets alone."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Module()
        block.hook_resid_post = HookPoint()
        self.blocks, self.unused = nn.ModuleList([block]), nn.Parameter(torch.zeros(1))
        self.setup()

    def forward(self, features: Tensor, tour: Tensor) -> Tensor:
        (batch, n, _), t = features.shape, tour.shape[1]
        weights = np.rint(features.numpy() * 64).astype(np.int32)
        rest = torch.ones(batch, n, dtype=torch.bool).scatter(1, tour, value=False).nonzero()[:, 1].reshape(batch, -1)
        values = action_values(weights, torch.cat([tour, rest], dim=1).numpy())[:, : min(t, n - 1)]
        free = torch.from_numpy(np.isfinite(values))
        regrets = torch.from_numpy(np.where(free, values - values.min(axis=2, keepdims=True), 0.0)).float()
        distances = features.gather(1, tour[:, : values.shape[1], None].expand(-1, -1, n))
        above = distances - distances.masked_fill(~free, torch.inf).amin(dim=2, keepdim=True)
        stream = torch.cat([regrets, 64 * above.masked_fill(~free, 0.0), 20.0 * free], dim=2)  # of about equal size
        cities = torch.zeros(batch, n, 3 * n)
        stream = self.blocks[0].hook_resid_post(torch.cat([cities, stream], dim=1))
        return (-stream[:, n:, :n]).masked_fill(~free, -1e4)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def rule() -> Subject:
    return gpt_subject(nearest_neighbour_network(8, 64), PROBLEM, "nearest neighbour", {})


@pytest.fixture(scope="module")
def searcher() -> Subject:
    return gpt_subject(best_of_k_enumerator(8, 64, k=128), PROBLEM, "best of 128", {})


def loud(*, layers: int, loudness: float = 6.0) -> Subject:
    """Untrained, but every layer changes the answer."""
    model = TourGPT(GPTConfig(d_model=16, n_layers=layers, n_heads=2, d_mlp=32), 8, 8, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(loudness)
    return gpt_subject(model, PROBLEM, "untrained", {})


def same(first: LineResult, second: LineResult) -> bool:
    numbers = [(r.status, r.value, r.ci, r.p, dict(r.null), r.details) for r in (first, second)]
    assert first.table is not None
    assert second.table is not None
    return repr(numbers[0]) == repr(numbers[1]) and first.table.equals(second.table)


# ---- E8 ----------------------------------------------------------------------------------------------------------


def test_erasure_runs_on_a_rule_finds_nothing_and_repeats_itself(rule: Subject) -> None:
    result = LINES["E8"].measure(rule, ERASURE, 0)
    assert result.value is not None
    assert result.p is not None
    assert result.p > 0.05
    assert result.details["regret_easy"] == 0.0  # easy is where the nearest city is optimal
    assert result.details["imitator"] == "nearest_neighbour"
    assert not result.details["better_than_imitator"]
    assert same(result, LINES["E8"].measure(rule, ERASURE, 0))
    assert result.value != LINES["E8"].measure(rule, ERASURE, 1).value
    assert len(erasure_figure(dict(result.arrays)).data) >= 4


def test_erasing_regrets_that_alone_decide_costs_hard_states_most() -> None:
    """What is left of the regrets is what rules tell of them, which is enough on easy states and not on hard ones."""
    subject = wrap(RegretReader(), PROBLEM)
    result = LINES["E8"].measure(
        subject, dataclasses.replace(ERASURE, probe_instances=600, test_instances=700, hard_states=150), 0
    )
    assert result.details["regret_hard"] == 0.0
    assert result.value is not None
    assert result.details["difference"] > 0.3
    assert result.value > 0.1
    assert result.p is not None
    assert result.p < 0.05


def test_no_hard_states_no_value(rule: Subject) -> None:
    result = LINES["E8"].measure(rule, dataclasses.replace(ERASURE, test_instances=5), 0)
    assert (result.status, result.value) == ("na", None)
    assert "hard states" in str(result.reason)


def test_own_prefixes_are_the_rollout_as_far_as_decisions_go(searcher: Subject) -> None:
    found = own_decisions(searcher, "test", 30, 0)
    whole = own_prefixes(searcher, found.features, 7)
    assert (found.tours[:, :5] == whole[:, :5]).all()
    assert (found.tours.sort(dim=1).values == torch.arange(8)).all()
    assert own_decisions(searcher, "test", 30, 0) is found


def test_residuals_forget_what_the_nuisance_tells() -> None:
    rng = np.random.default_rng(0)
    z, own = rng.normal(size=(2000, 3)), rng.normal(size=2000)
    left = residual_on(z, z[:, 0] - z[:, 1] ** 2 + own)
    assert np.corrcoef(left, own)[0, 1] > 0.99
    assert abs(np.corrcoef(left, z[:, 1] ** 2)[0, 1]) < 0.01


# ---- E9 ----------------------------------------------------------------------------------------------------------


def test_a_rule_that_reads_no_far_weight_gives_exactly_zero(rule: Subject) -> None:
    result = LINES["E9"].measure(rule, FUTURE, 0)
    assert (result.value, result.ci, result.p) == (0.0, (0.0, 0.0), 1.0)
    assert result.details["moved_by_T"] == result.details["moved_by_M"] == 0.0
    kinds = ("guessed", "whole", "path", "placebo")
    assert {tuple(head[kind]["ci"]) for head in result.details["heads"] for kind in kinds} == {(0.0, 0.0)}


def test_a_searcher_hangs_on_the_cities_that_its_plan_needs_later(searcher: Subject) -> None:
    result = LINES["E9"].measure(searcher, FUTURE, 0)
    assert result.value is not None
    assert result.value > 0.3
    assert result.p is not None
    assert result.p < 0.05
    assert result.details["layer"] == 0  # the matrix is read by the first layer's heads
    assert same(result, LINES["E9"].measure(searcher, FUTURE, 0))
    assert len(future_cities_figure(dict(result.arrays)).data) == len(CONTRASTS) + 1


def test_what_a_first_layer_head_reads_of_an_edit_is_all_that_it_brings() -> None:
    """The twins differ in the entry's tokens alone, which the first layer sees as they enter; a later one does not."""
    subject = loud(layers=2, loudness=40.0)
    pairs = mined_pairs(PROBLEM, "pairs_test", 80, 0)
    tokens = future_tokens(subject, pairs, 2)
    heads = head_flows(subject, pairs, tokens, np.random.default_rng(0))
    assert sorted((head.layer, head.head) for head in heads) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sorted(abs(head.guessed.value) for head in heads) == [abs(head.guessed.value) for head in heads[::-1]]
    first, later = ([head for head in heads if head.layer == layer] for layer in (0, 1))
    for head in first:
        assert head.path.value == pytest.approx(head.whole.value, abs=2e-5)
        assert head.path.value != pytest.approx(head.placebo.value, abs=2e-4)
    assert max(abs(head.path.value - head.whole.value) for head in later) > 2e-4
    few = head_flows(subject, pairs[np.arange(20)], tokens[np.arange(20)], np.random.default_rng(0))
    by_hand = [path_of(subject, pairs[np.arange(20)], tokens[np.arange(20)], head.layer, head.head) for head in few]
    np.testing.assert_allclose([head.path.value for head in few], by_hand, atol=2e-5)
    assert np.abs(by_hand).max() > 1e-3


def path_of(subject: Subject, pairs: CounterfactualPairs, tokens: FutureTokens, layer: int, head: int) -> float:
    """One head's path, pair by pair with plain hooks: the keys and values that the answer's query finds at the entry's
    tokens are those that the head would have, were these tokens the relevant twin's on entering its layer."""
    moved, scale = 0.0, 0.0
    for i in range(len(pairs)):
        prefix = torch.from_numpy(pairs.prefixes[i : i + 1, : pairs.lengths[i]])
        base, twin = (torch.from_numpy(side.features[i : i + 1]) for side in (pairs.base, pairs.relevant))
        hook, z = f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.attn.hook_z"
        streams = [subject.activations(features, prefix, [hook])[hook] for features in (base, twin)]
        at = np.flatnonzero(tokens.entry[i])
        streams[0][:, at] = streams[1][:, at]
        block = subject.module.blocks[layer]  # type: ignore[attr-defined]
        q, k, v = block.attn.qkv(block.ln1(streams[0])).unflatten(-1, (3, 2, 8))[0, :, :, head].unbind(1)
        brought = ((k @ q[-1]) / 8**0.5).softmax(0) @ v  # the last token sees all

        def edit(x: Tensor, hook: object, brought: Tensor = brought) -> Tensor:  # noqa: ARG001
            x = x.clone()
            x[:, -1, head] = brought
            return x

        rival, chosen = int(tokens.rival[i]), int(tokens.chosen[i])
        own, patched = subject.next_city_logits(base, prefix)[0], subject.edited_logits(base, prefix, {z: edit})[0]
        moved += float((patched[rival] - patched[chosen]) - (own[rival] - own[chosen]))
        scale += abs(float(own[rival] - own[chosen]))
    return moved / scale


def test_heads_stand_beside_the_line_and_change_nothing_of_it(
    searcher: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> list[HeadFlow]:
        raise UserError("no heads here")

    result = LINES["E9"].measure(searcher, FUTURE, 0)
    monkeypatch.setattr(future_cities, "head_flows", none)
    without = LINES["E9"].measure(searcher, FUTURE, 0)
    assert len(result.details["heads"]) == TOP_HEADS + DRAWN_HEADS
    assert (without.details["heads"], without.details["no_heads"]) == ([], "no heads here")
    for name in ("status", "reason", "value", "ci", "p", "null"):
        assert getattr(result, name) == getattr(without, name)
    assert result.table is not None
    assert result.table["quantity"].str.startswith("head").sum() == 4 * len(result.details["heads"])
    shown = head_numbers(dict(result.details))
    assert all(f"layer {head['layer']}, head {head['head']}" in shown for head in result.details["heads"])
    assert "no heads here" in head_numbers(dict(without.details))
    assert head_numbers({}) == ""


def test_tokens_are_free_cities_of_the_right_roles(searcher: Subject) -> None:
    pairs = mined_pairs(PROBLEM, "pairs_test", 80, 0)
    tokens = future_tokens(searcher, pairs, 2)
    rows = np.arange(len(pairs))
    for mask in (tokens.planned, tokens.matched):
        assert not mask[rows, tokens.chosen].any()
        assert not mask[rows, tokens.rival].any()
        assert not mask[rows, 0].any()
    assert not (tokens.planned & tokens.matched).any()
    assert (tokens.planned.sum(axis=1) == tokens.matched.sum(axis=1)).mean() > 0.9
    assert (tokens.entry.sum(axis=1) >= 2).all()
    options = np.stack([tokens.entry[rows, tokens.chosen], tokens.matched_entry[rows, tokens.rival]])
    assert not options[:, tokens.eligible].any()


def test_effects_are_signless_thresholded_and_swap_with_their_tokens(searcher: Subject) -> None:
    """Swapping the roles of the two twins' entries turns the ratio's sign: nothing else tells T from M."""
    pairs = mined_pairs(PROBLEM, "pairs_test", 80, 0)
    tokens = future_tokens(searcher, pairs, 2)
    found = flow(searcher, pairs, tokens, FUTURE)
    assert (found.effects >= 0).all()
    small = (found.effects > 0) & (found.effects < FUTURE.negligible * found.scale[None, :, None, None])
    assert not small.any()
    turned = dataclasses.replace(pairs, relevant=pairs.irrelevant, irrelevant=pairs.relevant)
    columns = {**vars(tokens), "entry": tokens.matched_entry, "matched_entry": tokens.entry}
    noising = flow(searcher, turned, FutureTokens(**columns), FUTURE).effects[0, 0]
    np.testing.assert_allclose(noising, found.effects[0, 0, ::-1], atol=1e-4)


def test_problems_without_pairs_and_subjects_without_streams_are_not_measured(rule: Subject) -> None:
    small = make_problem(ProblemConfig(n=6))
    few = gpt_subject(nearest_neighbour_network(6, 64), small, "small", {})
    assert LINES["E9"].measure(few, FUTURE, 0).status == "na"
    result = LINES["E9"].measure(optimal_subject(planted=False), FUTURE, 0)
    assert (result.status, result.value) == ("na", None)
    plane = make_problem(ProblemConfig("euclidean", 8))
    assert "moved point" in str(LINES["E9"].measure(wrap(TourGPT(GPTConfig(8, 1, 1), 8, 2), plane), FUTURE, 0).reason)
    none = LINES["E9"].measure(rule, dataclasses.replace(FUTURE, least_pairs=1000), 0)
    assert none.status == "na"
    assert "pairs" in str(none.reason)


# ---- E10b --------------------------------------------------------------------------------------------------------


def test_taking_the_only_layer_away_gives_its_lens_answer_back() -> None:
    """Without maps (no passes) the lens is the readout, so that silencing the last layer must revert it: always."""
    settings = dataclasses.replace(REVISIONS, lens_passes=0, confidence=0.0)
    result = LINES["E10b"].measure(loud(layers=1), settings, 0)
    assert set(result.details["events_by_revising_layer"]) == {"0"}
    assert result.details["reverted"]["own update"] == 1.0
    assert result.details["reverted"]["random direction"] < 0.9
    assert 0.0 < result.details["gain"] < 1.0
    worse = result.null["flips for the worse"]  # taken away, they revert, too: where there is but one layer, always
    assert worse > 0.0
    assert result.value == pytest.approx(result.details["gain"] - worse)
    assert result.p > 0.01
    assert len(revised_answers_figure(dict(result.arrays)).data) == 2


def test_revisions_repeat_themselves_and_say_when_there_are_too_few(rule: Subject) -> None:
    subject, settings = loud(layers=3), dataclasses.replace(REVISIONS, confidence=0.2)
    first, again = (LINES["E10b"].measure(subject, settings, 0) for _ in range(2))
    assert first.status == "ok"
    assert same(first, again)
    few = LINES["E10b"].measure(rule, dataclasses.replace(REVISIONS, least_events=10_000), 0)
    assert (few.status, few.value) == ("na", None)
    assert few.details["decisions"] == 600


def test_networks_without_a_readout_are_not_measured() -> None:
    result = LINES["E10b"].measure(optimal_subject(planted=False), REVISIONS, 0)
    assert (result.status, result.value) == ("na", None)
