"""Files that are whole or absent: write beside the target, then rename."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mesaprobe.errors import UserError


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path in the folder of `target` that becomes `target` when the block ends without an error.

    A reader, or a process killed at any moment, sees the old file or the new one and never half of one.
    The data is flushed to the disk before the rename. Raises UserError if the folder can't be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` atomically (UTF-8)."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Dataclasses become objects; NaN is refused."""
    write_text(target, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_json_lines(target: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(target, "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in rows))


def read_json(source: Path) -> Any:
    """Read a JSON file; a missing or broken one ends in one sentence that names it."""
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{source} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{source} is not valid JSON: line {error.lineno}, {error.msg}") from error


def read_json_lines(source: Path) -> list[Any]:
    """Read one JSON value a line; a missing or broken file ends in one sentence that names it."""
    try:
        return [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{source} cannot be read as one JSON value a line: {error}") from error


def plain(value: Any) -> Any:
    """Dataclasses, tuples, paths and numpy scalars as the plain types that JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def make_folder(folder: Path) -> Path:
    """Create `folder` (and its parents) and check that it can be written to; else one clear sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"the folder {folder} is not writable")
    return folder


def remove_partial_files(folder: Path) -> None:
    """Delete what an interrupted `atomic_path` left behind in `folder`."""
    for leftover in folder.glob(".*.partial"):
        leftover.unlink(missing_ok=True)
