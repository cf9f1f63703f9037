"""Curricula: measures of hardness, who is drawn when, and that runs at the network's pace repeat themselves."""

import dataclasses
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import changed, history_of, with_data

from mesaprobe.errors import UserError
from mesaprobe.labels.hardness_measures import MEASURES, non_greedy_steps
from mesaprobe.models.checkpoint import load_tensors
from mesaprobe.problems import ProblemConfig, make_problem
from mesaprobe.training import loop
from mesaprobe.training.curriculum import STAGES, CurriculumConfig, competence, pool_size, select
from mesaprobe.training.loop import Progress, train
from mesaprobe.training.stream import make_batch

PROBLEM = make_problem(ProblemConfig(n=6))


def test_non_greedy_steps_are_counted_along_an_optimal_tour() -> None:
    instances = make_problem(ProblemConfig(n=6, levels=1000)).draw(40, np.random.default_rng(0))
    found = non_greedy_steps(instances)
    for w, count in zip(instances.weights, found, strict=True):
        tours = [(0, *rest) for rest in permutations(range(1, 6))]
        costs = [sum(w[a, b] for a, b in zip(t, (*t[1:], 0), strict=True)) for t in tours]
        optimal = [t for t, c in zip(tours, costs, strict=True) if c == min(costs)]
        steps = [
            sum(w[t[i], t[i + 1]] > min(w[t[i], t[j]] for j in range(i + 1, 6)) for i in range(4)) for t in optimal
        ]
        assert count in steps
        if len(optimal) == 2:
            assert count == min(steps), "the direction that has fewer"


@pytest.mark.parametrize("name", MEASURES)
def test_levels_cover_every_measure(name: str) -> None:
    measure = MEASURES[name]
    instances = make_problem(ProblemConfig(n=8)).draw(400, np.random.default_rng(0))
    levels = measure.level(measure.score(instances))
    assert set(levels) <= set(range(len(measure.levels)))
    assert len(set(levels)) >= 3, "a measure that tells nothing apart orders nothing"


def test_the_easiest_are_drawn_first_and_all_at_the_end() -> None:
    rng = np.random.default_rng(0)
    pool = PROBLEM.draw(300, rng)
    scores = np.sort(non_greedy_steps(pool))
    for order, expected in (("easy_to_hard", scores[:30]), ("hard_to_easy", scores[-30:])):
        kept = select(CurriculumConfig(order=order), pool, 30, rng)  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.sort(non_greedy_steps(kept.instances)), expected)
        assert kept.levels.sum() == 30
    config = CurriculumConfig(order="easy_to_hard")
    assert [pool_size(config, 32, competence(config, done, 0)) for done in (0.0, 1.0)] == [320, 32]


def test_batches_get_harder_easier_or_stay_the_same() -> None:
    def hardness(order: str, step: int) -> float:
        config = changed(
            problem=ProblemConfig(n=6),
            curriculum=CurriculumConfig(order=order),  # type: ignore[arg-type]
            steps=1000,
            batch_size=400,
        )
        levels = make_batch(config, step).levels
        assert levels is not None
        return float(levels @ np.arange(len(levels)) / levels.sum())

    assert hardness("easy_to_hard", 0) < hardness("easy_to_hard", 100) < hardness("easy_to_hard", 900)
    assert hardness("hard_to_easy", 0) > hardness("hard_to_easy", 100) > hardness("hard_to_easy", 900)
    fixed = [np.mean([hardness("fixed", start + k) for k in range(20)]) for start in (0, 900)]
    assert fixed[0] == pytest.approx(fixed[1], abs=0.2)


def test_a_run_at_the_networks_pace_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "next_stage", lambda _, stage, *__: min(stage + 1, STAGES - 1))
    config = changed(curriculum=CurriculumConfig(order="easy_to_hard", pace="competence"))
    train(config, tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(with_data(config, workers=1), tmp_path / "cut", show=stop)
    train(with_data(config, workers=1), tmp_path / "cut", resume=True)
    whole, cut = (load_tensors(tmp_path / name / "model.safetensors")[0] for name in ("whole", "cut"))
    assert all((whole[name] == cut[name]).all() for name in whole)
    assert history_of(tmp_path / "whole") == history_of(tmp_path / "cut")
    assert [row["stage"] for row in history_of(tmp_path / "whole")] == [1, 2, 3]
    assert [row["competence"] for row in history_of(tmp_path / "whole")] == pytest.approx([0.28, 0.46, 0.64])


def test_what_cannot_go_together_is_refused() -> None:
    with pytest.raises(UserError, match="pace"):
        CurriculumConfig(order="fixed", pace="competence")
    with pytest.raises(UserError, match="fixed_instances"):
        dataclasses.replace(with_data(fixed_instances=10), curriculum=CurriculumConfig(order="easy_to_hard"))
