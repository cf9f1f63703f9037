"""The model card: README.md beside the weights, written by the program from what it knows."""

from pathlib import Path

from mesaprobe.decoding.outer_compute import OuterPoint
from mesaprobe.files import write_text
from mesaprobe.models.architectures import ARCHITECTURES
from mesaprobe.training.arms import ARMS
from mesaprobe.training.config import TrainConfig
from mesaprobe.training.evaluation import Metrics

_TARGETS = {
    (
        "optimal",
        "optimal_set",
    ): "the set of optimal next cities (uniform over argmin Q*), so no direction is preferred",
    ("optimal", "random_tour"): "one optimal tour, in a random direction",
    ("nearest_neighbour", "optimal_set"): "all nearest unvisited cities, equally where they tie",
    ("nearest_neighbour", "random_tour"): "all nearest unvisited cities, equally where they tie",
}


_EVERY_SETTING = ("look_ahead",)
"""Methods of which the card shows more than the least and the greatest setting."""


def write_card(
    folder: Path, config: TrainConfig, sets: dict[str, Metrics], outer: list[OuterPoint], seconds: float
) -> None:
    """Write `README.md` for a trained model."""
    problem = config.problem
    taught = _TARGETS.get(
        (config.teacher, config.data.targets), "the teacher's tours; on symmetric problems in both directions"
    )
    fixed = config.data.fixed_instances
    drawn = f"of the same {fixed} instances" if fixed else "fresh instances"
    besides = f" and, in `fixed`, on the {fixed} that it was trained on" if fixed else ""
    rows = "\n".join(
        f"| {kind} | {m.instances} | {m.gap_mean:.2%} ({m.gap_ci[0]:.2%} to {m.gap_ci[1]:.2%}) | "
        f"{m.optimal_fraction:.1%} | {m.legal_fraction:.2%} | {m.teacher_agreement:.2%} |"
        for kind, m in sets.items()
    )
    write_text(
        folder / "README.md",
        f"""# {folder.name}

{ARCHITECTURES[config.model.architecture].words} that names the cities of a travelling-salesman tour in order, \
trained by mesaprobe to be looked into:
does it search, or does it run heuristics? This card makes no claim about that; `mesaprobe analyze` does.

| | |
|---|---|
| problem | `{problem.family}`, n = {problem.n} |
| teacher | `{config.teacher}` |
| arm | {config.arm}: {ARMS[config.arm].words} |
| learns | {taught} |
| shape | {config.model.in_words(problem.n)} |
| training | {config.steps:,} steps of {config.batch_size} {drawn} ({config.data.instances}), \
{config.data.random_prefixes:.0%} of the sequences begin with a random legal prefix; {seconds / 60:.0f} minutes, \
{config.threads} thread(s) |

Greedy decoding, visited cities masked, on held-out instances{besides} (seed {config.seed}):

| set | instances | mean gap (95 % interval) | optimal tours | legal without mask | agrees with teacher |
|---|---|---|---|---|---|
{rows}

`greedy_fails` holds the instances where nearest neighbour is more than {config.data.nearest_gap:.0%} and greedy edge
more than {config.data.greedy_edge_gap:.0%} above the optimum ({sets["greedy_fails"].acceptance_rate:.0%} of all).
Agreement counts states, unmasked, along the teacher's sequences.

The whole system on held-out instances, against the number of tours whose cost was asked for (current: the tour that
the method holds; best: the cheapest one met; local search starts from random tours):

| method | tour | setting | tours evaluated | forward passes | mean gap (95 % interval) |
|---|---|---|---|---|---|
{_outer_rows(outer)}

Repeat it: `mesaprobe train --config trained_models/{folder.name}/config.json --out trained_models/copy`

Limits: valid for this family and this n only. Use: `mesaprobe.load("trained_models/{folder.name}")`.
""",
    )


def _outer_rows(points: list[OuterPoint]) -> str:
    """The least and the greatest setting of every method, of some all."""
    ends: dict[tuple[str, str], list[OuterPoint]] = {}
    for point in points:
        found = ends.setdefault((point.method, point.kept), [point])
        ends[point.method, point.kept] = [*(found if point.method in _EVERY_SETTING else found[:1]), point]
    rows = [point for found in ends.values() for point in dict.fromkeys(found)]
    return "\n".join(
        f"| {p.method.replace('_', ' ')} | {p.kept} | {p.setting} | {p.evaluated_tours:.0f} | {p.forward_passes:.0f} | "
        f"{p.gap:.2%} ({p.low:.2%} to {p.high:.2%}) |"
        for p in rows
    )
