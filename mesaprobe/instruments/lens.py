"""What a network would answer if it stopped at each layer, and where later layers revise the answer.

Logit lens (nostalgebraist 2020): the residual stream at the decode token after each layer, through the final norm and
the unembedding. Tuned lens (Belrose et al. 2023): the same behind an affine map per layer,

    logits_l = unembed(ln_final(h_l + A_l h_l + b_l)),

fitted on other instances to have the least KL divergence from the network's own output; the last layer has none.
Any residual network sharpens its answer with depth. Improvement over layers is therefore no sign of search by
itself (method.md section 5, E10): compare events with rewired, random-weight and rule-following twins.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, UInt64
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.instruments.activations import Activations, Site
from mesaprobe.models.subject import Subject

_AFTER = re.compile(r"blocks\.(\d+)\.hook_resid_post")
_BEFORE = "blocks.0.hook_resid_pre"

Readout = Callable[[Float[Tensor, "*batch d_model"]], Float[Tensor, "*batch n"]]
"""From the residual stream after the last layer to logits."""

PlanDecoder = Callable[[Float[np.ndarray, "site sample d"]], Int64[np.ndarray, "site sample n"]]
"""Whole tours (prefix included) that somebody's probes read from activations."""


def lens_sites(subject: Subject) -> list[Site]:
    """The stream at the decode token: what enters the first layer (as layer -1), then what each layer leaves."""
    found = sorted((int(match[1]), name) for name in subject.hook_names if (match := _AFTER.fullmatch(name)))
    if not found or _BEFORE not in subject.hook_names:
        raise UserError(
            f"{subject.name} has no hook points of the residual stream ({_BEFORE}, blocks.L.hook_resid_post)"
        )
    sites = [Site(name, "decode", layer, "resid_post") for layer, name in found]
    return [Site(_BEFORE, "decode", -1, "resid_pre"), *sites]


