"""How long an analysis will take: from what the same lines took on the zoo's networks."""

import os
from collections.abc import Sequence

import numpy as np

from mesaprobe.zoo.records import Record, read_records, records_folder

PEAK_GIGABYTES = {"quick": 1.5, "standard": 2.5, "full": 6.5}
"""Memory that an analysis of a network of 0.8M parameters needs at most."""


def expected_seconds(parameters: int, budget: str, lines: Sequence[str]) -> float | None:
    """Sum of the lines' times on the members nearest in size; None where the zoo holds no times for this budget."""
    records = read_records(records_folder(), budget)
    times = [_line_seconds(records, line, parameters) for line in lines]
    known = [seconds for seconds in times if seconds is not None]
    return float(sum(known)) if known else None


def _line_seconds(records: Sequence[Record], line: str, parameters: int) -> float | None:
    """Median over the five members with the most similar number of parameters."""
    found = [(abs(np.log(max(r.shape.parameters, 1) / max(parameters, 1))), r) for r in records if line in r.lines]
    nearest = sorted(found, key=lambda pair: pair[0])[:5]
    return float(np.median([r.lines[line].seconds for _, r in nearest])) if nearest else None


def estimate_words(parameters: int, budget: str, lines: Sequence[str]) -> str:
    """One sentence for the person who waits."""
    seconds = expected_seconds(parameters, budget, lines)
    time = "a time that this zoo has no record of" if seconds is None else f"about {max(seconds / 60, 0.1):.1f} minutes"
    return (
        f"{len(lines)} lines at budget {budget} on {os.cpu_count()} cores: {time}, "
        f"at most {PEAK_GIGABYTES[budget]:g} GB of memory"
    )
