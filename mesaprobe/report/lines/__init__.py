"""One section per line of evidence: its value beside its nulls, then what it draws of its own."""

from mesaprobe.report.lines.algorithms import ALGORITHM_RANKING
from mesaprobe.report.lines.attribution import ATTRIBUTION
from mesaprobe.report.lines.causal import (
    CAUSAL_SCRUBBING,
    INTERCHANGE,
    INVISIBLE_CHANGES,
    PLAN_EDITING,
    UNIT_TOURS,
)
from mesaprobe.report.lines.erasure_necessity import ERASURE_NECESSITY
from mesaprobe.report.lines.future_cities import FUTURE_CITIES
from mesaprobe.report.lines.horizon import HORIZON, OWN_HORIZON
from mesaprobe.report.lines.layers_kept import LAYERS_KEPT
from mesaprobe.report.lines.probing import PLANS, VALUES
from mesaprobe.report.lines.revised_answers import REVISED_ANSWERS
from mesaprobe.report.lines.revision import REVISION
from mesaprobe.report.lines.tour_distribution import TOUR_DISTRIBUTION

LINE_SECTIONS = (
    ALGORITHM_RANKING,
    TOUR_DISTRIBUTION,
    HORIZON,
    OWN_HORIZON,
    INVISIBLE_CHANGES,
    ATTRIBUTION,
    VALUES,
    PLANS,
    INTERCHANGE,
    UNIT_TOURS,
    PLAN_EDITING,
    CAUSAL_SCRUBBING,
    ERASURE_NECESSITY,
    FUTURE_CITIES,
    REVISION,
    REVISED_ANSWERS,
    LAYERS_KEPT,
)
"""In the order of the page."""
