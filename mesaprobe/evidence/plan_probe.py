"""E6, first version: is the edge two steps ahead decodable beyond rules, input features and the output?

At every decision along the network's own tours a linear probe is asked which city the network will name *after*
its next one. The baseline g(Z) already knows the next city, what heuristics say of every candidate after it, and
the network's own output distribution; the probe only adds to it. Reported is conditional usable information,

    I(h) = [H(y | Z) - H(y | Z, h)] / H(y | Z)                       (Hewitt et al. 2021; method.md section 4),

estimated on instances that neither chose the site nor fitted anything. The line's value is I(activations) minus
the largest of its nulls: random-weight twins, labels shuffled across instances, 0. What is missing from the full
line (rejected completions, objective swaps, control tasks) makes this a necessary sign of a plan, no more:
a network that builds tours by a rule holds plans honestly, too.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mesaprobe.evidence.baseline import PlannedSteps, fit_baseline, label_losses, planned_steps
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.instruments.activations import Site, collect_activations, residual_sites
from mesaprobe.instruments.probes import fit_softmax_probe
from mesaprobe.models.subject import Subject
from mesaprobe.statistics.bootstrap import Estimate, bootstrap_ratio
from mesaprobe.statistics.sign_flip import sign_flip_p

ID, NAME = "E6", "plans: the edge two steps ahead"
MIN_ENTROPY = 0.02
"""Nats per state that rules and output must leave open; below, there is no plan left to look for."""
ACCURACY_PENALTY = 1e-2
"""Fixed penalty of the probes on activations alone, which are shown as context."""


@dataclass(frozen=True, eq=False)
class _Arm:
    """One source of activations at all sites: the network, a twin, or the network with shuffled labels."""

    validation: Float[Tensor, " site"]
    """Mean log loss on the instances that choose the site."""
    losses: Float[Tensor, "site sample"]
    """Log loss of every test state."""
    accuracy: Float[Tensor, " site"]
    """Of a probe on the activations alone, without the baseline."""


@dataclass(frozen=True)
class PlanProbeSettings:
    """How many instances and repetitions the line spends."""

    calibration_instances: int
    """To fit baselines (what rules and the output already tell)."""
    probe_instances: int
    """To fit probes and to choose sites."""
    test_instances: int
    """To estimate."""
    random_twins: int
    """Random-weight networks per null."""
    sign_flips: int = 999
    resamples: int = 2000


def plan_probe(subject: Subject, budget: PlanProbeSettings, seed: int) -> LineResult:
    """Run the line on a subject. Needs hook points of residual width with TransformerLens' names."""
    sites = residual_sites(subject)
    if not sites or subject.problem.n < 6:
        why = "no residual-stream hook points" if not sites else "fewer than 6 cities leave no plan to look for"
        return LineResult("na", why)
    sets = {
        "calibration": budget.calibration_instances,
        "probe": budget.probe_instances,
        "test": budget.test_instances,
    }
    data = {name: planned_steps(subject, draw_set(subject.problem, name, count, seed)) for name, count in sets.items()}
    baseline = fit_baseline(data["calibration"], data["probe"], seed)
    offsets = {name: baseline.log_odds(data[name]) for name in ("probe", "test")}
    base_losses = label_losses(offsets["test"][None], data["test"])[0]
    base_accuracy = float(
        (_masked(offsets["test"], data["test"]).argmax(-1) == data["test"].label.flatten()).float().mean()
    )
    entropy = float(base_losses.mean())
    if entropy < MIN_ENTROPY:
        return LineResult(
            "na",
            f"rules and the network's own output already tell the edge two steps ahead in {base_accuracy:.1%} of the "
            f"states ({entropy:.4f} nats left open): there is no plan beyond them to look for",
            details={"baseline_entropy": entropy, "baseline_accuracy": base_accuracy},
        )
    arms = {"subject": _arm(subject, data, offsets, sites)}
    for twin in range(budget.random_twins):
        arms[f"random twin {twin}"] = _arm(subject.random_twin(seed + 1 + twin), data, offsets, sites)
    arms["shuffled labels"] = _arm(subject, data, offsets, sites, shuffle=np.random.default_rng([seed, 1]))
    return _result(arms, base_losses, base_accuracy, sites, data["test"], budget, seed)


def _arm(
    subject: Subject,
    data: dict[str, PlannedSteps],
    offsets: dict[str, Tensor],
    sites: list[Site],
    shuffle: np.random.Generator | None = None,
) -> _Arm:
    """Probes fitted on three quarters of the probe instances choose sites on the rest, then all fit for the test."""
    found = {}
    for name in ("probe", "test"):
        part = data[name]
        activations = collect_activations(subject, part.features, part.tours, part.steps, part.chosen, sites)
        if shuffle is not None:  # labels meet another instance at the same step
            activations = activations[:, torch.from_numpy(shuffle.permutation(activations.shape[1]))]
        found[name] = activations.flatten(1, 2)
    train, test = data["probe"], data["test"]
    labels, allowed, groups = train.label.flatten(), train.allowed.flatten(0, 1), train.groups
    kept = groups % 4 != 0
    trial = fit_softmax_probe(
        found["probe"][:, kept], labels[kept], groups[kept], allowed[kept], offset=offsets["probe"][kept]
    )
    guesses = trial.log_probabilities(found["probe"][:, ~kept], allowed[~kept], offsets["probe"][~kept])
    validation = -guesses.gather(-1, labels[~kept].expand(len(sites), -1)[..., None]).mean((1, 2))
    fitted = fit_softmax_probe(found["probe"], labels, groups, allowed, offset=offsets["probe"])
    alone = fit_softmax_probe(found["probe"], labels, groups, allowed, penalties=(ACCURACY_PENALTY,))
    test_allowed = test.allowed.flatten(0, 1)
    guessed = alone.log_probabilities(found["test"], test_allowed).argmax(-1)
    return _Arm(
        validation,
        label_losses(fitted.log_probabilities(found["test"], test_allowed, offsets["test"]), test),
        (guessed == test.label.flatten()).float().mean(-1),
    )


