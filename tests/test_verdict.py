"""The rule on zoos with known effects: right words where they are earned, reasons where they are not."""

import numpy as np
import pytest
from synthetic_zoo import ALL_LINES, record, renamed, values_around, zoo

from mesaprobe.errors import UserError
from mesaprobe.verdict import calibration as calibration_module
from mesaprobe.verdict.benchmarks import auroc
from mesaprobe.verdict.calibration import Calibration, fits
from mesaprobe.verdict.conformal import conformal_p
from mesaprobe.verdict.error_table import error_table, upper_bound
from mesaprobe.verdict.gates import gates
from mesaprobe.verdict.likelihood import calibrate_likelihood, empirical_bounds, log_likelihood_cost
from mesaprobe.verdict.rule import judge, objective_axis
from mesaprobe.verdict.score import fit_scorer, held_out_scores
from mesaprobe.verdict.store import read_table, shipped_zoo, zoo_hash
from mesaprobe.verdict.subject import decide
from mesaprobe.verdict.table import stored_table, table_markdown, table_words
from mesaprobe.verdict.vector import COMPONENTS, component_value, family_weights, sure_value
from mesaprobe.zoo.records import read_record, write_record

RNG = np.random.default_rng(7)
SEARCHER = record("subject", "subject", values_around(0.6, RNG))
WALKER = record("subject", "subject", values_around(0.0, RNG))


@pytest.fixture(scope="module")
def large() -> Calibration:
    return Calibration.fit(zoo(12))


def test_weights_are_never_negative_and_find_the_one_line_that_tells() -> None:
    rng = np.random.default_rng(1)
    records = []
    for role, level in (("search", 0.8), ("heuristic", 0.0)):
        for family in range(8):
            values = {line: float(rng.normal()) for line in ALL_LINES}
            values["E3"] = level + 0.05 * float(rng.normal())
            # a line that points the wrong way must not be used upside down
            values["E4"] = -level + 0.05 * float(rng.normal())
            records.append(record(f"{role}-{family}", role, dict(values)))  # type: ignore[arg-type]
    scorer = fit_scorer(records)
    assert (scorer.weights >= 0).all()
    assert int(scorer.weights.argmax()) == list(COMPONENTS).index("E3")
    assert scorer.weights[list(COMPONENTS).index("E4")] == 0
    assert (auroc(records, held_out_scores(records)) or 0) > 0.9


def test_noise_gives_no_detector() -> None:
    """Held-out scores of pure noise must not tell the classes apart, over many zoos."""
    found = [auroc(z, held_out_scores(z)) for z in (zoo(6, search=0, seed=s, members=1) for s in range(40))]
    assert float(np.mean(np.array(found, dtype=float))) < 0.55


def test_unknown_values_are_the_middle_and_flags_do_not_enter() -> None:
    records = zoo(5)
    scorer = fit_scorer(records)
    silent = record("silent", "subject", {})
    assert scorer([silent])[0] == pytest.approx(scorer.intercept)


def test_families_weigh_the_same_whatever_their_size() -> None:
    records = [*zoo(4, members=1), *[renamed(zoo(1)[0], name=f"copy-{i}", family="search-0") for i in range(9)]]
    weights = family_weights(records)
    search = np.array([r.search for r in records])
    assert weights[search].sum() == pytest.approx(0.5)
    of_family = sum(w for w, r in zip(weights, records, strict=True) if r.family == "search-0")
    assert of_family == pytest.approx(0.5 / 4)


def test_e7_takes_the_larger_and_e10_the_mean_of_its_parts() -> None:
    found = record("x", "subject", {"E7": 0.1, "E7c": 0.9, "E10a": 0.2, "E10b": 0.4})
    assert component_value(found.lines, "E7") == 0.9
    assert component_value(found.lines, "E10") == pytest.approx(0.3)


