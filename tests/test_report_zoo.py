"""The verdict's sentence, the components beside the zoo and the comparison show the numbers they were given."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_analysis import stored_figures, stored_report, write_stored_analysis
from synthetic_zoo import record, renamed, values_around, zoo

from mesaprobe.analysis.zoo_picture import thresholds, zoo_picture
from mesaprobe.cli import main
from mesaprobe.errors import UserError
from mesaprobe.report import change, components, strips, verdict
from mesaprobe.report.compare import compare_rows, load_compared, render_comparison
from mesaprobe.report.reasons import REASONS, command_for
from mesaprobe.verdict.calibration import Calibration
from mesaprobe.verdict.error_table import error_table
from mesaprobe.verdict.rule import judge
from mesaprobe.verdict.store import Shipped, write_table, zoo_hash
from mesaprobe.verdict.vector import COMPONENTS, LARGER

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    records = (
        *zoo(11, search=0.5, heuristic=0.1),
        renamed(zoo(1)[0], name="masked", family="masked", disguise="rotation"),
    )
    return Shipped("quick", records, Calibration.fit(records))


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("&#x27;", "'")


# What an analysis stores


def test_picture_holds_fitted_members_and_the_subject(shipped: Shipped) -> None:
    subject = record("mine", "search", values_around(0.5, RNG) | {"E3": None})
    arrays = zoo_picture(subject, shipped)
    assert set(components.ARRAYS) == set(arrays)
    assert "masked" not in set(arrays["names"].tolist())
    assert arrays["is_search"].sum() == (~arrays["is_search"]).sum() == 22
    place = {name: index for index, name in enumerate(COMPONENTS)}
    assert np.isnan(arrays["value"][place["E3"]])
    assert not arrays["stands_out"][place["E3"]]
    figure = subject.lines["E1"]
    np.testing.assert_array_equal(
        [arrays[key][place["E1"]] for key in ("value", "low", "high")], [figure.value, figure.low, figure.high]
    )
    for name in LARGER:
        larger = max((subject.lines[line] for line in COMPONENTS[name]), key=lambda f: f.value or 0)
        assert arrays["low"][place[name]] == larger.low
    known = np.isfinite(arrays["value"])
    assert (arrays["low"] <= arrays["value"])[known].all()
    assert (arrays["value"] <= arrays["high"])[known].all()
    other = arrays["names"].tolist().index("search-3-1")
    member = next(r for r in shipped.records if r.name == "search-3-1")
    assert arrays["member_values"][other, place["E4"]] == member.lines["E4"].value
    assert shipped.calibration is not None
    assert arrays["score"] == shipped.calibration.score(subject)
    shares = arrays["weights"] @ arrays["vector"] + shipped.calibration.scorer.intercept
    assert shares == pytest.approx(float(arrays["score"]))


def test_thresholds_are_where_the_rule_turns(shipped: Shipped) -> None:
    calibration = shipped.calibration
    assert calibration is not None
    above, below = thresholds(calibration)
    for score in np.linspace(calibration.held_out.min() - 1, calibration.held_out.max() + 1, 61):
        assert (calibration.p_under(score, search=False).value <= 0.10) is bool(score > above)
        assert (calibration.p_under(score, search=True).value <= 0.10) is bool(score < below)


def test_no_score_is_enough_with_few_families() -> None:
    assert np.isnan(thresholds(Calibration.fit(zoo(4)))).all()


def test_uncalibrated_zoo_still_shows_the_subject() -> None:
    arrays = zoo_picture(record("mine", "search", values_around(0.5, RNG)), Shipped("quick", (), None, "NO_ZOO"))
    assert set(components.ARRAYS) == set(arrays)
    assert arrays["member_values"].shape == (0, len(COMPONENTS))
    assert np.isfinite(arrays["value"]).all()
    page = words(components.components_section(arrays))
    assert "No network of known mechanism stands behind the bars yet" in page
    assert "There is no score" in words(change.thresholds_section(arrays))


def test_stored_errors_are_those_of_the_table(
    shipped: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"zoo": zoo_hash(shipped.records), **error_table(shipped.records)}
    write_table("quick", table, tmp_path)
    monkeypatch.setattr("mesaprobe.verdict.store.records_folder", lambda: tmp_path)
    arrays = zoo_picture(record("mine", "search", values_around(0.5, RNG)), shipped)
    for index, name in enumerate(arrays["rate_names"].tolist()):
        assert arrays["rate_models"][index] == 22
        assert arrays["rate_wrong"][index] / 22 == pytest.approx(table[name])
        assert arrays["rate_models_bound"][index] == table["bounds"][name]["models"]


# What the page says


def with_verdict(**changes: Any) -> dict[str, Any]:
    report = stored_report()
    report["verdict"] |= {"zoo": {"hash": "ab12", "members": 40, "families": 20}, **changes}
    return report


def test_each_word_comes_with_its_own_error_rate() -> None:
    arrays = stored_figures()["zoo"]
    said = {
        "SEARCH": "Search-like with respect to zoo ab12: the rule calls 1 of 20 heuristics of other families search "
        "(at most 21.6% of models, 39.4% of families, 95% bounds).",
        "HEURISTIC": "Heuristic-like with respect to zoo ab12: the rule calls 2 of 20 searchers of other families "
        "heuristic (at most 28.3% of models, 50.7% of families, 95% bounds).",
    }
    for label, sentence in said.items():
        report = with_verdict(label=label, reason=None)
        assert verdict.opening_sentence(report, arrays) == sentence
        assert "Why no verdict" not in words(verdict.verdict_box(report, arrays))
    leaning = verdict.opening_sentence(with_verdict(reason="SMALL_ZOO", leaning="search"), arrays)
    assert "the rule leans to search for 3 of 20 heuristics of other families" in leaning
    assert leaning.startswith("No verdict; the evidence leans to search")


def test_an_error_rate_that_was_not_stored_is_not_invented() -> None:
    report = with_verdict(label="SEARCH", reason=None)
    bare = stored_figures()["zoo"] | {"rate_names": np.array([], dtype=np.str_)}
    for arrays in (None, bare):
        sentence = verdict.opening_sentence(report, arrays)
        assert "not stored with this zoo" in sentence
        assert "%" not in sentence


@pytest.mark.parametrize("reason", list(REASONS))
def test_without_a_verdict_the_box_says_what_why_and_which_command(reason: str) -> None:
    report = stored_report()
    report["verdict"]["reason"] = reason
    box = words(verdict.verdict_box(report, stored_figures()["zoo"]))
    assert "1 of 10 components of the evidence have a value; above their nulls at q = 0.05: E6." in box
    assert REASONS[reason].meaning in box
    command = command_for(report)
    assert command is not None
    assert command in box.replace("&amp;", "&")
    assert command.startswith("mesaprobe ")


@pytest.mark.parametrize("reason", list(REASONS))
def test_commands_are_ones_that_the_program_knows(reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Verbs, actions and options of the commands are parsed as far as --help of each verb tells."""
    for budget in ("quick", "full"):
        report = stored_report()
        report["verdict"]["reason"], report["protocol"]["budget"] = reason, budget
        command = command_for(report)
        assert command is not None
        for part in command.split(" && "):
            program, verb, *rest = part.split()
            assert program == "mesaprobe"
            with pytest.raises(SystemExit) as ended:
                main([verb, "--help"])
            assert ended.value.code == 0
            known = capsys.readouterr().out
            assert all(word in known for word in rest if word.startswith("--"))
            assert verb != "zoo" or rest[0] in known


