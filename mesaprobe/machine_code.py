"""Where numba keeps compiled functions: a folder that changes with the sources.

numba recompiles a function when its own file changes, but not when a compiled function that it calls changes in
another file; the stale machine code then gives wrong results or crashes. So the name of the folder is a hash
over all files that hold compiled functions.
"""

import hashlib
import os
import shutil
import time
from pathlib import Path

_ROOMS = ("solvers", "labels")
_KEPT_SECONDS = 7 * 24 * 3600


def cache_folder() -> Path | None:
    """The folder for the sources as they are now, or None where no folder can be made (numba then looks for one).

    Folders of other sources are dropped after a week.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(source for room in _ROOMS for source in (package / room).rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode())
        digest.update(path.read_bytes())
    try:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesaprobe"
        folder = parent / f"numba-{digest.hexdigest()[:16]}"
        if not folder.exists():
            _drop_old(parent)
            folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a home that is not there, or not writable
        return None
    return folder


def _drop_old(parent: Path) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for other in parent.glob("numba-*"):
        if other.stat().st_mtime < oldest:
            shutil.rmtree(other, ignore_errors=True)
