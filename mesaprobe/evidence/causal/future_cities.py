"""E9: does the next choice hang on the tokens of cities that the network's own plan needs later (method.md E9)?

Runs of counterfactual pairs are patched at instance tokens, layer by layer. A weight d(u, v) stands in two tokens, so
{u, v} is one location. Let a be the network's choice on the base, b its favourite among the cities that are optimal on
the relevant twin, LD = logit(a) - logit(b). T is the location of an entry that one of the network's own plans uses
after its first arc and that the relevant twin changes; M is that of a matched entry, which no plan uses and the
irrelevant twin changes by as much. Neither belongs to a or b themselves, so all their cities are needed at step 2 or
later, and a scorer of single options does not see them. Then

    E9 = sum(|dLD(T)| - |dLD(M)|) / (sum(|dLD(T)| + |dLD(M)|) + negligible * sum |LD|) ,

pooled over pairs and over noising (the base run receives the twin's tokens) and denoising (the reverse), on [-1, 1].
An effect below `negligible` |LD| counts as 0. So a rule that reads no far weight gives 0 / (negligible * sum |LD|) = 0,
never NaN, and a faint leak stays near 0. The null swaps T and M within an instance. The layer is chosen on other pairs,
as the one where tokens matter most, whichever of the two (for each contrast apart).

Beside it, from the relevant twin alone: the next two cities of the plan against as many others, equally far from the
current city, with the changed entry (which then lies in T because it was chosen so) and without its two tokens. The
latter is what is left of the question once the edit itself is out of sight: exactly 0 where tokens of cities are only
read as they enter, as in compiled networks. Also beside it: the heads through which T
reaches the answer (`future_heads`).
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64

from mesaprobe.errors import UserError
from mesaprobe.evidence.causal.future_entries import FutureTokens, future_tokens, run_of, token_mask
from mesaprobe.evidence.causal.future_heads import head_flows
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.pairs import mined_pairs
from mesaprobe.instruments.patching import Cell, Location, Run, component_cells, logit_difference, patched_logits
from mesaprobe.labels.pairs import CounterfactualPairs
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Instances
from mesaprobe.statistics import Estimate, bootstrap_ratio, minimum_detectable_effect, sign_flip_p

ID, NAME = "E9", "information flow from cities needed later"
DIRECTIONS = ("noising", "denoising")
CONTRASTS = ("entry", "next cities", "next cities, changed entry's tokens left out")
"""The line's own, then the two from the relevant twin alone."""


@dataclass(frozen=True)
class FutureCitiesSettings:
    """Counts and thresholds of the line."""

    test_pairs: int
    """Mined pairs, before those are dropped whose edits the network's plans do not tell apart."""
    probe_pairs: int
    """To choose the layer."""
    ahead: int = 2
    """Cities of the plan after the chosen one that count as its next ones."""
    negligible: float = 0.05
    """Share of |LD| below which an effect counts as 0, and weight of |LD| in the denominator."""
    least_pairs: int = 10
    detectable: float = 0.3
    """A least detectable effect above this is too little power to read a null result."""
    flips: int = 999
    resamples: int = 2000


@dataclass(frozen=True, eq=False)
class Flow:
    """Effects of patching T and M on every pair."""

    layers: tuple[int, ...]
    effects: Float64[np.ndarray, "contrast direction two layer pair"]
    """|dLD|, of T and of M; below the threshold 0."""
    scale: Float64[np.ndarray, "direction pair"]
    """|LD| of the run that is patched."""

    def ratio_terms(self, contrast: int, layer: int, negligible: float) -> tuple[np.ndarray, np.ndarray]:
        """What each pair adds to numerator and denominator, directions pooled."""
        found = self.effects[contrast, :, :, layer]
        return (found[:, 0] - found[:, 1]).sum(axis=0), (found.sum(axis=1) + negligible * self.scale).sum(axis=0)


def future_cities(subject: Subject, settings: FutureCitiesSettings, seed: int) -> LineResult:
    """Run the line on a subject. Needs hook points of the residual stream and a problem that has pairs."""
    if subject.problem.planar:
        return LineResult(
            "na", "a moved point changes all its distances, those that the plan uses and those it does not"
        )
    try:
        component_cells(subject, "residual", [])
        probe = mined_pairs(subject.problem, "pairs_probe", settings.probe_pairs, seed)
        test = mined_pairs(subject.problem, "pairs_test", settings.test_pairs, seed)
    except UserError as error:
        return LineResult("na", str(error))
    kept, tokens = _eligible(subject, test, settings)
    if len(kept) < settings.least_pairs:
        return LineResult(
            "na",
            f"in only {len(kept)} of {len(test)} pairs do the network's own plans use the changed entry and not its "
            f"match, fewer than {settings.least_pairs}",
            details={"pairs": len(kept), "mined": len(test)},
        )
    trial = flow(subject, *_eligible(subject, probe, settings), settings)
    chosen = trial.effects.sum(axis=(1, 2, 4)).argmax(axis=1)
    result = _result(flow(subject, kept, tokens, settings), chosen, tokens, len(test), settings, seed)
    return _with_heads(result, subject, kept, tokens, seed)