def test_nearest_threshold_comes_first() -> None:
    arrays = stored_figures()["zoo"]
    rows = words(change.thresholds_section(arrays))
    assert "SEARCH p under “heuristic” at most 0.1 above 1.25 0.75 below it" in rows
    assert "HEURISTIC p under “search” at most 0.1 below \N{MINUS SIGN}0.75 1.25 above it" in rows
    assert rows.index("SEARCH p under") < rows.index("HEURISTIC p under")
    swapped = words(change.thresholds_section(arrays | {"score": np.array(-0.7)}))
    assert swapped.index("HEURISTIC p under") < swapped.index("SEARCH p under")
    assert "reached" in words(change.thresholds_section(arrays | {"score": np.array(1.3)}))


def test_bars_and_marks_stand_where_their_values_are() -> None:
    lanes = [
        strips.Lane("search", [strips.Mark(1.0, "a"), strips.Mark(float("nan"), "unknown")], "circle"),
        strips.Lane("subject", [strips.Mark(-0.5, "b", -1.0, 0.25)], "bar"),
    ]
    drawn = strips.strip(lanes, label="all")
    assert 'cx="97.00%"' in drawn  # the largest value, 3% from the right edge
    assert "unknown" not in drawn
    bar = re.search(r'<rect x="([\d.]+)%" y="[\d.]+" width="([\d.]+)%"', drawn)
    assert bar is not None
    assert [float(part) for part in bar.groups()] == pytest.approx([26.5, 23.5])  # from -0.5 to 0 on -1 to 1
    assert '<line x1="3.00%"' in drawn.split("whisker")[0]


