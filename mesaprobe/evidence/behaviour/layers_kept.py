"""E10c: do more layers help on hard decisions more than on easy ones?

After each layer the network's own final norm and unembedding read an answer from the stream, as if later layers were
skipped. The accuracy over the layers kept has a slope (per whole depth); the value is the slope on discordant
decisions, where every rule of HEUR-v1 is wrong, less the slope on easy ones (d* = 0). Any residual network sharpens its
answer with depth, and gains from compute are no proof of search (method.md section 5, E10c): a third of one component,
no more. A network without such an axis gives no value. In a looped network each turn of the loop is a layer.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64

from mesaprobe.errors import UserError
from mesaprobe.evidence.behaviour.telling_states import telling_states
from mesaprobe.evidence.protocol import draw_set
from mesaprobe.evidence.result import LINES, Line, LineResult
from mesaprobe.evidence.states.decision_states import DecisionStates, states_along_optimal_tours
from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.lens import Lens, lens_sites, logit_lens
from mesaprobe.labels import lookahead_needs
from mesaprobe.labels.values import decision_steps
from mesaprobe.models.subject import Subject
from mesaprobe.solvers.exact.held_karp import action_values
from mesaprobe.statistics import bootstrap_of_sums, instance_sums, minimum_detectable_effect, sign_flip_p

ID, NAME = "E10c", "accuracy over layers kept, hard against easy decisions"


@dataclass(frozen=True)
class LayersKeptSettings:
    """How many states; `pool` and `telling` are those of E1, whose discordant decisions are used again."""

    pool: int
    telling: int
    hard_states: int
    easy_states: int
    fewest_states: int = 40
    resamples: int = 2000
    sign_flips: int = 999


def layers_kept(subject: Subject, settings: LayersKeptSettings, seed: int) -> LineResult:
    """Run the line on a subject."""
    problem = subject.problem
    steps = decision_steps(problem)
    if steps.stop <= steps.start:
        return LineResult("na", f"{problem.n} cities leave no decisions")
    try:
        sites, lens = lens_sites(subject), logit_lens(subject)
    except UserError as error:
        return LineResult("na", f"no axis of layers: {error}")
    if len(sites) < 3:
        return LineResult("na", "a single layer is no axis along which layers could be left out")
    hard = telling_states(problem, "test", settings.pool, settings.telling, seed).states
    hard = hard[np.arange(min(len(hard), settings.hard_states))]
    easy = _easy_states(subject, settings, seed)
    if min(len(hard), len(easy)) < settings.fewest_states:
        return LineResult("na", f"only {len(hard)} discordant and {len(easy)} easy decisions were found")
    right = [_right_by_layer(subject, lens, sites, states) for states in (hard, easy)]
    twin = subject.random_twin(seed + 1)
    some = np.arange(settings.fewest_states)
    null = [_slopes(_right_by_layer(twin, logit_lens(twin), sites, part[some])).mean() for part in (hard, easy)]
    return _result(right, hard, easy, null, settings, np.random.default_rng([seed, 861]))


def _easy_states(subject: Subject, settings: LayersKeptSettings, seed: int) -> DecisionStates:
    """Decisions with d* = 0 of the lens set, each of an instance of its own as far as there are any."""
    instances = draw_set(subject.problem, "lens", settings.easy_states, seed)
    states = states_along_optimal_tours(instances, np.random.default_rng([seed, 862]))
    steps = decision_steps(subject.problem)
    first = np.flatnonzero(states.steps == steps.start)
    weights, tours = states.weights[first], states.tours[first]
    needs = lookahead_needs(weights, tours, action_values(weights, tours), steps).ravel()
    order = np.random.default_rng([seed, 863]).permutation(np.flatnonzero(needs == 0))
    return states[np.sort(order[: settings.easy_states])]


def _right_by_layer(
    subject: Subject, lens: Lens, sites: list[Site], states: DecisionStates
) -> Bool[np.ndarray, "layer state"]:
    """Whether the answer after each number of layers (0 first) is an optimal city; visited ones masked."""
    found = np.zeros((len(sites), len(states)), dtype=bool)
    optimal, free, features = states.optimal(), states.free, states.instances.features
    hooks = [site.hook for site in sites]
    for step in np.unique(states.steps):
        for rows in np.array_split(own := np.flatnonzero(states.steps == step), -(-len(own) // 1024)):
            prefixes = torch.from_numpy(states.tours[rows, : step + 1])
            seen = subject.activations(torch.from_numpy(features[rows]), prefixes, hooks)
            for layer, hook in enumerate(hooks):
                logits = lens.at(layer, seen[hook][:, subject.decode_position(int(step) + 1)]).float().cpu().numpy()
                answer = np.where(free[rows], logits, -np.inf).argmax(axis=1)
                found[layer, rows] = optimal[rows, answer]
    return found


def _slopes(right: Bool[np.ndarray, "layer state"]) -> Float64[np.ndarray, " state"]:
    """What each state adds to the least-squares slope of accuracy on the share of layers kept."""
    kept = np.linspace(0.0, 1.0, len(right))
    weights = (kept - kept.mean()) / np.square(kept - kept.mean()).sum()
    return np.asarray(weights @ right)


def _result(
    right: list[np.ndarray],
    hard: DecisionStates,
    easy: DecisionStates,
    null: list[float],
    settings: LayersKeptSettings,
    rng: np.random.Generator,
) -> LineResult:
    slopes = [_slopes(part) for part in right]
    groups = np.concatenate([hard.groups, easy.groups + int(hard.groups.max()) + 1])
    is_hard = np.repeat([True, False], [len(hard), len(easy)])
    terms = np.concatenate(slopes)
    sums = instance_sums(np.stack([terms * is_hard, is_hard, terms * ~is_hard, ~is_hard]), groups)

    def difference(totals: Float64[np.ndarray, "draw four"]) -> Float64[np.ndarray, "draw three"]:
        first, second = totals[:, 0] / totals[:, 1], totals[:, 2] / totals[:, 3]
        return np.stack([first - second, first, second], axis=1)

    found = bootstrap_of_sums(difference, sums, rng, resamples=settings.resamples)
    centred = instance_sums(slopes[0] - slopes[1].mean(), hard.groups)
    accuracy = [part.mean(axis=1) for part in right]
    return LineResult(
        "ok",
        None,
        found[0].value,
        found[0].ci,
        sign_flip_p(centred, rng, flips=settings.sign_flips),
        null={"random-weight twin": float(null[0] - null[1]), "none (0)": 0.0},
        details={
            "slope_hard": {"value": found[1].value, "ci": list(found[1].ci)},
            "slope_easy": {"value": found[2].value, "ci": list(found[2].ci)},
            "accuracy_hard": accuracy[0].tolist(),
            "accuracy_easy": accuracy[1].tolist(),
            "layers": len(accuracy[0]) - 1,
            "states": {"hard": len(hard), "easy": len(easy)},
            "detectable": minimum_detectable_effect(float(found.error[0])),
            "axis": "layers kept",
        },
        arrays={
            "kept": np.arange(len(accuracy[0])),
            "hard": accuracy[0],
            "easy": accuracy[1],
            "hard_states": np.array(len(hard)),
            "easy_states": np.array(len(easy)),
        },
    )


LINES.add(
    ID,
    Line(
        ID,
        NAME,
        layers_kept,
        {
            "quick": LayersKeptSettings(20_000, 800, hard_states=600, easy_states=600),
            "standard": LayersKeptSettings(40_000, 2000, hard_states=2000, easy_states=2000),
            "full": LayersKeptSettings(80_000, 4000, hard_states=4000, easy_states=4000),
        },
        asks_library=True,
    ),
)
