"""One subject, analysed and stored. Names load on first use: reading a stored analysis needs no torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesaprobe.analysis.analysis import Analysis, analyze
    from mesaprobe.analysis.store import load_evidence, load_figures, load_report

_HOMES = {
    "Analysis": "analysis",
    "analyze": "analysis",
    "load_evidence": "store",
    "load_figures": "store",
    "load_report": "store",
}
__all__ = ["Analysis", "analyze", "load_evidence", "load_figures", "load_report"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"mesaprobe.analysis.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mesaprobe.analysis' has no attribute {name!r}")
