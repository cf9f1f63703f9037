"""Saved models and the Subject interface: what is loaded, wrapped, read and edited, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import BATCH, MODES, PROBLEM, SMALL, Foreign, N, difference, erase, inputs, keep, network, shape
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.errors import UserError
from mesaprobe.models import UNKNOWN, GPTConfig, Subject, TourGPT, gpt_subject, load, wrap
from mesaprobe.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, save_tensors

# ---- files -----------------------------------------------------------------------------------------------------


def write_model(folder: Path, config: GPTConfig = SMALL, seed: int = 3) -> TourGPT:
    model = network(config, seed=seed)
    folder.mkdir(exist_ok=True)
    save_tensors(folder / WEIGHTS_FILE, model.state_dict())
    settings = {"problem": vars(PROBLEM.config), "model": vars(config), "teacher": "optimal", "arm": "A0"}
    (folder / CONFIG_FILE).write_text(json.dumps(settings))
    return model


@pytest.mark.parametrize("attention", MODES)
def test_a_saved_model_answers_as_before(tmp_path: Path, attention: str) -> None:
    model = write_model(tmp_path / "kept", shape(attention, norm="layer", d_head=3))
    subject = load(tmp_path / "kept")
    features, tours = inputs()
    original = gpt_subject(model, PROBLEM, "kept", {})
    assert torch.equal(subject.logits(features, tours), original.logits(features, tours))
    assert subject.problem.config == PROBLEM.config
    assert (subject.name, subject.description["attention"], subject.description["teacher"]) == (
        "kept",
        attention,
        "optimal",
    )
    assert subject.description["parameters"] == sum(p.numel() for p in model.parameters())


def edited_config(part: str, key: str, value: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text())
        config[part][key] = value
        (folder / CONFIG_FILE).write_text(json.dumps(config))

    return edit


def edited_weights(edit: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        edit(tensors)
        save_file(tensors, folder / WEIGHTS_FILE)

    return rewrite


def edited_bytes(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / WEIGHTS_FILE).write_bytes(edit((folder / WEIGHTS_FILE).read_bytes())) and None


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS_FILE).unlink(), r"model\.safetensors does not exist"),
    "empty": (edited_bytes(lambda _: b""), "no readable safetensors file"),
    "cut in the header": (edited_bytes(lambda data: data[:40]), "no readable safetensors file"),
    "cut in the data": (edited_bytes(lambda data: data[:-1]), "no readable safetensors file"),
    "noise": (edited_bytes(lambda data: np.random.default_rng(0).bytes(len(data))), "no readable safetensors file"),
    "a pickle": (
        lambda folder: torch.save({"x": torch.ones(2)}, folder / WEIGHTS_FILE),
        "no readable safetensors file",
    ),
    "lacks a tensor": (edited_weights(lambda t: t.pop("pos.weight")), "'pos.weight' is on one side only"),
    "has another": (edited_weights(lambda t: t.update(extra=torch.ones(2))), "'extra' is on one side only"),
    "wrong shape": (
        edited_weights(lambda t: t.update({"pos.weight": torch.ones(5, 16)})),
        r"pos\.weight should have shape \(6, 16\), got \(5, 16\)",
    ),
    "NaN": (edited_weights(lambda t: t["city.bias"].fill_(torch.nan)), r"NaN or infinite values in city\.bias"),
    "infinite": (edited_weights(lambda t: t["city.bias"].fill_(torch.inf)), r"NaN or infinite values in city\.bias"),
    "no config": (lambda folder: (folder / CONFIG_FILE).unlink(), r"config\.json does not exist"),
    "config not JSON": (lambda folder: (folder / CONFIG_FILE).write_text("{"), "not valid JSON: line 1"),
    "config a list": (lambda folder: (folder / CONFIG_FILE).write_text("[]"), "must name a problem and a model"),
    "unknown key": (edited_config("model", "d_modle", 16), "unknown key 'd_modle'; known keys: d_model"),
    "unknown value": (edited_config("model", "attention", "casual"), "must be one of 'causal', 'prefix'"),
    "wrong type": (edited_config("model", "n_heads", "two"), "n_heads must be of type int, got 'two'"),
    "impossible shape": (edited_config("model", "n_heads", 3), "must be a multiple"),
    "unknown family": (edited_config("problem", "family", "torus"), "unknown problem family 'torus'; known: "),
    "other depth": (edited_config("model", "n_layers", 2), "does not fit config.json: tensor 'blocks.2"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_model_ends_in_one_sentence(tmp_path: Path, case: str) -> None:
    damage, message = BROKEN[case]
    write_model(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_ends_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder with a saved model"):
        load(tmp_path / "absent")


# ---- subjects --------------------------------------------------------------------------------------------------


def test_wrap_takes_a_foreign_network() -> None:
    features, tours = inputs()
    by_tour = wrap(Foreign(), PROBLEM)
    logits = by_tour.logits(features, tours)
    assert logits.shape == (BATCH, N - 1, N)
    assert torch.equal(by_tour.next_city_logits(features, tours[:, :3]), logits[:, 2])
    acts = by_tour.activations(features, tours, ["hook_seen"])
    assert {name: tuple(value.shape) for name, value in acts.items()} == {"hook_seen": (BATCH, N - 1, 8)}
    edited = by_tour.edited_logits(features, tours, {"hook_seen": erase})
    assert torch.equal(edited, by_tour.module.out.bias.expand(BATCH, -1))
    assert torch.equal(by_tour.logits(features, tours), logits), "an edit must leave nothing behind"


def test_wrap_picks_decode_positions_from_a_whole_sequence() -> None:
    features, tours = inputs()
    module = Foreign(positions="sequence")
    subject = wrap(module, PROBLEM, decode_positions=range(N, 2 * N))
    assert torch.equal(subject.logits(features, tours), module(features, tours)[:, N:].detach())
    assert (subject.decode_position(1), subject.city_positions) == (N, tuple(range(N)))
    for length in (N - 1, N):  # a tour as long as the instance block must not be taken for it
        some = inputs(length=length)
        assert torch.equal(subject.logits(*some), module(*some)[:, N:].detach())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Foreign("width"), r"must give logits \[batch, position, n\] = \[1, .., 6\], got \(1, 2, 7\)"),
        (Foreign("rank"), r"got \(1, 6\)"),
        (Foreign("raises"), r"forward\(features \[1, 6, 6\], tour \[1, 2\]\) failed: KeyError: 'nothing here'"),
        (Foreign("leak"), "changes when later cities of the tour are shown"),
        (TourGPT(shape("bidirectional"), N, N), "changes when later cities of the tour are shown"),
        (TourGPT(SMALL, N + 1, N), "failed: ValueError: features must have shape"),
    ],
)
def test_wrap_refuses_what_is_no_subject(module: HookedRootModule, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        wrap(module, PROBLEM)
    assert "\n" not in str(caught.value)


def test_wrap_refuses_decode_positions_beyond_the_logits() -> None:
    with pytest.raises(UserError, match="give decode_positions inside that range"):
        wrap(Foreign(positions="sequence"), PROBLEM, decode_positions=range(20, 20 + N))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_features_must_be_finite(bad: float) -> None:
    features, tours = inputs()
    features[1, 2, 3] = bad
    subject = gpt_subject(network(), PROBLEM, "net", {})
    calls: list[Callable[[], object]] = [
        lambda: subject.logits(features, tours),
        lambda: subject.next_city_logits(features, tours),
        lambda: subject.activations(features, tours, ["hook_embed"]),
        lambda: subject.edited_logits(features, tours, {}),
    ]
    for call in calls:
        with pytest.raises(UserError, match="NaN or infinite"):
            call()


def test_unknown_hooks_are_refused_by_name() -> None:
    features, tours = inputs()
    subject = gpt_subject(network(), PROBLEM, "net", {})
    with pytest.raises(UserError, match=r"net has no hook point 'blocks.9.hook_resid_pre'"):
        subject.activations(features, tours, ["blocks.9.hook_resid_pre"])
    with pytest.raises(UserError, match="no hook point 'typo'"):
        subject.edited_logits(features, tours, {"typo": keep})


@pytest.mark.parametrize("subject", [gpt_subject(network(), PROBLEM, "net", {}), wrap(Foreign(), PROBLEM)])
def test_random_twins_differ_and_repeat(subject: Subject) -> None:
    features, tours = inputs()
    own = subject.logits(features, tours)
    twin, again, other = (subject.random_twin(seed).logits(features, tours) for seed in (1, 1, 2))
    assert torch.equal(twin, again)
    assert difference(own, twin) > 1e-2
    assert difference(twin, other) > 1e-2
    assert torch.equal(subject.logits(features, tours), own)


def test_a_bidirectional_subject_answers_from_the_prefix_alone() -> None:
    subject = gpt_subject(network(shape("bidirectional")), PROBLEM, "net", {})
    features, tours = inputs(length=N - 1)
    assert not subject.sequential
    logits = subject.logits(features, tours)
    assert logits.shape == (BATCH, N - 1, N)
    for length in range(1, N):
        prefix = tours[:, :length]
        assert torch.equal(subject.next_city_logits(features, prefix), logits[:, length - 1])
        masked = torch.full((BATCH, N), UNKNOWN)
        masked[:, :length] = prefix
        assert torch.equal(subject.module(features, masked)[:, length], logits[:, length - 1])
        assert torch.equal(subject.edited_logits(features, prefix, {"hook_embed": keep}), logits[:, length - 1])
        assert subject.decode_position(length) == N + length
    acts = subject.activations(features, tours[:, :2], ["blocks.0.hook_resid_pre"])
    assert acts["blocks.0.hook_resid_pre"].shape == (BATCH, 2 * N, SMALL.d_model)
