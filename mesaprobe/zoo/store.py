"""Where members lie on disk: weights, config.json and certificate.json, one folder a member.

trained_models/zoo/trained/NAME/     rounded to float16, committed
trained_models/zoo/compiled/NAME/    all but the weights committed; hashes.json says what weights must come out
trained_models/zoo/discarded/NAME/   trained members whose certificate failed: config and certificate, no weights
"""

import shutil
from pathlib import Path

import torch

from mesaprobe.configs import parse_config
from mesaprobe.errors import UserError
from mesaprobe.files import make_folder, read_json, write_json
from mesaprobe.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load, load_tensors, save_tensors
from mesaprobe.models.subject import Subject
from mesaprobe.zoo.certificates import Certificate
from mesaprobe.zoo.members import Member

DEFAULT_FOLDER = Path("trained_models/zoo")
CERTIFICATE_FILE = "certificate.json"
HASHES_FILE = "hashes.json"
DISCARDED = "discarded"


def member_folder(zoo: Path, member: Member) -> Path:
    """The folder of one member."""
    return zoo / ("compiled" if member.compiled else "trained") / member.name


def is_built(zoo: Path, member: Member) -> bool:
    """Whether the weights are there, whole."""
    folder = member_folder(zoo, member)
    needed = (WEIGHTS_FILE, CONFIG_FILE) if member.compiled else (WEIGHTS_FILE, CONFIG_FILE, "metrics.json")
    return all((folder / name).is_file() for name in needed)


def load_member(zoo: Path, member: Member) -> Subject:
    """The network of a member as a Subject."""
    if not is_built(zoo, member):
        raise UserError(f"zoo member {member.name} is not built; run: mesaprobe zoo build --members {member.name}")
    return load(member_folder(zoo, member))


def read_certificate(zoo: Path, member: Member) -> Certificate | None:
    """The stored certificate, also that of a discarded member, or None."""
    for folder in (member_folder(zoo, member), zoo / DISCARDED / member.name):
        path = folder / CERTIFICATE_FILE
        if path.is_file():
            return parse_config(Certificate, read_json(path), str(path))
    return None


def write_certificate(zoo: Path, member: Member, certificate: Certificate) -> None:
    """Store a certificate beside the weights; a trained member that failed loses its weights and is listed under
    `discarded`."""
    folder = member_folder(zoo, member)
    write_json(folder / CERTIFICATE_FILE, certificate)
    if certificate.passed or member.compiled or certificate.kind == "none":
        return
    discarded = make_folder(zoo / DISCARDED) / member.name
    shutil.rmtree(discarded, ignore_errors=True)
    discarded.mkdir()
    for name in (CONFIG_FILE, CERTIFICATE_FILE, "metrics.json", "history.jsonl"):
        if (folder / name).is_file():
            shutil.copy(folder / name, discarded / name)
    shutil.rmtree(folder)


def round_to_float16(folder: Path) -> None:
    """Round stored weights to float16, in place; what is loaded from now on is what was rounded.

    Raises UserError where a weight is too large for it.
    """
    tensors, metadata = load_tensors(folder / WEIGHTS_FILE)
    rounded = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    for name, tensor in rounded.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{folder / WEIGHTS_FILE}: {name} has values that float16 cannot hold")
    save_tensors(folder / WEIGHTS_FILE, rounded, metadata)
