"""Arrays that are slow to compute, kept on disk by content hash.

The key is a hash of the request and of the source code that answers it (problems, solvers, labels), so a changed
line of code never meets an old answer. Arrays lie in `DATA-HASH.npz`, named after their bytes and read without
pickle; `KEY.json` points to them. Both are written atomically and an array file is never changed, so any number of
processes may share a folder: at worst two compute the same. What does not match its hash is computed anew.
"""

import functools
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mesaprobe
from mesaprobe.errors import UserError
from mesaprobe.files import atomic_path, make_folder, plain, read_json, write_json

_ROOMS = ("problems", "solvers", "labels")


def cached_arrays(
    folder: Path | None, request: Mapping[str, Any], compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What `compute` returns, from the cache in `folder` if it is there; with None, always computed.

    `request` is everything that the arrays depend on, as JSON knows it. Raises UserError if the folder can't be
    made or written.
    """
    if folder is None:
        return compute()
    make_folder(folder)
    question = {**plain(dict(request)), "code": _code_hash()}
    pointer = folder / f"{_hash(json.dumps(question, sort_keys=True).encode())}.json"
    found = _read(pointer, question)
    if found is None:
        found = compute()
        _write(pointer, question, found)
    return found


def _read(pointer: Path, request: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays, or None unless pointer and array file are there, whole, and about this request."""
    try:
        entry = read_json(pointer)
        if entry["request"] != request:
            return None
        data = (pointer.parent / f"{entry['data']}.npz").read_bytes()
        if _hash(data) != entry["data"]:
            return None
    except (UserError, OSError, KeyError, TypeError):
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _write(pointer: Path, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    data = buffer.getvalue()
    with atomic_path(pointer.parent / f"{_hash(data)}.npz") as temporary:
        temporary.write_bytes(data)
    write_json(pointer, {"request": request, "data": _hash(data)})


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@functools.cache
def _code_hash() -> str:
    """Hash of the source files of the rooms whose answers are cached, and of numpy's version (random streams)."""
    root = Path(mesaprobe.__file__).parent
    sources = sorted(path for room in _ROOMS for path in (root / room).rglob("*.py"))
    text = b"".join(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() for path in sources)
    return _hash(np.__version__.encode() + text)
