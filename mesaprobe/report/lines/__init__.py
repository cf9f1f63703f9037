"""One section per line of evidence: its value beside its nulls, then what it draws of its own."""

from mesaprobe.report.lines.plan_probe import PLAN_PROBE

LINE_SECTIONS = (PLAN_PROBE,)
"""In the order of the page."""
