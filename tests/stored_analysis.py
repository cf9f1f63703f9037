"""A small stored analysis with known numbers, for tests that read one (DESIGN section 4)."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mesaprobe.analysis.store import save_analysis

CITIES = 6
LAYERS = 2
HEADS = 2
PREFIX = (0, 3, 1)
METHODS = ("model", "optimal", "nearest_neighbour", "greedy_edge")
KINDS = ("resid_pre", "attn_out", "mlp_out", "resid_post")


def write_stored_analysis(
    folder: Path, *, report: dict[str, Any] | None = None, figures: dict[str, dict[str, Any]] | None = None
) -> Path:
    """Store an analysis in `folder`: what is not given is `stored_report()` and `stored_figures()`."""
    report = stored_report() if report is None else report
    figures = stored_figures() if figures is None else figures
    evidence = pd.DataFrame(
        [{"line": line["id"], "quantity": "value", "value": line["value"]} for line in report["lines"]]
    )
    save_analysis(folder, report, evidence, figures)
    return folder


def stored_report(name: str = "matrix6-optimal") -> dict[str, Any]:
    """A report of schema version 1: one evidence line, no zoo."""
    return {
        "schema": 1,
        "subject": {
            "name": name,
            "path": f"trained_models/{name}",
            "problem": {"family": "matrix", "n": CITIES, "levels": 64, "grid": 10_000},
            "parameters": 793_608,
            "layers": LAYERS,
            "d_model": 128,
            "attention": "prefix",
            "teacher": "optimal",
            "arm": None,
            "weights_hash": "5f0c2e9a71b4d3e8",
        },
        "behaviour": {
            "instances": 200,
            "legal_fraction": 0.9985,
            "optimal_fraction": 0.8615,
            "gap_mean": 0.0073,
            "gap_ci": [0.0061, 0.0086],
            "decision_accuracy": 0.9612,
            "decision_states": 5561,
            "discordant_accuracy": 0.8123,
            "discordant_states": 742,
            "accuracy_by_dstar": {
                "0": {"accuracy": 0.991, "states": 4120},
                "1": {"accuracy": 0.932, "states": 1211},
                "2": {"accuracy": 0.87, "states": 230},
                "3+": {"accuracy": None, "states": 0},
            },
            "references": {
                "nearest_neighbour": {"gap_mean": 0.2231, "optimal_fraction": 0.141},
                "greedy_edge": {"gap_mean": 0.1571, "optimal_fraction": 0.203},
                "random_legal": {"gap_mean": 1.0213, "optimal_fraction": 0.002},
            },
        },
        "lines": [_line()],
        "gates": [
            {"id": "G1", "name": "competence", "passed": True, "why": "99.85% legal, gap below random legal tours"},
            {"id": "G2", "name": "architecture in the zoo", "passed": None, "why": "there is no zoo yet"},
            {"id": "G4", "name": "interchange", "passed": False, "why": "E7 was not run"},
        ],
        "verdict": {
            "label": "INCONCLUSIVE",
            "leaning": None,
            "reason": "NO_ZOO",
            "objective": {"status": None, "why": "no line tests the objective yet"},
            "kind": None,
            "log10_lr": None,
            "log10_lr_cap": None,
            "conformal_p_under_heuristic": None,
            "conformal_p_under_search": None,
            "error_rates": {"false_search": None, "false_heuristic": None, "inconclusive": None},
            "zoo": {"hash": None, "members": 0, "families": 0},
        },
        "protocol": {"hash": "8c1f0b6de2", "budget": "quick", "seed": 7},
        "versions": {"mesaprobe": "0.1.0", "torch": "2.13.0", "numpy": "2.3.1"},
        "seconds": 187.4,
    }


def _line() -> dict[str, Any]:
    return {
        "id": "E6",
        "name": "plans: the edge two steps ahead",
        "status": "ok",
        "reason": None,
        "value": 0.0421,
        "ci": [0.0312, 0.0533],
        "p": 0.004,
        "null": {"random twin 0": 0.0117, "shuffled labels": -0.0021, "none (0)": 0.0},
        "details": {"site": "blocks.1.hook_resid_post @ decode", "information_ci": [0.043, 0.064], "instances": 1000},
        "seconds": 64.2,
    }


def stored_figures(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Every figure's arrays, with the shapes and names that an analysis stores."""
    rng = np.random.default_rng(seed)
    return {
        "instances": _instances(rng),
        "training": _training(rng),
        "gaps": _gaps(rng),
        "dstar": _dstar(),
        "E5": _probing(rng, ("decode", "city")),
        "E6": _probing(rng, ("decode", "hidden", "pair")),
        "E10a": _revision(),
        "attention": _attention(rng),
        "patching": _patching(rng),
        "explorer": _explorer(rng),
        "zoo": _zoo(rng),
    }


