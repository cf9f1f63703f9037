"""Leaving an algorithm out: no filter, null, nuisance or library names it, and no remembered answer leaks it."""

import numpy as np
import pytest

from mesaprobe.evidence import line_hash
from mesaprobe.evidence.behaviour.library import library
from mesaprobe.evidence.behaviour.telling_states import telling_states
from mesaprobe.evidence.states.causal_models import rival_models
from mesaprobe.evidence.states.pairs import mined_pairs
from mesaprobe.labels import decision_steps
from mesaprobe.labels.choices import heuristic_choices
from mesaprobe.labels.nuisance import nuisance_features
from mesaprobe.labels.pairs import PairCriteria
from mesaprobe.problems import ProblemConfig, make_problem, random_tours
from mesaprobe.solvers.algorithms import ALGORITHMS, HEUR_V1
from mesaprobe.solvers.known_rules import known_rules, leaving_out, left_out
from mesaprobe.zoo.catalogue import select
from mesaprobe.zoo.members import FAMILIES, OWN_ALGORITHMS
from mesaprobe.zoo.records import read_records, records_folder

PROBLEM = make_problem(ProblemConfig(n=8))


def test_nothing_is_left_out_by_default_and_blocks_nest() -> None:
    assert known_rules() == HEUR_V1
    with leaving_out(["savings"]):
        with leaving_out(["greedy_edge"]):
            assert left_out() == ("greedy_edge", "savings")
        assert left_out() == ("savings",)
        with pytest.raises(RuntimeError), leaving_out(["mst_preorder"]):
            raise RuntimeError
        assert left_out() == ("savings",)
    assert left_out() == ()
    assert "mst_preorder" not in known_rules(make_problem(ProblemConfig("asymmetric", 7)))


def test_no_room_names_a_rule_that_is_left_out() -> None:
    rng = np.random.default_rng(0)
    instances = PROBLEM.draw(20, rng)
    tours, steps = random_tours(20, 8, rng), decision_steps(PROBLEM)
    features = nuisance_features(instances, tours, steps)
    with leaving_out(["greedy_edge", "two_opt"]):
        assert "greedy_edge" not in heuristic_choices(instances, tours, steps)
        assert nuisance_features(instances, tours, steps).shape[3] == features.shape[3] - 1
        assert "greedy_edge" not in PairCriteria().heuristics
        assert "greedy_edge" not in [model.name for model in rival_models(PROBLEM)]
        names = [algorithm.name for algorithm in library(PROBLEM)]
        assert not {"greedy_edge", "two_opt"} & set(names)
        assert "held_karp" in names
    assert {"greedy_edge", "two_opt"} < {algorithm.name for algorithm in library(PROBLEM)}


def test_remembered_pairs_and_states_are_those_of_the_rules_known() -> None:
    """A filter that forgets a rule lets more through, also right after the same question with the rule known."""
    known = mined_pairs(PROBLEM, "pairs_probe", 40, 3)
    before = telling_states(PROBLEM, "test", 400, 60, 0).states
    with leaving_out(["farthest_insertion"]):
        fewer_rules = mined_pairs(PROBLEM, "pairs_probe", 40, 3)
        noticed = fewer_rules.criteria
        after = telling_states(PROBLEM, "test", 400, 60, 0).states
        rows = np.arange(len(after))
        named = heuristic_choices(after.instances, after.tours, slice(None))
        optimal = after.optimal()
        for chosen in named.values():
            assert not optimal[rows, chosen[rows, after.steps]].any()
    assert noticed.heuristics == tuple(rule for rule in HEUR_V1 if rule != "farthest_insertion")
    assert known.criteria.heuristics == HEUR_V1
    assert known.heuristic_choices.shape[1] == fewer_rules.heuristic_choices.shape[1] + 1
    completions = ALGORITHMS["farthest_insertion"].completions
    assert completions is not None
    rule = completions(after.weights, after.tours, after.steps + 1)[rows, after.steps + 1]
    assert optimal[rows, rule].any(), "the forgotten rule's answers stay in"
    rule = completions(before.weights, before.tours, before.steps + 1)[np.arange(len(before)), before.steps + 1]
    assert not before.optimal()[np.arange(len(before)), rule].any()


def test_hashes_change_where_the_line_asks_what_was_left_out() -> None:
    known = {line: line_hash(line, "quick") for line in ("E1", "E3", "E7")}
    with leaving_out(["two_opt"]):
        assert {line: line_hash(line, "quick") == known[line] for line in known} == {
            "E1": False,
            "E3": True,
            "E7": True,
        }
    with leaving_out(["savings"]):
        assert not any(line_hash(line, "quick") == known[line] for line in known)


def test_the_zoo_names_algorithms_of_the_library_only() -> None:
    limited = {algorithm.name for algorithm in library(PROBLEM)}
    for family, names in OWN_ALGORITHMS.items():
        assert family in FAMILIES["search"] + FAMILIES["heuristic"]
        assert all(name in ALGORITHMS or name in limited for name in names), family
    rules = {family for family in FAMILIES["heuristic"] if family in ALGORITHMS}
    assert rules <= set(OWN_ALGORITHMS), "every rule by its own name forgets itself"
    assert select(["savings-loop"])[0].family in OWN_ALGORITHMS


def test_shipped_records_hold_every_line_without_the_own_algorithms_that_they_hold_with_them() -> None:
    """Where some were missing, a member would be judged on less than it was fitted with, and nothing would say so."""
    for record in read_records(records_folder(), "quick"):
        if record.unaided:
            assert set(record.unaided) == set(record.lines), record.name
