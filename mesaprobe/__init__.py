"""mesaprobe: does a neural network search, or does it run heuristics?

    subject = mesaprobe.load("trained_models/matrix8-optimal")
    analysis = mesaprobe.analyze(subject)
    analysis.frame()

Names load on first use, so that importing mesaprobe (and `mesaprobe --help`) stays quick.
"""

import importlib
import os
import sys
import warnings
from typing import Any

from mesaprobe.machine_code import cache_folder

# numba reads these once, when it is imported. Without the first, the dynamic program is 4x slower and says nothing.
if "numba" in sys.modules and os.environ.get("NUMBA_SLP_VECTORIZE") != "1":
    warnings.warn(
        "numba was imported before mesaprobe: set NUMBA_SLP_VECTORIZE=1 before that import, "
        "or the exact solver runs about 4 times slower",
        RuntimeWarning,
        stacklevel=2,
    )
os.environ.setdefault("NUMBA_SLP_VECTORIZE", "1")
if "NUMBA_CACHE_DIR" not in os.environ and (folder := cache_folder()) is not None:
    os.environ["NUMBA_CACHE_DIR"] = str(folder)

__version__ = "0.1.0"

_LAZY_MODULES = {
    "solvers": "mesaprobe.solvers",
    "problems": "mesaprobe.problems",
    "labels": "mesaprobe.labels",
    "probes": "mesaprobe.probes",
    "patching": "mesaprobe.patching",
    "attention": "mesaprobe.attention",
    "lens": "mesaprobe.lens",
}
_LAZY_NAMES = {
    "UserError": "mesaprobe.errors",
    "load": "mesaprobe.models",
    "wrap": "mesaprobe.models",
    "Subject": "mesaprobe.models",
    "analyze": "mesaprobe.analysis",
}
__all__ = ["__version__", *_LAZY_MODULES, *_LAZY_NAMES]


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(_LAZY_MODULES[name])
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(_LAZY_NAMES[name]), name)
    raise AttributeError(f"module 'mesaprobe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