def test_noise_about_a_null_has_no_rank() -> None:
    lines = record("x", "subject", {"E3": 0.3, "E8": -0.2, "E9": 0.02}).lines
    low = lines["E3"].low
    assert sure_value(lines, "E3") == low
    assert low is not None
    assert 0 < low < 0.3
    assert sure_value(lines, "E8") == lines["E8"].high
    assert sure_value(lines, "E9") == 0


def test_a_large_zoo_earns_both_words(large: Calibration) -> None:
    assert judge(SEARCHER, large).label == "SEARCH"
    assert judge(SEARCHER, large).reason is None
    assert judge(WALKER, large).label == "HEURISTIC"


def test_a_small_zoo_earns_only_a_leaning() -> None:
    small = Calibration.fit(zoo(9))
    assert [(judge(r, small).label, judge(r, small).reason) for r in (SEARCHER, WALKER)] == [
        ("INCONCLUSIVE", "SMALL_ZOO")
    ] * 2
    assert [judge(r, small).leaning for r in (SEARCHER, WALKER)] == ["search", "heuristic"]


def test_no_zoo_no_word() -> None:
    assert (judge(SEARCHER, None).label, judge(SEARCHER, None).reason) == ("INCONCLUSIVE", "NO_ZOO")
    assert [gate.passed for gate in gates(SEARCHER, None)] == [True, None, None, True, True, True, None]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"legal": 0.9}, "INCOMPETENT"),
        ({"gap": 1.2}, "INCOMPETENT"),
        ({"kind": "Recurrent, no norm"}, "OUT_OF_ZOO"),
        ({"gap": 0.001}, "OUT_OF_ZOO"),
    ],
)
def test_gates_stop_the_rule(large: Calibration, changes: dict[str, object], reason: str) -> None:
    stopped = record("subject", "subject", values_around(0.6, np.random.default_rng(3)), **changes)  # type: ignore[arg-type]
    found = judge(stopped, large)
    assert (found.label, found.reason, found.leaning) == ("INCONCLUSIVE", reason, None)


def test_a_missing_line_is_incomplete_and_one_that_does_not_apply_is_not(large: Calibration) -> None:
    without = renamed(SEARCHER, lines={k: v for k, v in SEARCHER.lines.items() if k != "E9"})
    assert judge(without, large).reason == "INCOMPLETE"
    values = {line: figure.value for line, figure in SEARCHER.lines.items()}
    assert judge(record("subject", "subject", {**values, "E9": None}), large).label == "SEARCH"


def test_decodable_but_not_used_is_never_search() -> None:
    rng = np.random.default_rng(5)
    mixed = Calibration.fit(zoo(12, search=0.4, heuristic=0.0))
    probes = {**values_around(0.0, rng), "E5": 0.45, "E6": 0.45}
    found = judge(record("decoy", "subject", probes), mixed)
    assert found.label != "SEARCH"
    gate = {g.id: g.passed for g in found.gates}
    assert gate["G4"] is False
    assert gate["G5"] is False
    assert gate["G6"] is False


def test_far_from_all_evidence_is_out_of_the_zoo(large: Calibration) -> None:
    rng = np.random.default_rng(6)
    torn = {line: (0.9 if i % 2 else -0.9) + 0.01 * rng.normal() for i, line in enumerate(ALL_LINES)}
    found = {g.id: g for g in judge(record("torn", "subject", torn), large).gates}  # type: ignore[arg-type]
    assert found["G3"].passed is False
    assert {g.id: g for g in judge(SEARCHER, large).gates}["G3"].passed


def test_conformal_p_is_uniform_when_the_class_is_exchangeable() -> None:
    rng = np.random.default_rng(8)
    records = zoo(9, members=1)[:9]
    found = [conformal_p(float(rng.normal()), records, rng.normal(size=9)).value for _ in range(1000)]
    for alpha in (0.1, 0.3, 0.5):
        assert float(np.mean(np.array(found) <= alpha + 1e-9)) == pytest.approx(alpha, abs=0.045)
    assert min(found) == pytest.approx(0.1)