def readout(subject: Subject) -> Readout:
    """The network's own way from its last stream to logits, `unembed(ln_final(h))`.

    Raises UserError for a network without modules of these names, or whose answers are not made that way.
    """
    module = getattr(subject, "module", None)
    norm, unembed = getattr(module, "ln_final", None), getattr(module, "unembed", None)
    if norm is None or unembed is None:
        raise UserError(
            f"{subject.name} has no final norm and unembedding (module.ln_final, module.unembed) to look through"
        )

    def read(stream: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch n"]:
        parameter = next(unembed.parameters())
        return unembed(norm(stream.to(parameter))).to(stream.device)

    features = torch.from_numpy(subject.problem.draw(4, np.random.default_rng(0)).features)
    prefixes, last = torch.tensor([[0, 2]] * 4), lens_sites(subject)[-1].hook
    stream = subject.activations(features, prefixes, [last])[last][:, subject.decode_position(2)]
    with torch.no_grad():
        apart = float((read(stream) - subject.next_city_logits(features, prefixes)).abs().max())
    if not apart < 1e-3 * max(1.0, float(stream.abs().max())):
        raise UserError(
            f"the logits of {subject.name} are not unembed(ln_final(h)) of {last}: they differ by {apart:.2g}"
        )
    return read


@dataclass(frozen=True, eq=False)
class Lens:
    """Logits from every layer's stream. Without maps this is the logit lens."""

    read: Readout
    maps: Float[Tensor, "layer d_model d_model"] | None = None
    """A_l, 0 for the last layer."""
    shifts: Float[Tensor, "layer d_model"] | None = None
    """b_l."""
    trained_on: UInt64[np.ndarray, " instance"] | None = None
    """Keys of the instances that the maps have seen; their activations are refused."""
    divergence: Float64[np.ndarray, "layer two"] | None = None
    """KL(output || lens) in nats on held-out instances, without the maps and with them."""

    def at(self, layer: int, stream: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch n"]:
        """Logits from the stream of one of the `lens_sites`, by its place in that list."""
        if self.maps is not None and self.shifts is not None:
            stream = stream + stream @ self.maps[layer].T + self.shifts[layer]
        with torch.no_grad():
            return self.read(stream)

    def logits(self, activations: Activations) -> Float[Tensor, "layer instance step n"]:
        """Logits at all states that were collected at the `lens_sites`."""
        if self.trained_on is not None and np.isin(activations.keys, self.trained_on).any():
            raise ValueError("this lens was trained on some of these instances: look at others")
        streams = (torch.from_numpy(np.asarray(values, dtype=np.float32)) for values in activations.values)
        return torch.stack([self.at(layer, stream) for layer, stream in enumerate(streams)])


def logit_lens(subject: Subject) -> Lens:
    """The lens that looks through the network's own final norm and unembedding, and nothing else."""
    return Lens(readout(subject))


def tuned_lens(
    subject: Subject,
    activations: Activations,
    *,
    seed: int,
    passes: int = 600,
    batch: int = 1024,
    learning_rate: float = 2e-3,
) -> Lens:
    """Fit the maps of a tuned lens to activations collected at the `lens_sites`.

    Adam on the KL divergence from the network's own output (the last layer's), starting from no map; the step size
    falls linearly. A quarter of the instances is held out, and each layer keeps the maps that were best there, so
    that no layer ends worse than the logit lens on them.
    """
    read = readout(subject)
    streams = torch.from_numpy(np.asarray(activations.samples, dtype=np.float32))
    held_out = torch.from_numpy(activations.groups % 4 == 3)
    if not held_out.any():
        raise ValueError(f"a tuned lens needs at least 4 instances, got {len(activations.keys)}")
    with torch.no_grad():
        own = read(streams[-1]).log_softmax(-1)
    early = streams[:-1]
    layers, _, width = early.shape
    scale = early[:, ~held_out].pow(2).mean((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
    maps, shifts = (
        torch.zeros(layers, width, width, requires_grad=True),
        torch.zeros(layers, 1, width, requires_grad=True),
    )

    def divergence(rows: Tensor) -> Float[Tensor, " layer"]:
        moved = early[:, rows] + early[:, rows] @ maps.mT + scale * shifts
        other = read(moved).log_softmax(-1)
        return (own[rows].exp() * (own[rows] - other)).sum(-1).mean(1)

    kept, tested = torch.nonzero(~held_out)[:, 0], torch.nonzero(held_out)[:, 0]
    before, best = _fit_maps(divergence, (maps, shifts), kept, tested, seed, passes, batch, learning_rate)
    found = torch.cat([torch.stack([before, best.divergence], dim=1), torch.zeros(1, 2)])
    return Lens(
        read,
        maps=torch.cat([best.maps, torch.zeros(1, width, width)]),
        shifts=torch.cat([(scale * best.shifts)[:, 0], torch.zeros(1, width)]),
        trained_on=activations.keys,
        divergence=found.double().numpy(),
    )


@dataclass(frozen=True, eq=False)
class _Best:
    maps: Tensor
    shifts: Tensor
    divergence: Tensor


def _fit_maps(
    divergence: Callable[[Tensor], Tensor],
    parameters: tuple[Tensor, Tensor],
    kept: Tensor,
    tested: Tensor,
    seed: int,
    passes: int,
    batch: int,
    learning_rate: float,
) -> tuple[Float[Tensor, " layer"], _Best]:
    """Divergence of the untouched layers on the tested rows, and each layer's best maps there."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(parameters, learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=passes)
    with torch.no_grad():
        before = divergence(tested)
    best = _Best(parameters[0].detach().clone(), parameters[1].detach().clone(), before.clone())
    for step in range(1, passes + 1):
        optimiser.zero_grad()
        rows = kept[torch.randint(len(kept), (min(batch, len(kept)),), generator=generator)]
        with torch.enable_grad():
            divergence(rows).sum().backward(inputs=list(parameters))
        optimiser.step()
        schedule.step()
        if step % max(1, passes // 20) == 0:
            with torch.no_grad():
                found = divergence(tested)
            better = found < best.divergence
            best.divergence[better] = found[better]
            best.maps[better], best.shifts[better] = (parameter.detach()[better] for parameter in parameters)
    return before, best


def layer_choices(
    logits: Float[Tensor, "layer instance step n"], free: Bool[np.ndarray, "instance step n"]
) -> Int64[np.ndarray, "layer instance step"]:
    """The unvisited city that each layer would go to next, at every state along the network's own tour."""
    return logits.masked_fill(~torch.from_numpy(free), -torch.inf).argmax(-1).numpy()


def layer_tours(
    subject: Subject, lens: Lens, features: Float[Tensor, "batch n f"], *, chunk: int = 1024
) -> Int64[np.ndarray, "layer batch n"]:
    """The tour that each layer makes when its answers are followed: greedy, visited cities masked.

    The last layer's is the network's own. Costs layers x (n - 1) passes.
    """
    sites = lens_sites(subject)
    parts = [
        torch.stack([_follow(subject, lens, layer, site.hook, part) for layer, site in enumerate(sites)])
        for part in features.split(chunk)
    ]
    return torch.cat(parts, dim=1).numpy()


def _follow(subject: Subject, lens: Lens, layer: int, hook: str, features: Tensor) -> Int[Tensor, "batch n"]:
    batch, n = features.shape[:2]
    tours = torch.zeros(batch, 1, dtype=torch.long)
    for length in range(1, n):
        stream = subject.activations(features, tours, [hook])[hook][:, subject.decode_position(length)]
        visited = torch.zeros(batch, n, dtype=torch.bool).scatter(1, tours, value=True)
        choice = lens.at(layer, stream.float().cpu()).masked_fill(visited, -torch.inf).argmax(1)
        tours = torch.cat([tours, choice[:, None]], dim=1)
    return tours


@dataclass(frozen=True, eq=False)
class Revisions:
    """What becomes of the decoded choice, or plan, from each layer to the next. Costs fall where it gets better."""

    changed: Bool[np.ndarray, "transition *state"]
    """Another choice (plan) than in the layer before."""
    better: Bool[np.ndarray, "transition *state"]
    """... that costs less: a candidate was dropped for a better one."""
    worse: Bool[np.ndarray, "transition *state"]
    costs: Float64[np.ndarray, "layer *state"]
    """Cost of what each layer holds, as it was given."""

    @property
    def better_share(self) -> Float64[np.ndarray, " transition"]:
        """pi of method.md E10a: share of the better among changes that change the cost; NaN where there are none."""
        axes = tuple(range(1, self.better.ndim))
        better, worse = self.better.sum(axis=axes), self.worse.sum(axis=axes)
        return np.divide(better, better + worse, out=np.full(len(better), np.nan), where=better + worse > 0)


def choice_revisions(
    choices: Int64[np.ndarray, "layer instance step"], regrets: Float64[np.ndarray, "instance step n"]
) -> Revisions:
    """Revisions of the next city, by its regret Q*(s, a) - V*(s) (`labels.value_labels`).

    >>> regrets = np.array([[[np.inf, 0.0, 4.0]]])
    >>> choice_revisions(np.array([[[2]], [[1]], [[1]]]), regrets).better[:, 0, 0].tolist()
    [True, False]
    """
    costs = np.take_along_axis(np.broadcast_to(regrets, (len(choices), *regrets.shape)), choices[..., None], axis=3)
    return _revisions(choices[1:] != choices[:-1], costs[..., 0])


def plan_revisions(
    plans: Int64[np.ndarray, "layer sample n"],
    weights: Int64[np.ndarray, "sample n n"] | np.ndarray,
    *,
    undirected: bool,
) -> Revisions:
    """Revisions of whole tours, by their cost; `undirected`: a tour and its reverse are one plan."""
    rows, following = np.arange(plans.shape[1])[:, None], np.roll(plans, -1, axis=2)
    costs = np.stack([weights[rows, plan, after].sum(axis=1) for plan, after in zip(plans, following, strict=True)])
    used = np.zeros((*plans.shape, plans.shape[2]), dtype=np.bool_)
    np.put_along_axis(used, _successors(plans)[..., None], True, axis=3)
    if undirected:
        used |= used.swapaxes(2, 3)
    return _revisions((used[1:] != used[:-1]).any(axis=(2, 3)), costs)


def _successors(plans: Int64[np.ndarray, "layer sample n"]) -> Int64[np.ndarray, "layer sample n"]:
    """Which city follows each city."""
    found = np.empty_like(plans)
    np.put_along_axis(found, plans, np.roll(plans, -1, axis=2), axis=2)
    return found


def _revisions(changed: np.ndarray, costs: np.ndarray) -> Revisions:
    costs = np.asarray(costs, dtype=np.float64)
    return Revisions(changed, changed & (costs[1:] < costs[:-1]), changed & (costs[1:] > costs[:-1]), costs)


def decoded_plans(
    decoder: PlanDecoder, activations: Activations, sites: Sequence[Site] | None = None
) -> Int64[np.ndarray, "site sample n"]:
    """Plans read from the activations of each layer by somebody's probes; checks that they are tours that keep the
    prefix of their state, so that their costs can be compared."""
    chosen = [activations.sites.index(site) for site in sites or activations.sites]
    plans = np.asarray(decoder(activations.samples[chosen]))
    n = plans.shape[-1]
    if plans.shape[:2] != (len(chosen), len(activations.groups)) or (np.sort(plans, axis=2) != np.arange(n)).any():
        raise ValueError(f"a plan decoder must give one tour per site and sample, got shape {plans.shape}")
    for column, step in enumerate(activations.steps):
        own = plans.reshape(len(chosen), -1, len(activations.steps), n)[:, :, column, : step + 1]
        if (own != activations.tours[:, : step + 1]).any():
            raise ValueError(f"a decoded plan does not keep the prefix of its state (step {step})")
    return plans


def greedy_plans(
    scores: Float[np.ndarray, "*sample n n"], tours: Int64[np.ndarray, "instance n"], steps: Int64[np.ndarray, " step"]
) -> Int64[np.ndarray, "*sample n"]:
    """Whole tours from edge scores [.., instance, step, u, v]: keep the prefix, then follow the edge of the highest
    score to an unvisited city. A plan decoder made of an edge probe.

    >>> scores = np.array([[[0, 1, 2], [0, 0, 3], [0, 0, 0]]])[None]
    >>> greedy_plans(scores, np.array([[0, 1, 2]]), np.array([0]))
    array([[[0, 2, 1]]])
    """
    *lead, batch, columns, n, _ = scores.shape
    plans = np.zeros((*lead, batch, columns, n), dtype=np.int64)
    for column, step in enumerate(steps):
        table = np.array(scores[..., column, :, :], dtype=np.float64)
        plans[..., column, : step + 1] = tours[:, : step + 1]
        for visited in np.moveaxis(plans[..., column, : step + 1], -1, 0):
            np.put_along_axis(
                table, np.broadcast_to(visited[..., None, None], (*table.shape[:-1], 1)), -np.inf, axis=-1
            )
        for place in range(step + 1, n):
            current = plans[..., column, place - 1, None, None]
            onward = np.take_along_axis(table, np.broadcast_to(current, (*table.shape[:-2], 1, n)), axis=-2)[..., 0, :]
            choice = onward.argmax(axis=-1)
            plans[..., column, place] = choice
            np.put_along_axis(table, np.broadcast_to(choice[..., None, None], (*table.shape[:-1], 1)), -np.inf, axis=-1)
    return plans
