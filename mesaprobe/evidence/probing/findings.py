"""From readings to a line's numbers: net score, its null arms and p-values (method.md section 4, amendment 10).

    net score = I(network) - max{I(control task), I(objective swap), I(raw input), mean I(random twins), 0}

each I in the residualised form and each arm at its own best site. (Of targets that stand beside the line's value only
the network is residualised; their nulls are in the direct form, which is as a rule the larger.) The p-value answers to
all nulls at once (intersection-union, Berger 1982): it is the largest of

- permutation: residuals move between instances, max-T over all tasks of the line;
- controls: paired sign flips of the gain over each control's gain;
- twins: is the network one more random network? Random networks are informative maps of the input and differ from
  one another, so the network is compared with their spread (Crawford and Howell 1998), not with their mean alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.stats import t as student

from mesaprobe.evidence.probing.readings import Reading, Readout
from mesaprobe.statistics import (
    Estimate,
    NullTable,
    instance_blocks,
    max_t,
    minimum_detectable_effect,
    net_score,
    residual_null,
    sign_flip_p,
)


@dataclass(frozen=True, eq=False)
class Arms:
    """One task read from the network, from its controls and from its random twins."""

    subject: Reading
    controls: Mapping[str, Reading]
    twins: Sequence[Reading]


@dataclass(frozen=True, eq=False)
class Finding:
    """One task's numbers."""

    name: str
    view: str
    site: str
    net: Estimate
    error: float
    """Standard error of the net score over instances."""
    information: Estimate
    """Of the network, residualised."""
    direct: float
    """The same without taking Z off the predictions."""
    controls: dict[str, float]
    twins: Float64[np.ndarray, " twin"]
    p_values: dict[str, float]

    @property
    def p(self) -> float:
        return max(self.p_values.values())

    @property
    def nulls(self) -> dict[str, float]:
        """Every null of the net score."""
        twins = {f"random twin {i}": float(value) for i, value in enumerate(self.twins)}
        return {**self.controls, **twins, "none (0)": 0.0}

    @property
    def detectable(self) -> float:
        """Least net score that would have been found with 80 % power, by the error over instances and twins."""
        spread = float(np.std(self.twins, ddof=1)) if len(self.twins) > 1 else 0.0
        return minimum_detectable_effect(float(np.hypot(self.error, spread)))

    def summary(self) -> dict[str, Any]:
        """JSON values for a line's details."""
        return {
            "site": f"{self.site} @ {self.view}",
            "net": self.net.value,
            "ci": self.net.ci,
            "information": self.information.value,
            "information_ci": self.information.ci,
            "direct_information": self.direct,
            "signs_agree": (self.direct > 0) == (self.information.value > 0),
            "nulls": self.nulls,
            "p": self.p,
            "p_values": self.p_values,
            "minimum_detectable_effect": self.detectable,
        }


def conclude(
    arms: Mapping[str, Arms], main: str, seed: int, *, permutations: int, resamples: int
) -> dict[str, Finding]:
    """A finding for every task; the permutation p-values are adjusted for all of them. `main` is the line's value."""
    readouts = {name: arm.subject.residualised(seed) for name, arm in arms.items()}
    adjusted = _max_t(list(readouts.values()), seed, permutations)
    return {
        name: _finding(name, arm, _measured(arm, readouts[name], name == main, seed), p, seed, permutations, resamples)
        for (name, arm), p in zip(arms.items(), adjusted, strict=True)
    }


def _max_t(readouts: Sequence[Readout], seed: int, permutations: int) -> Float64[np.ndarray, " task"]:
    tables = []
    for index, readout in enumerate(readouts):
        task = readout.reading.task
        blocks = instance_blocks(task.test.row_groups, task.test.row_strata)
        rng = np.random.default_rng([seed, 8, index])
        guesses, r = readout.guesses[None, :, None], task.test_residuals[:, None]
        tables.append(residual_null(r, guesses, blocks, rng, permutations=permutations))
    joint = NullTable(
        np.concatenate([table.observed.ravel() for table in tables]),
        np.concatenate([table.null.reshape(permutations, -1) for table in tables], axis=1),
    )
    return max_t(joint).adjusted


@dataclass(frozen=True, eq=False)
class _Measured:
    own: Readout
    controls: dict[str, Readout]
    twins: list[Readout]


def _measured(arms: Arms, own: Readout, residualised: bool, seed: int) -> _Measured:
    def readout(reading: Reading) -> Readout:
        return reading.residualised(seed) if residualised else reading.plain()

    return _Measured(
        own, {name: readout(reading) for name, reading in arms.controls.items()}, [readout(t) for t in arms.twins]
    )


def _finding(
    name: str, arms: Arms, measured: _Measured, permutation_p: float, seed: int, flips: int, resamples: int
) -> Finding:
    rng = np.random.default_rng([seed, 9])
    own, controls, twins = measured.own, measured.controls, measured.twins
    score = net_score(
        own.losses,
        [control.losses for control in controls.values()],
        [twin.losses for twin in twins],
        rng,
        resamples=resamples,
    )
    p_values = {"permutation": float(permutation_p)}
    for control, readout in controls.items():
        p_values[control] = sign_flip_p(own.gains - readout.gains, rng, flips=flips)
    twin_values = np.array([twin.information for twin in twins])
    if len(twins) > 1:
        p_values["random twins"] = outlier_p(own.information, twin_values, float(score.subject.error))
    direct = arms.subject.direct()
    return Finding(
        name=name,
        view=arms.subject.view,
        site=arms.subject.sites[arms.subject.site],
        net=score.net[()],
        error=float(score.net.error),
        information=score.subject[()],
        direct=float(1 - direct.probe[arms.subject.site].sum() / direct.base[arms.subject.site].sum()),
        controls={control: readout.information for control, readout in controls.items()},
        twins=twin_values,
        p_values=p_values,
    )


def outlier_p(value: float, twins: Float64[np.ndarray, " twin"], error: float) -> float:
    """One-sided p-value that `value`, known up to a standard error, is one more draw from where the twins are from.

    Crawford and Howell's (1998) t-test of a single case against a small sample, with twins - 1 degrees of freedom.

    >>> twins = np.array([0.01, 0.02, 0.00, 0.01])
    >>> round(outlier_p(0.01, twins, 0.0), 2), outlier_p(0.2, twins, 0.0) < 0.001
    (0.5, True)
    """
    count = len(twins)
    if count < 2:
        raise ValueError(f"a spread needs at least 2 twins, got {count}")
    spread = np.sqrt(np.var(twins, ddof=1) * (1 + 1 / count) + error**2)
    return float(student.sf((value - twins.mean()) / max(float(spread), 1e-12), count - 1))