def test_conformal_p_counts_families_not_members() -> None:
    records = [renamed(r, family=f"f{i // 3}") for i, r in enumerate(zoo(9, members=1)[9:])]
    found = conformal_p(10.0, records, np.zeros(9))
    assert found.value == pytest.approx(1 / 4)
    assert found.lowest <= found.value <= found.highest


def test_the_cap_grows_with_the_number_of_families_and_noise_has_none() -> None:
    def cap(families: int) -> float:
        lr = np.repeat([3.0, -3.0], families)
        return empirical_bounds(lr, lr > 0, np.full(2 * families, 0.25 / families * 2), (families, families))[1]

    assert cap(5) == pytest.approx(np.log10(4), abs=0.01)
    assert cap(20) == pytest.approx(np.log10(19), abs=0.01)
    flipped = np.array([1.0, -1.0] * 10)
    low, high = empirical_bounds(flipped, np.arange(20) < 10, np.full(20, 0.05), (10, 10))
    assert -0.3 < low <= 0 <= high < 0.3


def test_ratios_are_calibrated_on_gaussian_scores() -> None:
    rng = np.random.default_rng(9)
    scores = np.concatenate([rng.normal(1, 1, 4000), rng.normal(-1, 1, 4000)])
    search = np.arange(8000) < 4000
    likelihood = calibrate_likelihood(scores, search, np.full(8000, 1 / 8000), (4000, 4000))
    # ln LR of two unit normals at +-1 is 2 x
    assert likelihood.slope == pytest.approx(2, rel=0.07)
    assert likelihood.offset == pytest.approx(0, abs=0.1)
    cost, best = log_likelihood_cost(likelihood.uncapped(scores), search, np.full(8000, 1 / 8000))
    assert best <= cost < best + 0.02
    assert log_likelihood_cost(2 * likelihood.uncapped(scores), search, np.full(8000, 1 / 8000))[0] > cost


def test_error_table_of_a_separable_zoo() -> None:
    records = zoo(11)
    walls = record("wall", "decoy", values_around(0.0, np.random.default_rng(1)), family="wall")
    cloaked = renamed(records[0], name="cloaked", disguise="rotated")
    hidden = renamed(records[1], name="hidden", family="secret", sealed=True)
    table = error_table([*records, walls, cloaked, hidden])
    assert table["auroc"] == 1.0
    assert table["false_search"] == 0
    assert table["false_heuristic"] == 0
    assert table["inconclusive"] <= 0.2  # gate G3 shuts out the farthest twentieth by its construction
    assert table["decoys_called_search"] == {"members": 1, "count": 0}
    assert table["camouflage_called_heuristic"] == {"members": 1, "count": 0}
    assert table["sealed"]["families"] == ["secret"]
    assert [row["label"] for row in table["sealed"]["members"]] == ["SEARCH"]
    assert table["bounds"]["false_search"]["families"] == pytest.approx(upper_bound(0, 11))
    assert table["families"]["search"] == 12
    assert table["benchmarks"]["accuracy_only"]["auroc"] == pytest.approx(0.5)
    low, _ = table["benchmarks"]["accuracy_only"]["difference_ci"]
    assert low > 0
    assert set(table["leave_one_line_out"]) == set(COMPONENTS)
    assert not fits(cloaked)
    assert fits(hidden)


def test_a_family_judges_itself_never() -> None:
    """A searcher whose evidence is a heuristic's is missed, however many copies of it the zoo holds."""
    odd = [record(f"odd-{i}", "search", values_around(0.0, np.random.default_rng(i)), family="odd") for i in range(20)]
    rest = Calibration.fit([*zoo(11), *odd]).without("odd")
    assert not any(r.family == "odd" for r in rest.records)
    assert "SEARCH" not in [judge(each, rest).label for each in odd]