def _weights(rng: np.random.Generator) -> np.ndarray:
    upper = np.triu(rng.integers(1, 65, size=(CITIES, CITIES)), k=1)
    return (upper + upper.T).astype(np.int32)


def _costs(weights: np.ndarray, tours: np.ndarray) -> np.ndarray:
    return weights[tours, np.roll(tours, -1, axis=-1)].sum(axis=-1)


def _instances(rng: np.random.Generator, count: int = 3) -> dict[str, Any]:
    """Tours ranked by brute force: the optimum, and worse ones for the other methods."""
    weights = np.stack([_weights(rng) for _ in range(count)])
    every = np.array([(0, *rest) for rest in itertools.permutations(range(1, CITIES)) if rest[0] < rest[-1]])
    tours, costs = [], []
    for matrix in weights:
        order = np.argsort(_costs(matrix, every), kind="stable")
        ranked = every[order]
        tours.append(ranked[[1, 0, 20, 8]])
        costs.append(_costs(matrix, tours[-1]))
    return {
        "weights": weights,
        "layout": rng.normal(size=(count, CITIES, 2)),
        "layout_kind": np.array("mds"),
        "stress": np.array([0.18, 0.22, 0.2])[:count],
        "methods": np.array(METHODS),
        "tours": np.stack(tours, axis=1).astype(np.int64),
        "costs": np.stack(costs, axis=1).astype(np.int64),
    }


def _training(rng: np.random.Generator, rows: int = 30) -> dict[str, Any]:
    step = np.arange(1, rows + 1) * 100
    progress = np.linspace(0, 1, rows)
    gap = 0.4 * np.exp(-4 * progress)
    gap[1::2] = np.nan  # evaluated every other row
    return {
        "step": step,
        "instances_seen": step * 64,
        "seconds": step * 0.02,
        "loss": 1.6 * np.exp(-2 * progress) + 0.2 + 0.01 * rng.random(rows),
        "learning_rate": 1e-3 * (1 - progress),
        "gap_mean": gap,
        "optimal_fraction": np.where(np.isnan(gap), np.nan, 0.86 * progress),
        "legal_fraction": np.where(np.isnan(gap), np.nan, 0.9 + 0.0998 * progress),
        "teacher_agreement": np.where(np.isnan(gap), np.nan, 0.5 + 0.45 * progress),
    }


def _gaps(rng: np.random.Generator, instances: int = 200) -> dict[str, Any]:
    methods = ("model", "nearest_neighbour", "greedy_edge", "random_legal")
    scale = np.array([0.05, 0.25, 0.2, 1.0])[:, None]
    optimal = rng.random((4, instances)) < np.array([0.86, 0.14, 0.2, 0.0])[:, None]
    return {
        "methods": np.array(methods),
        "gaps": np.where(optimal, 0.0, scale * rng.exponential(size=(4, instances)) + 0.002),
    }


def _dstar() -> dict[str, Any]:
    spread = np.array([0.003, 0.015, 0.04, 0.0])
    accuracy = np.array([[0.991, 0.932, 0.87, np.nan], [1.0, 0.0, 0.0, np.nan], [0.83, 0.41, 0.32, np.nan]])
    return {
        "bins": np.array(["0", "1", "2", "3+"]),
        "states": np.array([4120, 1211, 230, 0]),
        "methods": np.array(["model", "nearest_neighbour", "greedy_edge"]),
        "accuracy": accuracy,
        "low": np.clip(accuracy - spread, 0, 1),
        "high": np.clip(accuracy + spread, 0, 1),
    }


