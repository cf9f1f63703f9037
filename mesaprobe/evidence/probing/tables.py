"""What the lines of probes hand to the report: arrays by site and by target, and tidy rows."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mesaprobe.evidence.probing.findings import Arms, Finding
from mesaprobe.evidence.probing.readings import Reading
from mesaprobe.evidence.result import LineResult
from mesaprobe.statistics import Estimates, bootstrap_of_sums
from mesaprobe.statistics.conditional import information_of_sums

_HOOK = re.compile(r"blocks\.(\d+)\.(?:mlp\.)?hook_(\w+)")


def line_result(
    findings: Mapping[str, Finding],
    main: str,
    details: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    largest_detectable: float,
) -> LineResult:
    """The finding of the line's value, with all others in its details; underpowered where nothing was found and less
    than `largest_detectable` would have been missed."""
    own = findings[main]
    weak = own.p > 0.05 and own.detectable > largest_detectable
    reason = f"only a net score of {own.detectable:.3f} or more would have been found with 80 % power" if weak else None
    targets = {name: finding.summary() for name, finding in findings.items()}
    return LineResult(
        "underpowered" if weak else "ok",
        reason,
        own.net.value,
        own.net.ci,
        own.p,
        null=own.nulls,
        details={**own.summary(), **details, "targets": targets},
        table=findings_table(findings),
        arrays=arrays,
    )


def site_arrays(
    arms: Sequence[Arms], findings: Mapping[str, Finding], main: Finding, seed: int, resamples: int
) -> dict[str, np.ndarray]:
    """Information at every site, direct form, with intervals, twins and controls; one entry of `arms` a view.

    And, as `target_*`, the finding of every target.
    """
    parts = [_sites(arm, seed, resamples) for arm in arms]
    arrays = {key: np.concatenate([part[key] for part in parts], axis=-1) for key in parts[0]}
    picked = [
        index
        for index, (hook, role) in enumerate(zip(arrays["hooks"], arrays["roles"], strict=True))
        if (hook, role) == (main.site, main.view)
    ]
    found = list(findings.values())
    return {
        **arrays,
        "selected": np.array(picked[0] if picked else -1),
        "target_names": np.array([finding.name for finding in found]),
        "target_net": np.array([finding.net.value for finding in found]),
        "target_low": np.array([finding.net.low for finding in found]),
        "target_high": np.array([finding.net.high for finding in found]),
        "target_information": np.array([finding.information.value for finding in found]),
        "target_strongest_null": np.array([_strongest(finding) for finding in found]),
        "target_p": np.array([finding.p for finding in found]),
    }


def _strongest(finding: Finding) -> float:
    twins = [float(finding.twins.mean())] if len(finding.twins) else []
    return max([*finding.controls.values(), *twins, 0.0])


def _sites(arms: Arms, seed: int, resamples: int) -> dict[str, np.ndarray]:
    own = _information(arms.subject, seed, resamples)
    swap = arms.controls.get("objective swap")
    hooks = list(arms.subject.sites)
    places = [_HOOK.fullmatch(hook) for hook in hooks]
    return {
        "hooks": np.array(hooks),
        "roles": np.array([arms.subject.view] * len(hooks)),
        "layers": np.array([int(place[1]) if place else -1 for place in places]),
        "kinds": np.array([place[2] if place else hook for place, hook in zip(places, hooks, strict=True)]),
        "information": own.value,
        "information_low": own.low,
        "information_high": own.high,
        "twin_information": np.array([_plain(twin) for twin in arms.twins]).reshape(len(arms.twins), len(hooks)),
        "swap_information": _plain(swap) if swap is not None else np.full(len(hooks), np.nan),
    }


def _information(reading: Reading, seed: int, resamples: int) -> Estimates:
    losses = reading.direct()
    totals = np.stack([losses.base, losses.probe])
    return bootstrap_of_sums(information_of_sums, totals, np.random.default_rng([seed, 10]), resamples=resamples)


def _plain(reading: Reading) -> np.ndarray:
    losses = reading.direct()
    return np.asarray(1 - losses.probe.sum(axis=-1) / losses.base.sum(axis=-1))


def findings_table(findings: Mapping[str, Finding]) -> pd.DataFrame:
    """One row per target and arm."""
    rows = []
    for finding in findings.values():
        arms = {"subject": finding.information.value, "subject, direct": finding.direct, "net": finding.net.value}
        for arm, value in {**arms, **finding.nulls}.items():
            rows.append(
                {"target": finding.name, "site": finding.site, "view": finding.view, "arm": arm, "value": float(value)}
            )
    return pd.DataFrame(rows)
