"""The page that a stored analysis is read on; see `render`."""

from mesaprobe.report.page import render

__all__ = ["render"]
