"""The pairs that the causal lines share: mined once, the same for every subject, filtered by its own answers."""

from pathlib import Path

import numpy as np
import pytest
from known_subjects import nearest_subject, optimal_subject

import mesaprobe.evidence.states.pairs as module
from mesaprobe.errors import UserError
from mesaprobe.evidence.states.pairs import mined_pairs, optimal_pairs
from mesaprobe.labels.pairs import PairCriteria, check_pairs

NEAR = PairCriteria(protected=2)  # with n = 7 no state has six cities to spare


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module._mined.cache_clear()


def test_pairs_are_the_same_for_every_subject_and_disjoint_between_sets() -> None:
    optimal, nearest = optimal_subject(planted=False), nearest_subject()
    found = optimal_pairs(optimal, "pairs_test", 60, 0, NEAR)
    assert (len(found), found.mined, found.right_fraction) == (60, 60, 1.0)
    check_pairs(found.pairs)
    few = optimal_pairs(nearest, "pairs_test", 60, 0, NEAR)
    assert 0 < len(few) < 60
    ours, theirs = (x.pairs.base.weights.reshape(len(x), -1) for x in (few, found))
    assert {w.tobytes() for w in ours} <= {w.tobytes() for w in theirs}
    other = mined_pairs(optimal.problem, "pairs_probe", 60, 0, NEAR)
    assert not {w.tobytes() for w in other.base.weights} & {w.tobytes() for w in found.pairs.base.weights}


def test_a_subject_is_right_on_every_base_that_is_kept() -> None:
    found = optimal_pairs(nearest_subject(), "pairs_probe", 60, 0, NEAR)
    rows = np.arange(len(found))
    assert found.pairs.old_optimal[rows, found.base_action].all()
    assert found.pairs.new_optimal[rows, found.target].all()
    moved, stray = found.switched()
    assert not moved.any()  # one-step rules do not see what the pairs change
    assert not stray.any()
    every, none = optimal_pairs(optimal_subject(planted=False), "pairs_probe", 60, 0, NEAR).switched()
    assert every.all()
    assert not none.any()


def test_what_was_mined_is_read_again_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = optimal_subject(planted=False).problem
    first = mined_pairs(problem, "pairs_test", 20, 5, NEAR)
    module._mined.cache_clear()
    monkeypatch.setattr(module, "mine_pairs", None)  # mining again would fail
    again = mined_pairs(problem, "pairs_test", 20, 5, NEAR)
    for one, other in zip(first.members, again.members, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(first.new_optimal, again.new_optimal)
    check_pairs(again)


def test_problems_without_pairs_say_so() -> None:
    with pytest.raises(UserError, match="lower protected"):
        optimal_pairs(optimal_subject(planted=False), "pairs_test", 10, 0)
