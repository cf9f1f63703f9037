"""Arms: what each one is trained on, what is stopped, and that the command line takes them by one flag."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import FINISHED, TINY, changed
from torch import nn

from mesaprobe.cli import main
from mesaprobe.errors import UserError
from mesaprobe.models import GPTConfig, TourGPT, load, to_bridge
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import DataConfig, EditingConfig, TrainConfig, resolved
from mesaprobe.training.loop import Progress, train
from mesaprobe.training.masking import masked_targets, random_masks
from mesaprobe.training.myopic import myopic_logits
from mesaprobe.training.objectives import find_objective
from mesaprobe.training.stream import make_batch

N = 6
SHAPE = GPTConfig(d_model=16, n_layers=3, n_heads=2, d_mlp=16)


def _loud(network: TourGPT) -> TourGPT:
    """Weights large enough that attention matters."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.4, generator=torch.Generator().manual_seed(parameter.numel()))
    return network


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tours = torch.stack([torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(N - 1)]) for _ in range(4)])
    return torch.rand(4, N, N, generator=generator), tours[:, : N - 1]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_trains_by_one_flag_and_loads(arm: str, tmp_path: Path) -> None:
    words = ["train", "--arm", arm, "--out", str(tmp_path / "run"), "--problem.n", "5", "--model.d-model", "16"]
    words += ["--model.d-mlp", "16", "--steps", "3", "--batch-size", "8", "--evaluation-instances", "16"]
    main([*words, "--data.workers", "0", "--threads", "1"])
    assert {path.name for path in (tmp_path / "run").iterdir()} >= FINISHED
    subject = load(tmp_path / "run")
    assert subject.description["arm"] == arm
    assert subject.sequential is not ARMS[arm].edits
    assert subject.next_city_logits(torch.rand(2, 5, 5), torch.tensor([[0, 2]] * 2)).shape == (2, 5)


def test_a_resumed_run_of_annealed_rollouts_ends_with_the_same_weights(tmp_path: Path) -> None:
    config = changed(arm="A2", editing=EditingConfig(rollout_share=0.5))
    train(config, tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", show=stop)
    train(config, tmp_path / "cut", resume=True)
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_myopic_losses_reach_no_earlier_tour_position() -> None:
    """The gradient of one decision's logits at every layer's stream: zero at earlier tour positions, and only there."""
    network = _loud(TourGPT(SHAPE, N, N))
    features, tours = _inputs()
    for forward, stopped in ((myopic_logits, True), (lambda net, f, t: net(f, t), False)):
        streams: list[torch.Tensor] = []

        def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...], streams: list[torch.Tensor] = streams) -> None:
            inputs[0].retain_grad()
            streams.append(inputs[0])

        handles = [block.ln1.register_forward_pre_hook(keep) for block in network.blocks]
        logits = forward(network, features, tours)
        logits[:, 3].square().sum().backward()
        for handle in handles:
            handle.remove()
        for layer, stream in enumerate(streams):
            reach = stream.grad.abs().sum((0, 2))  # type: ignore[union-attr]
            assert (reach[N : N + 3] == 0).all() == stopped, "earlier decisions"
            assert reach[N + 3] > 0, "its own position"
            assert (reach[:N] > 0).all(), f"the instance block, layer {layer}"
            assert (reach[N + 4 :] == 0).all(), "later decisions"


def test_myopic_training_changes_no_answer() -> None:
    network = _loud(TourGPT(SHAPE, N, N))
    features, tours = _inputs()
    assert torch.allclose(myopic_logits(network, features, tours), network(features, tours), atol=1e-4, rtol=1e-4)