def _masked(logits: Tensor, data: PlannedSteps) -> Tensor:
    return logits.masked_fill(~data.allowed.flatten(0, 1), -torch.inf)


def _by_instance(losses: Tensor, data: PlannedSteps) -> np.ndarray:
    """Sum over the states of each instance, as float64 [instance]."""
    return losses.reshape(len(data.label), -1).sum(1).double().numpy()


def _result(
    arms: dict[str, _Arm],
    base_losses: Tensor,
    base_accuracy: float,
    sites: list[Site],
    test: PlannedSteps,
    budget: PlanProbeSettings,
    seed: int,
) -> LineResult:
    rng = np.random.default_rng([seed, 2])
    base = _by_instance(base_losses, test)

    def information(losses: Tensor, site: int) -> Estimate:
        return bootstrap_ratio(base - _by_instance(losses[site], test), base, rng, resamples=budget.resamples)

    subject = arms["subject"]
    chosen = int(subject.validation.argmin())
    per_site = {name: [1 - float(x.mean() / base_losses.mean()) for x in arm.losses] for name, arm in arms.items()}
    own = [information(subject.losses, site) for site in range(len(sites))]
    # Every null may use the site where it does best, chosen as the subject's is.
    best = {name: int(arm.validation.argmin()) for name, arm in arms.items()}
    null = {name: per_site[name][best[name]] for name in arms if name != "subject"}
    strongest = max(null, key=lambda name: null[name])
    against = base if null[strongest] <= 0 else _by_instance(arms[strongest].losses[best[strongest]], test)
    gain = against - _by_instance(subject.losses[chosen], test)
    value = bootstrap_ratio(gain, base, rng, resamples=budget.resamples)
    return LineResult(
        "ok",
        None,
        value.value,
        value.ci,
        sign_flip_p(gain, rng, flips=budget.sign_flips),
        null={**null, "none (0)": 0.0},
        details={
            "site": str(sites[chosen]),
            "information": own[chosen].value,
            "information_ci": own[chosen].ci,
            "strongest_null": strongest if null[strongest] > 0 else "none (0)",
            "baseline_entropy": float(base_losses.mean()),
            "baseline_accuracy": base_accuracy,
            "probe_accuracy": float(subject.accuracy[chosen]),
            "states": int(test.label.numel()),
            "instances": len(test.label),
            "covers": "the chosen completion only, not rejected ones; no objective swap, no control task yet",
        },
        table=_table(arms, per_site, sites),
        arrays=_arrays(arms, per_site, own, sites, chosen, base_accuracy, float(base_losses.mean())),
    )


def _table(arms: dict[str, _Arm], per_site: dict[str, list[float]], sites: list[Site]) -> pd.DataFrame:
    """One row per site, arm and quantity."""
    rows = [
        {"site": str(site), "layer": site.layer, "arm": name, "quantity": quantity, "value": float(values[index])}
        for name, arm in arms.items()
        for quantity, values in (("information", per_site[name]), ("accuracy", arm.accuracy.tolist()))
        for index, site in enumerate(sites)
    ]
    return pd.DataFrame(rows)


def _arrays(
    arms: dict[str, _Arm],
    per_site: dict[str, list[float]],
    own: list[Estimate],
    sites: list[Site],
    chosen: int,
    base_accuracy: float,
    entropy: float,
) -> dict[str, np.ndarray]:
    """What the report draws: every site with its interval and its nulls."""
    twins = [name for name in arms if name.startswith("random twin")]
    return {
        "hooks": np.array([site.hook for site in sites]),
        "roles": np.array([site.role for site in sites]),
        "layers": np.array([site.layer for site in sites]),
        "kinds": np.array([site.kind for site in sites]),
        "information": np.array([e.value for e in own]),
        "information_low": np.array([e.low for e in own]),
        "information_high": np.array([e.high for e in own]),
        "twin_information": np.array([per_site[name] for name in twins]),
        "shuffled_information": np.array(per_site["shuffled labels"]),
        "accuracy": arms["subject"].accuracy.numpy(),
        "twin_accuracy": np.array([arms[name].accuracy.numpy() for name in twins]),
        "shuffled_accuracy": arms["shuffled labels"].accuracy.numpy(),
        "baseline_accuracy": np.array(base_accuracy),
        "baseline_entropy": np.array(entropy),
        "selected": np.array(chosen),
    }


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        plan_probe,
        {
            "quick": PlanProbeSettings(2000, 1000, 1000, 2),
            "standard": PlanProbeSettings(4000, 4000, 2000, 5),
            "full": PlanProbeSettings(10_000, 10_000, 5000, 20),
        },
    ),
)
