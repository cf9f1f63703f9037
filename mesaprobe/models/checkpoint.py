"""Saved models: `model.safetensors` and `config.json` in one folder. Nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mesaprobe.configs import parse_config
from mesaprobe.errors import UserError
from mesaprobe.files import atomic_path, read_json
from mesaprobe.models.architectures import parse_architecture
from mesaprobe.models.networks import build_network, network_subject
from mesaprobe.models.subject import Subject
from mesaprobe.problems import ProblemConfig, make_problem

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def save_tensors(target: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors (and text metadata) to one safetensors file, atomically."""
    with atomic_path(target) as temporary:
        try:
            save_file(
                {name: t.detach().contiguous().cpu() for name, t in tensors.items()},
                temporary,
                dict(metadata or {}),
            )
        except SafetensorError as error:
            raise UserError(f"cannot write {target}: {error}") from error


def load_tensors(source: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; a missing or damaged file ends in one sentence."""
    if not source.is_file():
        raise UserError(f"{source} does not exist")
    try:
        with safe_open(source, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{source} is no readable safetensors file: {error}") from error


def load_weights(model: torch.nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Put tensors into the model; names and shapes must match exactly, values must be finite."""
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(tensors))
    if wrong:
        raise UserError(f"{source} does not fit config.json: tensor {wrong[0]!r} is on one side only")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"{source} does not fit config.json: {name} should have shape {tuple(own[name].shape)}, "
                f"got {tuple(tensor.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise UserError(f"{source} holds NaN or infinite values in {name}")
    model.load_state_dict(dict(tensors))


def load(path: str | Path, *, device: str = "cpu") -> Subject:
    """The Subject saved in a folder such as `trained_models/matrix8-optimal`.

    Raises UserError for a missing folder, an unknown key in its config, or damaged weights.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder with a saved model")
    config = read_json(folder / CONFIG_FILE)
    where = str(folder / CONFIG_FILE)
    if not isinstance(config, Mapping) or "problem" not in config or "model" not in config:
        raise UserError(f"{where} must name a problem and a model")
    problem = make_problem(parse_config(ProblemConfig, config["problem"], f"{where}, problem"))
    shape = parse_architecture(config["model"], f"{where}, model")
    tensors, _ = load_tensors(folder / WEIGHTS_FILE)
    model = build_network(shape, problem)
    load_weights(model, tensors, folder / WEIGHTS_FILE)
    description: dict[str, Any] = {
        "path": str(path),
        "teacher": config.get("teacher"),
        "arm": config.get("arm"),
    }
    return network_subject(model.to(device), problem, folder.name or str(folder), description)