def _probing(rng: np.random.Generator, views: tuple[str, ...]) -> dict[str, Any]:
    sites = [(view, layer, kind) for view in views for layer in range(LAYERS) for kind in ("resid_pre", "resid_post")]
    sites = [(view, layer, kind) for view, layer, kind in sites if layer == 0 or kind == "resid_post"]
    depth = np.array([layer + 0.5 * (kind == "resid_post") for _, layer, kind in sites]) / LAYERS
    count, seeds = len(sites), 3
    information = np.round(0.08 * depth - 0.005, 4)
    net = np.array([0.042, 0.003, -0.01])
    return {
        "hooks": np.array([f"blocks.{layer}.hook_{kind}" for _, layer, kind in sites]),
        "roles": np.array([view for view, _, _ in sites]),
        "layers": np.array([layer for _, layer, _ in sites]),
        "kinds": np.array([kind for _, _, kind in sites]),
        "information": information,
        "information_low": information - 0.01,
        "information_high": information + 0.012,
        "twin_information": 0.012 + 0.004 * rng.standard_normal((seeds, count)),
        "swap_information": -0.002 + 0.001 * rng.standard_normal(count),
        "selected": np.int64(1),
        "target_names": np.array(["first", "second", "third"]),
        "target_net": net,
        "target_low": net - 0.01,
        "target_high": net + 0.02,
        "target_information": net + 0.015,
        "target_strongest_null": np.full(3, 0.015),
        "target_p": np.array([0.004, 0.4, 1.0]),
    }


def _revision() -> dict[str, Any]:
    return {
        "hooks": np.array([f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS)]),
        "costs": 240.0 - 30 * np.arange(LAYERS),
        "better": np.full(LAYERS - 1, 0.3),
        "worse": np.full(LAYERS - 1, 0.2),
    }


def _attention(rng: np.random.Generator) -> dict[str, Any]:
    positions = CITIES + len(PREFIX)
    scores = rng.gumbel(size=(LAYERS, HEADS, positions, positions)) * 1.5
    visible = np.tril(np.ones((positions, positions), dtype=bool))
    visible[:CITIES, :CITIES] = True  # prefix attention: the instance block sees itself
    patterns = np.exp(np.where(visible, scores, -np.inf))
    return {
        "patterns": (patterns / patterns.sum(axis=-1, keepdims=True)).astype(np.float16),
        "weights": _weights(rng),
        "layout": rng.normal(size=(CITIES, 2)),
        "layout_kind": np.array("mds"),
        "tour": np.array(PREFIX),
        "city_positions": np.arange(CITIES),
        "decode_positions": np.arange(CITIES, positions),
    }


def _patching(rng: np.random.Generator) -> dict[str, Any]:
    clean = _weights(rng)
    corrupt = clean.copy()
    corrupt[2, 4] = corrupt[4, 2] = 61 if clean[2, 4] != 61 else 60
    cities, steps = (f"city {city}" for city in range(CITIES)), (f"step {step}" for step in range(1, len(PREFIX) + 1))
    locations = [*cities, "cities 2+4", *steps]
    layers = [*(f"blocks.{layer}.hook_resid_pre" for layer in range(LAYERS)), f"blocks.{LAYERS - 1}.hook_resid_post"]
    shape = (len(layers), len(locations))
    effects = np.round(0.05 * rng.standard_normal(shape), 3)
    effects[0, CITIES], effects[-1, -1] = 1.0, 0.93
    return {
        "effects": effects,
        "identity": np.zeros(shape),
        "irrelevant": np.round(0.02 * rng.standard_normal(shape), 3),
        "random": np.round(0.08 * rng.standard_normal(shape), 3),
        "layer_names": np.array(layers),
        "locations": np.array(locations),
        "clean_weights": clean,
        "corrupt_weights": corrupt,
        "changed": np.array([2, 4]),
        "remote": np.array(True),
        "layout": rng.normal(size=(CITIES, 2)),
        "layout_kind": np.array("mds"),
        "prefix": np.array(PREFIX),
        "clean_choice": np.int64(2),
        "corrupt_choice": np.int64(5),
        "clean_difference": np.float64(-4.21),
        "corrupt_difference": np.float64(3.07),
    }