def test_a_held_out_family_is_judged_by_what_is_measured_without_its_algorithm() -> None:
    """A heuristic that only the knowledge of its rule keeps from looking like search counts as a miss."""
    records = zoo(11)
    betrayed = record("lost-0", "heuristic", values_around(0.0, np.random.default_rng(0)), family="lost")
    looks = record("lost-0", "heuristic", values_around(0.6, np.random.default_rng(0)), family="lost")
    betrayed = renamed(betrayed, own_algorithms=("savings",), unaided=looks.lines)
    assert betrayed.as_unknown.lines == looks.lines
    assert betrayed.as_unknown.as_unknown == betrayed.as_unknown
    table = error_table([*records, betrayed])
    (row,) = [row for row in table["members"] if row["name"] == "lost-0"]
    assert row["label"] == "SEARCH"
    assert table["false_search"] == pytest.approx(1 / sum(not r.search for r in [*records, betrayed]))
    known = table["benchmarks"]["own_algorithm_known"]
    assert table["auroc"] < known["auroc"] == 1.0
    assert known["difference_ci"][0] < 0
    # the fit is of the whole library: the same with and without the second measurement
    fitted = [fit_scorer([*records, each]).weights for each in (betrayed, renamed(betrayed, unaided={}))]
    np.testing.assert_array_equal(*fitted)


def test_three_families_are_too_few_for_rates() -> None:
    with pytest.raises(ValueError, match="families a class"):
        error_table(zoo(2))


def test_records_survive_the_disk_and_other_protocols_give_no_verdict(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("mesaprobe.verdict.store.LINES", {"E6": None})
    records = zoo(4)
    for each in records:
        write_record(tmp_path, "quick", each)
    assert read_record(tmp_path / "quick" / f"{records[0].name}.json") == records[0]
    shipped = shipped_zoo("quick", "matrix", 8, folder=tmp_path)
    assert shipped.calibration is not None
    assert shipped.hash == zoo_hash(records)
    verdict, found = decide(record("subject", "subject", values_around(0.65, RNG)), "quick", shipped=shipped)
    assert (verdict.label, verdict.reason, verdict.leaning) == ("INCONCLUSIVE", "SMALL_ZOO", "search")
    assert verdict.zoo == {"hash": shipped.hash, "members": 16, "families": 8}
    assert len(found) == 7
    assert shipped_zoo("quick", "matrix", 10, folder=tmp_path).problem == "OUT_OF_ZOO"
    assert shipped_zoo("full", "matrix", 8, folder=tmp_path).problem == "NO_ZOO"
    monkeypatch.setattr("mesaprobe.verdict.store.line_hash", lambda *_: "another")
    assert shipped_zoo("quick", "matrix", 8, folder=tmp_path).problem == "OTHER_PROTOCOL"


def test_the_table_is_stored_and_read_only_for_its_own_records(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("mesaprobe.verdict.store.LINES", {"E6": None})
    records = zoo(4, members=1)
    for each in records:
        write_record(tmp_path, "quick", each)
    table = stored_table("quick", "matrix", 8, folder=tmp_path)
    assert "AUROC, leaving one family and its algorithms out: 1.000" in table_words(table)
    assert "| AUROC | 1.000 (1.000 to 1.000 over families) |" in table_markdown(table)
    assert read_table(shipped_zoo("quick", "matrix", 8, folder=tmp_path), tmp_path) == table
    write_record(tmp_path, "quick", renamed(records[0], degree=3))
    assert read_table(shipped_zoo("quick", "matrix", 8, folder=tmp_path), tmp_path) is None
    with pytest.raises(UserError, match="too few"):
        stored_table("quick", "euclidean", 8, folder=tmp_path)


def test_the_objective_is_an_axis_of_its_own() -> None:
    assert objective_axis(record("x", "subject", {"E5": 0.5}))["status"] == "represented"
    assert objective_axis(record("x", "subject", {"E5": 0.0}))["status"] == "not shown"
    assert objective_axis(record("x", "subject", {}))["status"] is None


def test_fits_is_what_the_calibration_uses() -> None:
    assert calibration_module.fits(zoo(1)[0])
    assert not calibration_module.fits(record("k", "decoy", {}))
