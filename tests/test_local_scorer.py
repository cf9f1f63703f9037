"""The local scorer sees only local features, and is trained, saved, loaded and looked into like any other network."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import FINISHED, TINY, changed, history_of, with_data
from torch import Tensor

from mesaprobe.decoding import greedy_rollout
from mesaprobe.errors import UserError
from mesaprobe.instruments.activations import residual_sites
from mesaprobe.instruments.lens import readout
from mesaprobe.models import GPTConfig, LocalScorer, LocalScorerConfig, Subject, build_network, load, network_subject
from mesaprobe.models.architectures import ARCHITECTURES, parse_architecture
from mesaprobe.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, save_tensors
from mesaprobe.models.local_scorer import LOCAL_FEATURES, local_features
from mesaprobe.problems import Instances, ProblemConfig, make_problem
from mesaprobe.solvers.constructive import nearest_cities
from mesaprobe.training.config import TrainConfig, first_difference, read_train_config
from mesaprobe.training.loop import CHECKPOINT_FILE, Progress, train
from mesaprobe.training.stream import evaluation_instances, make_batch
from mesaprobe.zoo.local_scorer import ignores_far_weights, local_scorer
from mesaprobe.zoo.sanity import memoriser, untrained

N = 7
PROBLEM = make_problem(ProblemConfig(n=N))
SMALL = LocalScorerConfig(width=4, n_layers=3, d_mlp=8, neighbours=2)
TINY_SCORER = changed(model=LocalScorerConfig(width=4, n_layers=2, d_mlp=8))
SHIPPED = sorted(Path("trained_models").glob("*/config.json"))


def scorer(config: LocalScorerConfig = SMALL, seed: int = 3) -> LocalScorer:
    """A scorer whose biases are off their start, so that every part matters."""
    model = LocalScorer(config, N, N, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def states(count: int, seed: int = 0) -> tuple[Instances, np.ndarray]:
    rng = np.random.default_rng(seed)
    tours = np.zeros((count, N), dtype=np.int64)
    tours[:, 1:] = 1 + np.argsort(rng.random((count, N - 1)), axis=1)
    return PROBLEM.draw(count, rng), tours


def subject(config: LocalScorerConfig = SMALL) -> Subject:
    return network_subject(scorer(config), PROBLEM, "scorer")


def tensors(instances: Instances, tours: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(instances.features), torch.from_numpy(tours)


# ---- what it can know --------------------------------------------------------------------------------------------


def test_features_are_what_the_list_says() -> None:
    """Against loops over cities, at every state of random tours."""
    instances, tours = states(3)
    d = instances.features
    neighbours = 3
    for b, tour in enumerate(tours):
        for t in range(N):
            free = [u for u in range(N) if u not in tour[: t + 1]]
            unvisited = torch.tensor([u in free for u in range(N)])
            c, row = tour[t], torch.from_numpy(d[b])
            found = local_features(row[None], row[None, None, c], unvisited[None, None], neighbours)[0, 0].numpy()
            for a in range(N):
                if a not in free:
                    assert found[a].tolist() == [1.0] + [0.0] * (len(LOCAL_FEATURES) - 4 + 3 * neighbours)
                    continue
                now, onward = sorted(d[b, c, free]), sorted(d[b, a, u] for u in free if u != a)
                home = sorted(d[b, 0, u] for u in free if u != a)
                nearer = sum(d[b, c, u] < d[b, c, a] for u in free)
                expected = [0.0, d[b, c, a], nearer / N, d[b, c, a] - now[0], np.mean(now), d[b, c, 0], d[b, a, 0]]
                expected += [np.mean(row) if row else 0.0 for row in (onward, home)] + [len(free) / N]
                for sorted_row in (now, onward, home):
                    expected += (sorted_row + [0.0] * neighbours)[:neighbours]
                np.testing.assert_allclose(found[a], expected, atol=1e-6)


@pytest.mark.parametrize("config", [SMALL, LocalScorerConfig(width=3, n_layers=2, d_mlp=5, neighbours=N)])
def test_far_weights_change_no_bit_of_a_logit(config: LocalScorerConfig) -> None:
    instances, _ = states(20)
    assert ignores_far_weights(subject(config), instances, np.random.default_rng(1)).all()


def test_the_certificate_refuses_a_gpt() -> None:
    instances, _ = states(20)
    gpt = network_subject(untrained(GPTConfig(d_model=8, n_heads=2, n_layers=2, d_mlp=8), n=N), PROBLEM, "gpt")
    assert ignores_far_weights(gpt, instances, np.random.default_rng(1)).mean() < 0.2


def test_near_weights_do_change_the_logit() -> None:
    """d(c, a), d(a, 0), d(c, 0) and a weight to an unvisited city from a, c and 0 each matter."""
    instances, tours = states(1)
    c, a, other = tours[0, 2], tours[0, 3], tours[0, 4]
    prefix = torch.from_numpy(tours[:, :3])
    before = subject().next_city_logits(torch.from_numpy(instances.features), prefix)[0, a]
    for u, v in ((c, a), (a, 0), (c, 0), (a, other), (c, other), (0, other)):
        weights = instances.weights.copy()
        weights[0, u, v] = weights[0, v, u] = 65 - weights[0, u, v]
        features = torch.from_numpy(Instances(PROBLEM, weights).features)
        assert subject().next_city_logits(features, prefix)[0, a] != before


def test_later_cities_do_not_leak() -> None:
    features, tours = tensors(*states(8))
    changed_tours = torch.cat([tours[:, :3], tours[:, 3:].flip(1)], dim=1)
    logits = subject().logits(features, tours)
    assert torch.equal(subject().logits(features, changed_tours)[:, :3], logits[:, :3])
    for length in range(1, N + 1):
        alone = subject().next_city_logits(features, tours[:, :length])
        torch.testing.assert_close(alone, logits[:, length - 1], atol=1e-5, rtol=1e-5)


def test_renaming_the_cities_renames_the_logits() -> None:
    """City order carries nothing: city 0 stays, the others are permuted."""
    instances, tours = states(8)
    order = np.concatenate([[0], 1 + np.random.default_rng(0).permutation(N - 1)])
    renamed = Instances(PROBLEM, instances.weights[:, order][:, :, order])  # city i is now order[i]
    names = np.argsort(order)
    logits = subject().logits(*tensors(instances, tours))
    again = subject().logits(*tensors(renamed, names[tours]))
    torch.testing.assert_close(again, logits[:, :, order], atol=1e-5, rtol=1e-5)


def test_all_visited_cities_have_one_logit() -> None:
    features, tours = tensors(*states(4))
    logits = subject().logits(features, tours)
    for t in range(1, N):
        seen = logits[:, t].gather(1, tours[:, : t + 1])
        assert torch.equal(seen, seen[:1, :1].expand_as(seen))


def test_it_can_be_nearest_neighbour() -> None:
    """Weights by hand: minus the share of nearer cities, and visited cities last."""
    model = LocalScorer(LocalScorerConfig(width=2, n_layers=1, neighbours=0), N, N).requires_grad_(False)
    embed, score = model.blocks[0].embed, model.unembed.score
    for parameter in (embed.weight, score.weight):
        parameter.zero_()
    embed.weight[
        0, LOCAL_FEATURES.index(next(x for x in LOCAL_FEATURES if x.startswith("share of cities that are")))
    ] = 1
    embed.weight[0, 0] = 10
    score.weight[0, 0] = -1
    instances, _ = states(200)
    rollout = greedy_rollout(network_subject(model, PROBLEM, "nearest"), torch.from_numpy(instances.features))
    assert rollout.legal.all()
    tours = rollout.tours.numpy()
    nearest = nearest_cities(instances.weights, tours)
    assert np.take_along_axis(nearest, tours[:, 1:, None], axis=2).all()


@pytest.mark.parametrize(("family", "width"), [("euclidean", 2), ("asymmetric", 2 * N)])
def test_distances_are_read_from_any_familys_features(family: str, width: int) -> None:
    problem = make_problem(ProblemConfig(family=family, n=N))
    instances = problem.draw(5, np.random.default_rng(0))
    model = build_network(SMALL, problem)
    assert model.n_features == width
    cities, _ = model.tokens(torch.from_numpy(instances.features), torch.zeros(5, 1, dtype=torch.long))
    rows = cities[:, :, :N].numpy()
    scale = problem.config.grid if family == "euclidean" else problem.config.levels
    # Euclidean weights are rounded up to whole units of the grid
    np.testing.assert_allclose(rows, instances.weights / scale, atol=2e-4 if family == "euclidean" else 1e-6)


# ---- looking into it ---------------------------------------------------------------------------------------------


def test_hooks_have_the_names_and_shapes_that_instruments_expect() -> None:
    features, tours = tensors(*states(4))
    found = residual_sites(subject(), roles=("decode",))
    assert [site.hook for site in found] == [
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_post",
        *(f"blocks.{layer}.hook_{kind}" for layer in (1, 2) for kind in ("mlp_out", "resid_post")),
    ]
    seen = subject().activations(features, tours[:, :3], list(subject().hook_names))
    shapes = {tuple(value.shape) for name, value in seen.items() if ".mlp." not in name and "features" not in name}
    assert shapes == {(4, N + 3, N * SMALL.width)}
    assert seen["blocks.1.mlp.hook_post"].shape == (4, N + 3, N * SMALL.d_mlp)
    torch.testing.assert_close(
        seen["blocks.1.hook_resid_pre"] + seen["blocks.1.hook_mlp_out"], seen["blocks.1.hook_resid_post"]
    )


def test_the_last_stream_alone_decides() -> None:
    features, tours = tensors(*states(4))
    stream = subject().activations(features, tours, ["blocks.2.hook_resid_post"])["blocks.2.hook_resid_post"]
    assert torch.equal(readout(subject())(stream[:, N:]), subject().logits(features, tours))


def test_looking_changes_nothing() -> None:
    """Every hook point held at once, by edits that return what they see: the same logits to the last bit."""
    features, tours = tensors(*states(4))
    edits = {name: lambda activation, hook: activation.clone() for name in subject().hook_names}  # noqa: ARG005
    logits = subject().next_city_logits(features, tours[:, :3])
    assert torch.equal(subject().edited_logits(features, tours[:, :3], edits), logits)


def test_swapping_what_block_0_reads_swaps_the_answer() -> None:
    """The stream is the only way in: the source's first stream gives the source's logits exactly."""
    features, tours = tensors(*states(4))
    other, other_tours = tensors(*states(4, seed=1))
    hook = "blocks.0.hook_resid_pre"
    source = subject().activations(other, other_tours, [hook])[hook]
    edited = subject().edited_logits(features, tours, {hook: lambda activation, hook: source})  # noqa: ARG005
    assert torch.equal(edited, subject().next_city_logits(other, other_tours))


# ---- files and training ------------------------------------------------------------------------------------------


def test_a_saved_scorer_answers_as_before(tmp_path: Path) -> None:
    save_tensors(tmp_path / WEIGHTS_FILE, scorer().state_dict())
    config = {"problem": vars(PROBLEM.config), "model": dataclasses.asdict(SMALL)}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    loaded = load(tmp_path)
    features, tours = tensors(*states(4))
    assert torch.equal(loaded.logits(features, tours), subject().logits(features, tours))
    assert {key: loaded.description[key] for key in ("layers", "d_model")} == {"layers": 3, "d_model": 28}
    twins = [loaded.random_twin(seed).logits(features, tours) for seed in (1, 1, 2)]
    assert torch.equal(twins[0], twins[1])
    assert not torch.equal(twins[0], twins[2])


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: path.parent.name)
def test_models_from_before_there_was_a_choice_are_gpts(config: Path) -> None:
    model = read_train_config(config).model
    assert isinstance(model, GPTConfig)
    assert load(config.parent).description["layers"] == model.n_layers


def test_an_architecture_that_does_not_exist_ends_in_one_sentence(tmp_path: Path) -> None:
    for name in ("crystal_ball", ["gpt"]):
        (tmp_path / CONFIG_FILE).write_text(json.dumps({"model": {"architecture": name}}))
        with pytest.raises(UserError, match=r"config\.json, model: unknown architecture .*; known: gpt, local_scorer"):
            read_train_config(tmp_path / CONFIG_FILE)
    with pytest.raises(UserError, match=r"has the unknown key 'd_model'; known keys: width"):
        parse_architecture({"architecture": "local_scorer", "d_model": 8}, "here")
    with pytest.raises(UserError, match=r"model\.width must be at least 2, got 1"):
        LocalScorerConfig(width=1)


def test_every_architecture_is_named_as_it_is_registered() -> None:
    for name in ARCHITECTURES:
        config = ARCHITECTURES[name].config()
        assert config.architecture == name
        network = build_network(config, PROBLEM)
        assert network_subject(network, PROBLEM, name).description["layers"] == config.n_layers
        weights, _ = config.floats(N, N)
        assert 0.5 < weights / sum(p.numel() for p in network.parameters()) < 1.5


def test_other_architectures_are_other_configs() -> None:
    assert first_difference(TINY, TINY_SCORER) == "model.architecture ('gpt' against 'local_scorer')"
    assert first_difference(TINY_SCORER, TINY_SCORER) is None


class Stop(Exception):
    pass


def stop_at_step_4(progress: Progress) -> None:
    if progress.step == 4:
        raise Stop


def test_a_scorer_trains_resumes_and_loads(tmp_path: Path) -> None:
    train(TINY_SCORER, tmp_path / "whole")
    assert {path.name for path in (tmp_path / "whole").iterdir()} == FINISHED
    assert read_train_config(tmp_path / "whole" / CONFIG_FILE) == TINY_SCORER
    with pytest.raises(Stop):
        train(TINY_SCORER, tmp_path / "cut", show=stop_at_step_4)
    assert (tmp_path / "cut" / CHECKPOINT_FILE).exists()
    with pytest.raises(UserError, match=r"begun with another config, model\.architecture"):
        train(TINY, tmp_path / "cut", resume=True)
    train(TINY_SCORER, tmp_path / "cut", resume=True)
    assert load(tmp_path / "cut").weights_hash == load(tmp_path / "whole").weights_hash
    assert history_of(tmp_path / "cut") == history_of(tmp_path / "whole")
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "A scorer of single candidates by local features that names" in card
    assert "2 layers, no attention, d_model 5 * 4" in card


def test_a_scorer_learns(tmp_path: Path) -> None:
    config = changed(TINY_SCORER, steps=250, evaluate_every=250, batch_size=64, evaluation_instances=400)
    config = changed(config, optimiser=local_scorer().optimiser)
    natural = train(config, tmp_path / "run")["natural"]
    beginner = network_subject(
        build_network(config.model, make_problem(config.problem)), make_problem(config.problem), ""
    )
    drawn = evaluation_instances(config, "natural", 400).instances
    rollout = greedy_rollout(beginner, torch.from_numpy(drawn.features))
    assert natural.legal_fraction > 0.99 > rollout.legal.float().mean()
    assert natural.gap_mean < 0.1


# ---- sanity members ----------------------------------------------------------------------------------------------


def test_a_memoriser_sees_the_same_instances_again_and_again() -> None:
    config = with_data(fixed_instances=6)
    pool = {row.tobytes() for row in evaluation_instances(config, "fixed", 100).instances.features}
    assert len(pool) == 6
    batches = [make_batch(config, step) for step in (0, 1, 7)]
    seen = [{row.tobytes() for row in batch.features} for batch in batches]
    assert set().union(*seen) == pool
    assert not np.array_equal(batches[0].features, batches[1].features), "drawn anew in every batch"
    assert not pool & {row.tobytes() for row in evaluation_instances(config, "natural", 100).instances.features}
    other = evaluation_instances(changed(config, seed=1), "fixed", 100).instances.features
    assert not pool & {row.tobytes() for row in other}
    with pytest.raises(UserError, match=r"data\.fixed_instances must not be negative, got -1"):
        with_data(fixed_instances=-1)


def test_a_run_on_fixed_instances_measures_them_too(tmp_path: Path) -> None:
    config = with_data(fixed_instances=6)
    sets = train(config, tmp_path / "run")
    assert list(sets) == ["fixed", "natural", "greedy_fails"]
    assert [sets[kind].instances for kind in sets] == [6, 40, 40]
    assert "16 of the same 6 instances" in (tmp_path / "run" / "README.md").read_text()
    assert isinstance(memoriser(), TrainConfig)