def _eligible(
    subject: Subject, pairs: CounterfactualPairs, settings: FutureCitiesSettings
) -> tuple[CounterfactualPairs, FutureTokens]:
    tokens = future_tokens(subject, pairs, settings.ahead)
    rows = np.flatnonzero(tokens.eligible)
    return pairs[rows], tokens[rows]


def flow(subject: Subject, pairs: CounterfactualPairs, tokens: FutureTokens, settings: FutureCitiesSettings) -> Flow:
    """Patch T and M of every contrast at the residual stream that enters each layer."""
    layers = tuple(int(cell.hook.split(".")[1]) for cell in component_cells(subject, "residual", [Location("", ())]))
    count = len(pairs)
    effects = np.zeros((len(CONTRASTS), len(DIRECTIONS), 2, len(layers), count))
    scale = np.zeros((len(DIRECTIONS), count))
    apart = tokens.planned & ~tokens.entry, tokens.matched & ~tokens.entry
    even = (apart[0].sum(axis=1) == apart[1].sum(axis=1))[:, None]
    same_run = {
        (0, 0): tokens.entry,
        (1, 0): apart[0] | tokens.entry,
        (1, 1): apart[1],
        (2, 0): apart[0] & even,
        (2, 1): apart[1] & even,
    }
    for d in range(len(DIRECTIONS)):

        def between(twin: Instances, masks: list[np.ndarray], d: int = d) -> tuple[np.ndarray, np.ndarray]:
            ends = (pairs.base, twin) if d == 0 else (twin, pairs.base)
            return _moved(subject, pairs, tokens, (run_of(ends[0], pairs), run_of(ends[1], pairs)), masks)

        found, own = between(pairs.relevant, list(same_run.values()))
        for (contrast, side), effect in zip(same_run, found, strict=True):
            effects[contrast, d, side] = effect
        other, _ = between(pairs.irrelevant, [tokens.matched_entry])
        effects[0, d, 1], scale[d] = other[0], own
    return Flow(layers, np.where(effects < settings.negligible * scale[:, None, None], 0.0, effects), scale)


def _moved(
    subject: Subject,
    pairs: CounterfactualPairs,
    tokens: FutureTokens,
    runs: tuple[Run, Run],
    masks: list[Bool[np.ndarray, "pair n"]],
) -> tuple[Float64[np.ndarray, "mask layer pair"], Float64[np.ndarray, " pair"]]:
    """|LD under the patch - LD without| for each set of cities and layer, and |LD| without."""
    base, source = runs
    found: np.ndarray | None = None
    size = np.zeros(len(pairs))
    for length, rows, _ in base.by_length():
        here, there = (Run(run.features[rows], run.prefixes[rows, :length]) for run in (base, source))
        cells: list[Cell] = []
        for index, mask in enumerate(masks):
            positions = token_mask(subject, here, mask[rows.numpy()])
            cells += component_cells(subject, "residual", [Location(f"{index} after {length}", positions)])
        logits = patched_logits(subject, here, there, cells)
        answers = torch.from_numpy(tokens.chosen)[rows], torch.from_numpy(tokens.rival)[rows]
        before, after = (logit_difference(part.double(), *answers) for part in (logits.base, logits.patched))
        moved = (after - before).abs().numpy().reshape(len(masks), -1, len(rows))
        found = np.zeros((*moved.shape[:2], len(pairs))) if found is None else found
        found[:, :, rows.numpy()], size[rows.numpy()] = moved, before[0].abs().numpy()
    if found is None:
        raise ValueError("no pairs were given")
    return found, size


