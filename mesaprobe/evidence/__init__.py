"""Lines of evidence: one file a line, one registry, one result type, the frozen protocol."""

from mesaprobe.evidence import invisible_changes  # noqa: F401
from mesaprobe.evidence import plan_probe  # noqa: F401  (each registers its lines)
from mesaprobe.evidence.protocol import BUDGETS, Budget, draw_set, line_hash, protocol_hash
from mesaprobe.evidence.result import LINES, Line, LineResult

__all__ = ["BUDGETS", "LINES", "Budget", "Line", "LineResult", "draw_set", "line_hash", "protocol_hash"]