def test_every_component_is_drawn_with_its_zoo() -> None:
    arrays = stored_figures()["zoo"]
    page = components.components_section(arrays)
    assert page.count('class="strip-row"') == len(COMPONENTS)
    rows = page.split('class="strip-row"')[1:]
    for row in rows:
        assert row.split("strip-value")[0].count("<circle") == 20
    assert "no value" in words(rows[0])
    assert "0.0421 above its nulls" in words(rows[5])


def test_judgement_and_picture_agree_on_the_side(shipped: Shipped) -> None:
    """A network whose score is above the threshold has a small p under heuristic in the rule, too."""
    for level in (0.0, 0.3, 0.6):
        subject = record("mine", "search", values_around(level, RNG))
        arrays, found = zoo_picture(subject, shipped), judge(subject, shipped.calibration)
        assert found.p_heuristic is not None
        assert (found.p_heuristic <= 0.10) is bool(arrays["score"] > arrays["search_above"])


# Side by side


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    other, figures = stored_report("other"), stored_figures()
    other["behaviour"]["gap_mean"] = 0.31
    other["verdict"] |= {"label": "HEURISTIC", "reason": None}
    other["lines"] = []
    figures["zoo"]["value"] = figures["zoo"]["value"] * np.nan
    return [
        write_stored_analysis(tmp_path / "one"),
        write_stored_analysis(tmp_path / "two", report=other, figures=figures),
    ]


def test_comparison_shows_both_and_says_what_differs(pair: list[Path], tmp_path: Path) -> None:
    page = words(render_comparison(load_compared(pair), tmp_path / "c.html").read_text(encoding="utf-8"))
    assert "Same problem, protocol, zoo and seed" in page
    for part in ("matrix6-optimal", "other", "0.73%", "31.0%", "INCONCLUSIVE", "HEURISTIC", "not measured"):
        assert part in page
    assert "0.0421 (0.0312 to 0.0533), p = 0.004" in page
    report = json.loads((pair[1] / "report.json").read_text())
    report["subject"]["problem"]["n"], report["protocol"]["hash"] = 9, "another"
    (pair[1] / "report.json").write_text(json.dumps(report))
    page = words(render_comparison(load_compared(pair), tmp_path / "c.html").read_text(encoding="utf-8"))
    assert "They solve different problems: matrix6-optimal: matrix, n = 6; other: matrix, n = 9." in page
    assert "They were measured under different protocols" in page


def test_comparison_rows_are_plain_and_null_where_unknown(pair: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", *map(str, pair), "--json"])
    one, other = map(json.loads, capsys.readouterr().out.splitlines())
    assert one["components"]["E6"] == {"value": 0.0421, "low": 0.0312, "high": 0.0533, "p": 0.004, "stands_out": True}
    assert one["components"]["E1"] is None
    assert other["components"] == dict.fromkeys(COMPONENTS)
    assert (other["label"], other["gap_mean"], other["lines"]) == ("HEURISTIC", 0.31, {})
    assert list(one) == list(other) == list(compare_rows(load_compared(pair))[0])


def test_comparison_errors_are_one_sentence(pair: list[Path], tmp_path: Path) -> None:
    for folders, told in (
        (pair[:1], "2 to 8 analyses"),
        ([pair[0], pair[0]], "named twice"),
        ([pair[0], tmp_path / "nowhere"], "holds no finished analysis"),
    ):
        with pytest.raises(UserError, match=told):
            load_compared(folders)
    assert len(load_compared([*pair, write_stored_analysis(tmp_path / "three")])) == 3


def test_networks_of_the_same_name_are_told_apart(pair: list[Path], tmp_path: Path) -> None:
    found = load_compared([pair[0], write_stored_analysis(tmp_path / "copy")])
    assert len({one.name for one in found}) == 2
