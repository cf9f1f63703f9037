"""E10b: is a better answer held back by what the network held before it? (method.md E10, part b)

A revision event is a decision at which a lens reads city a from the stream at the answering token after some layer,
confidently, while the network ends on another city b that is better: Q*(s, b) < Q*(s, a). The layer is the last one
that still says a. The patch takes the revising layer's update away: the stream after it is set to the stream before it,
at the answering token only, and all later layers run on.

    gain = P(output = a | own update taken away) - P(output = a | another event's update, as long, taken away),
    E10b = gain - max{gain where the output is worse than a, 0}.

The lens is a tuned lens, fitted on instances that are used for nothing else. Every residual network sharpens its
answer with depth, and taking away the layer that made a flip may undo it in a network that follows a rule: the scorer
of local features, whose layers sharpen one score, has a gain of 0.4. But a rule's last layers make flips for the worse
as they make flips for the better; no search would do that on purpose. So the flips for the worse are the null (none
where fewer than `least_events` of them are seen). A gain alone says that the revision lives in that layer's update.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.own_decisions import OwnDecisions, own_decisions, own_prefixes
from mesaprobe.instruments.activations import Site, collect
from mesaprobe.instruments.lens import Lens, lens_sites, readout, tuned_lens
from mesaprobe.instruments.patching import site_positions
from mesaprobe.instruments.patching.runs import EditableRun, write_site
from mesaprobe.labels import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.statistics import bootstrap_of_sums, minimum_detectable_effect, sign_flip_p

ID, NAME = "E10b", "revisions: the layer that drops a worse city for a better one"
KINDS = ("own update", "another event's update", "random direction")


@dataclass(frozen=True)
class RevisionSettings:
    """Counts and thresholds of the line."""

    lens_instances: int
    test_instances: int
    lens_passes: int
    lens_batch: int = 512
    confidence: float = 0.5
    """Least probability that the lens gives to a."""
    least_events: int = 20
    most_events: int = 400
    flips: int = 999
    resamples: int = 2000


@dataclass(frozen=True, eq=False)
class _Events:
    """Decisions at which the last layers changed the answer."""

    states: Int64[np.ndarray, "event 2"]
    """(instance, step)."""
    layers: Int64[np.ndarray, " event"]
    """Index, among the lens sites, of the last one that says a."""
    before: Int64[np.ndarray, " event"]
    """a."""
    better: Bool[np.ndarray, " event"]
    """Whether the output is better than a; else it is worse."""

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, rows: np.ndarray) -> "_Events":
        return _Events(self.states[rows], self.layers[rows], self.before[rows], self.better[rows])


def revisions(subject: Subject, settings: RevisionSettings, seed: int) -> LineResult:
    """Run the line on a subject. Needs a residual stream that is read out by a final norm and an unembedding."""
    steps = decision_steps(subject.problem)
    if steps.stop <= steps.start:
        return LineResult("na", "too few cities leave no decision")
    try:
        sites = lens_sites(subject)
        readout(subject)
    except UserError as error:
        return LineResult("na", str(error))
    lens = _fitted_lens(subject, sites, settings, seed)
    test = own_decisions(subject, "test", settings.test_instances, seed)
    seen = collect(subject, test.features, test.tours, test.steps, sites, dtype=np.float32)
    found = _events(lens.logits(seen), test, settings)
    decisions = test.needs.size
    if int(found.better.sum()) < settings.least_events:
        return LineResult(
            "na",
            f"{int(found.better.sum())} of {decisions} decisions show a confident answer that a later layer betters, "
            f"fewer than {settings.least_events}",
            details={"events": int(found.better.sum()), "decisions": decisions},
        )
    rng = np.random.default_rng([seed, 10, 0])
    kept = np.concatenate(
        [
            np.sort(rng.permutation(np.flatnonzero(kind))[: settings.most_events])
            for kind in (found.better, ~found.better)
        ]
    )
    events = found[kept]
    streams = torch.from_numpy(seen.values)[:, events.states[:, 0], events.states[:, 1]]
    reverted = _reverted(subject, test, events, streams, sites, rng)
    return _result(reverted, events, int(found.better.sum()), decisions, sites, settings, rng)


def _fitted_lens(subject: Subject, sites: list[Site], settings: RevisionSettings, seed: int) -> Lens:
    instances = draw_set(subject.problem, "lens", settings.lens_instances, seed)
    features = torch.from_numpy(instances.features)
    steps = decision_steps(subject.problem)
    tours = own_prefixes(subject, features, steps.stop)
    seen = collect(subject, features, tours, steps, sites, dtype=np.float32)
    return tuned_lens(subject, seen, seed=seed, passes=settings.lens_passes, batch=settings.lens_batch)


def _events(logits: Float[Tensor, "layer instance step n"], test: OwnDecisions, settings: RevisionSettings) -> _Events:
    """For each decision the last layer whose lens says another city than the output, if it is sure of it."""
    masked = logits.double().masked_fill(~torch.from_numpy(test.free), -torch.inf).log_softmax(-1)
    sure, choice = (part.numpy() for part in masked.exp().max(-1))
    other = choice != choice[-1]
    last = len(other) - 1 - np.argmax(other[::-1], axis=0)
    states = np.argwhere(other.any(axis=0))
    rows, columns = states.T
    layers = last[rows, columns]
    before = choice[layers, rows, columns]
    change = test.regrets[rows, columns, choice[-1, rows, columns]] - test.regrets[rows, columns, before]
    kept = (sure[layers, rows, columns] >= settings.confidence) & (change != 0)
    return _Events(states, layers, before, change < 0)[np.flatnonzero(kept)]


def _reverted(
    subject: Subject,
    test: OwnDecisions,
    events: _Events,
    streams: Float[Tensor, "site event d"],
    sites: list[Site],
    rng: np.random.Generator,
) -> Float64[np.ndarray, "kind event"]:
    """1 where the output is a after each kind of patch at the revising layer."""
    found = np.zeros((len(KINDS), len(events)))
    for layer in np.unique(events.layers):
        for better in (True, False):
            rows = np.flatnonzero((events.layers == layer) & (events.better == better))
            if len(rows) == 0:
                continue
            after, update = streams[layer + 1, rows], streams[layer + 1, rows] - streams[layer, rows]
            size = update.norm(dim=1, keepdim=True)
            noise = torch.from_numpy(rng.standard_normal(update.shape)).float()
            order = rng.permutation(len(rows))
            partner = np.empty(len(rows), dtype=np.int64)
            partner[order] = np.roll(order, 1)
            others = noise if len(rows) == 1 else update[partner]
            taken = [update, *(x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) * size for x in (others, noise))]
            run, site = test.run(events.states[rows]), sites[layer + 1]
            editable, positions = EditableRun(subject, run, [site.hook]), site_positions(subject, site, run)
            free = torch.from_numpy(test.free[events.states[rows, 0], events.states[rows, 1]])
            for kind, part in enumerate(taken):
                vectors = (after - part)[:, None]

                def edit(
                    activation: Tensor,
                    at: Tensor,
                    vectors: Tensor = vectors,
                    site: Site = site,
                    positions: Tensor = positions,
                ) -> Tensor:
                    return write_site(activation, site, positions[at], vectors[at].to(activation))

                chosen = editable.logits({site.hook: edit}).masked_fill(~free, -torch.inf).argmax(1).numpy()
                found[kind, rows] = chosen == events.before[rows]
    return found


def _result(
    reverted: Float64[np.ndarray, "kind event"],
    events: _Events,
    count: int,
    decisions: int,
    sites: list[Site],
    settings: RevisionSettings,
    rng: np.random.Generator,
) -> LineResult:
    better = events.better
    instances = int(events.states[:, 0].max(initial=0)) + 1
    arms = [_sums(reverted[:, rows], events.states[rows, 0], instances) for rows in (better, ~better)]
    enough = int((~better).sum()) >= settings.least_events

    def score(sums: Float64[np.ndarray, "draw two arm"]) -> Float64[np.ndarray, "draw two"]:
        gains = sums[:, 0] / np.maximum(sums[:, 1], 1.0)
        return np.stack([gains[:, 0] - (np.maximum(gains[:, 1], 0.0) if enough else 0.0), gains[:, 0]], axis=1)

    found = bootstrap_of_sums(score, np.stack(arms, axis=1), rng, resamples=settings.resamples)
    shares = [gain / max(size.sum(), 1.0) for gain, size in arms]
    p_values = {"none (0)": sign_flip_p(shares[0], rng, flips=settings.flips)}
    if enough:
        p_values["flips for the worse"] = sign_flip_p(shares[0] - shares[1], rng, flips=settings.flips)
    worse = {name: float(reverted[k, ~better].mean()) if (~better).any() else None for k, name in enumerate(KINDS)}
    layers = [sites[layer + 1].layer for layer in events.layers.tolist()]
    per_layer = {str(layer): int(sum(x == layer for x in np.array(layers)[better])) for layer in sorted(set(layers))}
    table = pd.DataFrame(
        [
            {"flip": flip, "patch": name, "quantity": "reverted", "value": float(reverted[kind, rows].mean())}
            for flip, rows in (("better", better), ("worse", ~better))
            if rows.any()
            for kind, name in enumerate(KINDS)
        ]
    )
    means = {name: float(reverted[kind, better].mean()) for kind, name in enumerate(KINDS)}
    return LineResult(
        "ok",
        None,
        found[0].value,
        found[0].ci,
        max(p_values.values()),
        null={
            "another event's update (subtracted)": means[KINDS[1]],
            "random direction": means[KINDS[2]],
            **({"flips for the worse": float(arms[1][0].sum() / arms[1][1].sum())} if enough else {}),
            "none (0)": 0.0,
        },
        details={
            "gain": found[1].value,
            "gain_ci": list(found[1].ci),
            "p_values": p_values,
            "events": count,
            "patched": int(better.sum()),
            "decisions": decisions,
            "reverted": means,
            "reverted_where_the_flip_was_for_worse": worse,
            "worse_flips": int((~better).sum()),
            "events_by_revising_layer": per_layer,
            "minimum_detectable_effect": minimum_detectable_effect(
                float(np.sqrt(max(np.square(arms[0][0]).sum(), 1.0)) / arms[0][1].sum())
            ),
        },
        table=table,
        arrays={
            "kinds": np.array(KINDS),
            "reverted_better": np.array([means[name] for name in KINDS]),
            "reverted_worse": np.array([np.nan if worse[name] is None else worse[name] for name in KINDS]),
            "events": np.array([int(better.sum()), int((~better).sum())]),
        },
    )


def _sums(
    reverted: Float64[np.ndarray, "kind event"], instance: Int64[np.ndarray, " event"], instances: int
) -> Float64[np.ndarray, "two instance"]:
    """What each instance adds to numerator and denominator of the gain."""
    gain = np.bincount(instance, weights=reverted[0] - reverted[1], minlength=instances)
    return np.stack([gain, np.bincount(instance, minlength=instances).astype(np.float64)])


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        revisions,
        {
            "quick": RevisionSettings(400, 1600, 150),
            "standard": RevisionSettings(1000, 4000, 300),
            "full": RevisionSettings(3000, 12_000, 600, most_events=2000),
        },
        version=2,
    ),
)