def _explorer(rng: np.random.Generator, count: int = 2) -> dict[str, Any]:
    """Every state of two random tours; exact values and completions by brute force."""
    weights = np.stack([_weights(rng) for _ in range(count)])
    tours = np.stack([np.append(0, 1 + rng.permutation(CITIES - 1)) for _ in range(count)])
    steps = CITIES - 2
    values = np.full((count, steps, CITIES), np.inf)
    completions = np.full((count, steps, CITIES, CITIES), -1, dtype=np.int16)
    for i, s in itertools.product(range(count), range(steps)):
        prefix = tours[i, : s + 1].tolist()
        for rest in itertools.permutations(set(range(CITIES)) - set(prefix)):
            whole = np.array([*prefix, *rest])
            cost = int(weights[i][whole[s:], np.append(whole[s + 1 :], 0)].sum())
            if cost < values[i, s, rest[0]]:
                values[i, s, rest[0]], completions[i, s, rest[0]] = cost, whole
    logits = np.where(np.isfinite(values), 2 * rng.normal(size=values.shape), -9.0)
    sharpness = np.linspace(0.2, 1, LAYERS + 1)[:, None, None, None]
    return {
        "weights": weights,
        "layout": rng.normal(size=(count, CITIES, 2)),
        "layout_kind": np.array("mds"),
        "stress": np.array([0.18, 0.2])[:count],
        "tours": tours,
        "is_decision": np.array([False, True, False, False]),
        "values": values,
        "probabilities": _softmax(logits).astype(np.float32),
        "completions": completions,
        "lens": _softmax(sharpness * logits).astype(np.float16),
        "attention": (0.8 * _softmax(rng.normal(size=(count, steps, LAYERS, HEADS, CITIES)))).astype(np.float16),
    }


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def _zoo(rng: np.random.Generator, families: int = 10) -> dict[str, Any]:
    """A subject whose E6 alone has a value, among two members of each of ten families a class."""
    components = [f"E{number}" for number in range(1, 11)]
    several = {"E2": "E2, E2b", "E7": "E7, E7c", "E10": "E10a, E10b, E10c"}
    only = np.array([name == "E6" for name in components])
    is_search = np.repeat([True, False], 2 * families)
    scores = np.where(is_search, 2.0, -2.0) + 0.4 * rng.normal(size=4 * families)
    return {
        "components": np.array(components),
        "lines": np.array([several.get(name, name) for name in components]),
        "value": np.where(only, 0.0421, np.nan),
        "low": np.where(only, 0.0312, np.nan),
        "high": np.where(only, 0.0533, np.nan),
        "p": np.where(only, 0.004, np.nan),
        "stands_out": only,
        "names": np.array([f"{'searcher' if s else 'rule'}-{i}" for i, s in enumerate(is_search)]),
        "families": np.array([f"family-{i // 2}" for i in range(4 * families)]),
        "is_search": is_search,
        "member_values": np.where(is_search, 0.6, 0.05)[:, None] + 0.04 * rng.normal(size=(4 * families, 10)),
        "member_scores": scores,
        "score": np.array(0.5),
        "weights": np.linspace(0.1, 1.0, 10),
        "vector": np.where(only, -0.4, 0.0),
        "search_above": np.array(1.25),
        "heuristic_below": np.array(-0.75),
        "alpha": np.array(0.1),
        "families_asked": np.array(10),
        "rate_names": np.array(["false_search", "false_heuristic", "false_leaning_search", "false_leaning_heuristic"]),
        "rate_wrong": np.array([1, 2, 3, 4]),
        "rate_models": np.array([20, 20, 20, 20]),
        "rate_models_bound": np.array([0.216, 0.283, 0.344, 0.401]),
        "rate_families_bound": np.array([0.394, 0.507, 0.607, 0.697]),
    }
