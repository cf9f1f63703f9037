"""Lines of evidence: one file a line, one registry, one result type, the frozen protocol."""

from mesaprobe.evidence.behaviour import (  # (each registers its lines)
    algorithms,  # noqa: F401
    attribution,  # noqa: F401
    horizon,  # noqa: F401
    layers_kept,  # noqa: F401
    own_horizon,  # noqa: F401
    tour_distribution,  # noqa: F401
)
from mesaprobe.evidence.causal import (
    causal_scrubbing,  # noqa: F401
    erasure_necessity,  # noqa: F401
    future_cities,  # noqa: F401
    interchange,  # noqa: F401
    invisible_changes,  # noqa: F401
    plan_editing,  # noqa: F401
    revisions,  # noqa: F401
    unit_tours,  # noqa: F401
)
from mesaprobe.evidence.probing import plans, revision, values  # noqa: F401
from mesaprobe.evidence.protocol import BUDGETS, Budget, draw_set, line_hash, protocol_hash
from mesaprobe.evidence.result import LINES, Line, LineResult

__all__ = ["BUDGETS", "LINES", "Budget", "Line", "LineResult", "draw_set", "line_hash", "protocol_hash"]