def test_tied_blocks_are_one_block_and_fit_any_number_of_loops() -> None:
    network = _loud(TourGPT(dataclasses.replace(SHAPE, tied=True), N, N))
    assert not [name for name in network.state_dict() if name.startswith(("blocks.1", "blocks.2"))]
    longer = TourGPT(dataclasses.replace(SHAPE, tied=True, n_layers=5), N, N, seed=3)
    longer.load_state_dict(network.state_dict())
    features, tours = _inputs()
    stream = network(features, tours, stop_at_layer=3)
    for _ in range(2):
        stream = network(None, None, resid=stream, start_at_layer=0, stop_at_layer=1)
    expected = network(None, None, resid=stream, start_at_layer=3)
    assert torch.allclose(longer(features, tours), expected, atol=1e-5)
    assert torch.allclose(to_bridge(network)(features, tours), network(features, tours), atol=1e-4)
    assert len(network.hook_dict) == len(TourGPT(SHAPE, N, N).hook_dict)


def test_masked_batches_hide_what_they_ask_for() -> None:
    config = resolved(TrainConfig(arm="A1", data=DataConfig(workers=0)), 1)
    batch = make_batch(config, 0)
    assert batch.masked is not None
    assert set(batch.masked.sum(axis=1).tolist()) == {2, 3, 4, 5, 6, 7}
    np.testing.assert_allclose(batch.targets.sum(axis=2), batch.masked, atol=1e-5)
    known = np.zeros((*batch.tours.shape, 8), dtype=bool)
    np.put_along_axis(known, batch.tours[:, :, None], ~batch.masked[:, :, None], axis=2)
    assert not (known.any(axis=1)[:, None] & (batch.targets > 0)).any(), "no known city is asked for again"
    free = batch.masked.sum(axis=1) == 7
    assert ((batch.targets[free] > 0).sum(axis=2)[:, 1] >= 2).all(), "with nothing known both directions are right"


def test_other_teachers_are_asked_for_their_own_tours() -> None:
    tours, weights = np.array([[0, 1, 2, 3]]), np.ones((1, 4, 4), np.int32)
    every = np.array([[False, True, True, True]])
    both = masked_targets(weights, tours, every, exact=False, symmetric=True)[0]
    assert both[1].tolist() == [0, 0.5, 0, 0.5]
    assert both[2].tolist() == [0, 0, 1, 0]
    known = masked_targets(weights, tours, np.array([[False, False, True, True]]), exact=False, symmetric=True)[0]
    assert known[3].tolist() == [0, 0, 0, 1], "the reverse does not agree"


def test_masks_leave_city_zero() -> None:
    masks = random_masks(300, 5, np.random.default_rng(0))
    assert not masks[:, 0].any()
    assert masks.sum(axis=1).min() == 2


def test_losses_of_untrained_networks_are_those_of_chance() -> None:
    """Every objective is a cross-entropy, about log n where nothing is known yet."""
    for arm in ARMS:
        config = resolved(dataclasses.replace(TINY, arm=arm), 1)
        network = TourGPT(config.model, 5, 5)  # type: ignore[arg-type]
        loss = find_objective(arm)(network, make_batch(config, 0), config, 0)
        assert float(loss.detach()) == pytest.approx(np.log(5), abs=0.15), arm


def test_arms_refuse_what_they_cannot_train() -> None:
    with pytest.raises(UserError, match="causal"):
        TrainConfig(arm="A1", model=GPTConfig(attention="causal"))
    with pytest.raises(UserError, match="bidirectional"):
        TrainConfig(model=GPTConfig(attention="bidirectional"))


def test_the_report_draws_shares_of_hardness_and_outer_compute(tmp_path: Path) -> None:
    from mesaprobe.analysis.history import training_curve
    from mesaprobe.report.training import hardness_figure, outer_figure, training_section
    from mesaprobe.training.curriculum import CurriculumConfig

    train(changed(curriculum=CurriculumConfig(order="easy_to_hard")), tmp_path / "run")
    arrays = training_curve(load(tmp_path / "run"))
    assert arrays is not None
    shares = np.stack([np.array(trace.y) for trace in hardness_figure(arrays).data])
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    assert {"beam, best", "simulated annealing, best"} <= {trace.name for trace in outer_figure(arrays).data}
    assert "Share of each level" in str(training_section(arrays))
    assert "A0: plain left-to-right GPT" in (tmp_path / "run" / "README.md").read_text()