def _result(
    found: Flow,
    chosen: Int64[np.ndarray, " contrast"],
    tokens: FutureTokens,
    mined: int,
    settings: FutureCitiesSettings,
    seed: int,
) -> LineResult:
    """`chosen` is the layer of each contrast."""
    layer = int(chosen[0])
    rng = np.random.default_rng([seed, 9, 1])
    gain, unit = found.ratio_terms(0, layer, settings.negligible)
    value = _ratio(gain, unit, rng, settings)
    signs = rng.choice([-1.0, 1.0], size=(settings.flips, len(gain)))
    swapped = signs @ gain / max(unit.sum(), 1e-12)
    beside = {}
    for contrast in range(1, len(CONTRASTS)):
        other, other_unit = found.ratio_terms(contrast, int(chosen[contrast]), settings.negligible)
        estimate = _ratio(other, other_unit, rng, settings)
        p = sign_flip_p(other, rng, flips=settings.flips)
        shown = {"value": estimate.value, "ci": list(estimate.ci), "p": p}
        beside[CONTRASTS[contrast]] = {**shown, "layer": found.layers[int(chosen[contrast])]}
    p = sign_flip_p(gain, rng, flips=settings.flips)
    error = float(np.sqrt(np.square(gain).sum())) / max(float(unit.sum()), 1e-12)
    least = minimum_detectable_effect(error)
    weak = least > settings.detectable and p > 0.05
    reason = f"with {len(gain)} pairs only effects from {least:.2f} on would have been found"
    per_direction = {
        name: float((found.effects[0, d, 0, layer] - found.effects[0, d, 1, layer]).sum())
        / max(float((found.effects[0, d, :, layer].sum(axis=0) + settings.negligible * found.scale[d]).sum()), 1e-12)
        for d, name in enumerate(DIRECTIONS)
    }
    moved = found.effects[0, :, :, layer].sum(axis=(0, 2)) / max(float(found.scale.sum()), 1e-12)
    return LineResult(
        "underpowered" if weak else "ok",
        reason if weak else None,
        value.value,
        value.ci,
        p,
        null={"T and M swapped, 95% quantile": float(np.quantile(swapped, 0.95)), "none (0)": 0.0},
        details={
            "layer": found.layers[layer],
            "pairs": len(gain),
            "mined": mined,
            "moved_by_T": float(moved[0]),
            "moved_by_M": float(moved[1]),
            "no_effect_at_all": float((found.effects[0, :, :, layer].sum(axis=(0, 1)) == 0).mean()),
            **per_direction,
            "beside": beside,
            "tokens_matched": float((tokens.matched.sum(axis=1) == tokens.planned.sum(axis=1)).mean()),
            "minimum_detectable_effect": least,
        },
        table=_table(found, settings),
        arrays=_arrays(found, chosen, settings, rng),
    )


def _with_heads(
    result: LineResult, subject: Subject, pairs: CounterfactualPairs, tokens: FutureTokens, seed: int
) -> LineResult:
    """The result with the heads that bring the entry to the answer beside it; its value and interval stay."""
    try:
        heads = head_flows(subject, pairs, tokens, np.random.default_rng([seed, 9, 2]))
    except UserError as error:
        return dataclasses.replace(result, details={**result.details, "heads": [], "no_heads": str(error)})
    shown = [
        {"layer": flow.layer, "head": flow.head, "screened": flow.screened}
        | {kind: {"value": figure.value, "ci": list(figure.ci)} for kind, figure in flow.figures.items()}
        for flow in heads
    ]
    rows = [
        {"contrast": CONTRASTS[0], "layer": flow.layer, "quantity": f"head {flow.head}, {kind}", "value": figure.value}
        for flow in heads
        for kind, figure in flow.figures.items()
    ]
    table = pd.concat([result.table, pd.DataFrame(rows)], ignore_index=True)
    return dataclasses.replace(result, details={**result.details, "heads": shown}, table=table)


def _ratio(gain: np.ndarray, unit: np.ndarray, rng: np.random.Generator, settings: FutureCitiesSettings) -> Estimate:
    """sum(gain) / sum(unit); 0 where a network has the same logit for both options everywhere and nothing moves it."""
    return bootstrap_ratio(gain, np.maximum(unit, 1e-12), rng, resamples=settings.resamples)


def _table(found: Flow, settings: FutureCitiesSettings) -> pd.DataFrame:
    """One row per contrast, layer and quantity."""
    rows = []
    for contrast, name in enumerate(CONTRASTS):
        for index, layer in enumerate(found.layers):
            gain, unit = found.ratio_terms(contrast, index, settings.negligible)
            sums = found.effects[contrast, :, :, index].sum(axis=(0, 2))
            for quantity, value in (
                ("ratio", gain.sum() / max(unit.sum(), 1e-12)),
                ("T", sums[0]),
                ("M", sums[1]),
            ):
                rows.append({"contrast": name, "layer": layer, "quantity": quantity, "value": float(value)})
    return pd.DataFrame(rows)


def _arrays(
    found: Flow, chosen: np.ndarray, settings: FutureCitiesSettings, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The ratio at every layer with its interval, and how far T and M move the answer."""
    estimates = [
        [_ratio(*found.ratio_terms(c, index, settings.negligible), rng, settings) for index in range(len(found.layers))]
        for c in range(len(CONTRASTS))
    ]
    return {
        "layers": np.array(found.layers),
        "contrasts": np.array(CONTRASTS),
        "ratio": np.array([[e.value for e in row] for row in estimates]),
        "ratio_low": np.array([[e.low for e in row] for row in estimates]),
        "ratio_high": np.array([[e.high for e in row] for row in estimates]),
        "moved": found.effects.sum(axis=(1, 4)) / max(float(found.scale.sum()), 1e-12),
        "selected": chosen,
    }


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        future_cities,
        {
            "quick": FutureCitiesSettings(300, 100),
            "standard": FutureCitiesSettings(1000, 300),
            "full": FutureCitiesSettings(2500, 800),
        },
    ),
)
