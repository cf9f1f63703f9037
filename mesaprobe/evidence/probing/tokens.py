"""What each view shows of a network: decode tokens, city tokens, pairs of city tokens; and the raw input instead."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64

from mesaprobe.evidence.probing.plan_targets import PlanStates
from mesaprobe.evidence.probing.readings import Tokens, as_samples, narrowed
from mesaprobe.evidence.probing.states import States
from mesaprobe.instruments.activations import Site, collect, collect_city_tokens, residual_sites
from mesaprobe.models.subject import Subject
from mesaprobe.problems import Problem

STREAM = ("resid_pre", "resid_post")
PAIRED, LINEAR = 12, 32
"""Principal components of city tokens whose products, and which themselves, a pair's probe sees."""


def stream_sites(subject: Subject) -> tuple[list[Site], list[Site]]:
    """The residual stream before the first layer and after each, at decode tokens and at city tokens."""
    sites = [site for site in residual_sites(subject) if site.kind in STREAM]
    return [site for site in sites if site.role == "decode"], [site for site in sites if site.role == "city"]


def decode_tokens(
    subject: Subject,
    states: Mapping[str, States | PlanStates],
    steps: slice,
    sites: Sequence[Site],
    components: int,
    view: str = "decode",
) -> Tokens:
    """The token that answers each state; samples are (instance, step). Sites must be of one width."""
    found = {
        name: as_samples(
            collect(subject, part.features, torch.from_numpy(part.tours), steps, sites, dtype=np.float32).values
        )
        for name, part in states.items()
        if name != "calibration"
    }
    return Tokens(view, tuple(site.hook for site in sites), *narrowed(found["probe"], found["test"], components))


def city_tokens(
    subject: Subject, states: Mapping[str, States | PlanStates], sites: Sequence[Site]
) -> dict[str, Float[np.ndarray, "site instance n d"]]:
    """Every city's own token at the root, on the probe and the test set."""
    return {
        name: np.asarray(collect_city_tokens(subject, part.features, sites, dtype=np.float32).values)
        for name, part in states.items()
        if name != "calibration"
    }


def raw_states(states: Mapping[str, States | PlanStates], steps: slice) -> Tokens:
    """The input in place of activations: all features, the current city's row once more, and who has been visited."""
    found = {}
    for name, part in states.items():
        tours = part.tours
        batch, n = tours.shape
        columns = []
        for step in np.arange(n)[steps]:
            visited = np.zeros((batch, n))
            np.put_along_axis(visited, tours[:, : step + 1], 1.0, axis=1)
            current = np.eye(n)[tours[:, step]]
            own = part.instances.features[np.arange(batch), tours[:, step]]
            everything = _features(part.instances.problem, part.instances.features)
            columns.append(np.concatenate([everything, own, current, visited], axis=1))
        found[name] = as_samples(np.stack(columns, axis=1)[None])
    return Tokens("decode", ("input",), found["probe"], found["test"])


def raw_cities(states: Mapping[str, States | PlanStates]) -> dict[str, Float64[np.ndarray, "site instance n d"]]:
    """Each city's own features, and which city it is."""
    return {
        name: np.concatenate(
            [
                part.instances.features,
                np.broadcast_to(np.eye(part.tours.shape[1]), (len(part.tours), *2 * (part.tours.shape[1],))),
            ],
            axis=2,
        )[None].astype(np.float64)
        for name, part in states.items()
    }


def _features(problem: Problem, features: Float[np.ndarray, "batch n f"]) -> Float64[np.ndarray, "batch k"]:
    """All features of an instance, those of a symmetric matrix once."""
    batch, n, width = features.shape
    if problem.symmetric and width == n:
        return features[:, *np.triu_indices(n, 1)].astype(np.float64)
    return features.reshape(batch, -1).astype(np.float64)


def single_tokens(
    sites: Sequence[str], values: Mapping[str, Float[np.ndarray, "site instance n d"]], components: int
) -> Tokens:
    """City tokens one by one; samples are (instance, city)."""
    sides = narrowed(as_samples(values["probe"]), as_samples(values["test"]), components)
    return Tokens("city", tuple(sites), *sides)


def pair_tokens(
    sites: Sequence[str],
    values: Mapping[str, Float[np.ndarray, "site instance n d"]],
    pairs: Int64[np.ndarray, "pair two"],
    symmetric: bool,
) -> Tokens:
    """Pairs of city tokens, for a bilinear probe h_u' W h_v by ridge: samples are (instance, pair).

    W is full on the `PAIRED` leading principal components of a city token and 0 elsewhere, the linear part sees
    `LINEAR` of them. Of a symmetric problem the order of the two does not matter.
    """
    instances = {name: part.shape[1] for name, part in values.items()}
    probe, test = narrowed(as_samples(values["probe"]), as_samples(values["test"]), LINEAR)
    mean, scale = probe.mean(axis=1), np.maximum(probe.std(axis=1), 1e-9)
    sides = []
    for name, side in (("probe", probe), ("test", test)):
        found = []
        for site, tokens in enumerate(side):  # one at a time: the products of all would be several times as large
            scaled = ((tokens - mean[site]) / scale[site]).reshape(instances[name], -1, tokens.shape[1])
            features = _pair_features(scaled[:, pairs[:, 0]], scaled[:, pairs[:, 1]], symmetric)
            found.append(features.reshape(-1, features.shape[-1]))
        sides.append(np.stack(found))
    return Tokens("pair", tuple(sites), *sides)


def _pair_features(
    left: Float64[np.ndarray, "*batch d"], right: Float64[np.ndarray, "*batch d"], symmetric: bool
) -> Float64[np.ndarray, "*batch k"]:
    width = min(PAIRED, left.shape[-1])
    products = left[..., :width, None] * right[..., None, :width]
    if not symmetric:
        return np.concatenate([left, right, products.reshape(*left.shape[:-1], -1)], axis=-1)
    both = (products + products.swapaxes(-1, -2))[..., *np.triu_indices(width)]
    return np.concatenate([left + right, both], axis=-1)
