"""Figures in the README are those that the commands in it wrote."""

import json
import re
from pathlib import Path

from mesaprobe.bench import BENCHES, markdown
from mesaprobe.files import read_json
from mesaprobe.verdict.store import table_path
from mesaprobe.verdict.table import table_markdown

ROOT = Path(__file__).parents[1]


def test_the_table_of_networks_repeats_their_metrics() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| [a-z ]+ \| ([\d.]+%) \| ([\d.]+%) \| ([\d.]+%) \|$", text, re.MULTILINE)
    shipped = {path.parent.name for path in (ROOT / "trained_models").glob("*/metrics.json")}
    assert {row[0] for row in rows} == {name for name in shipped if not name.startswith("demo")}
    for name, gap, optimal, agreement in rows:
        natural = json.loads((ROOT / "trained_models" / name / "metrics.json").read_text())["natural"]
        assert gap == f"{natural['gap_mean']:.2%}"
        assert optimal == f"{natural['optimal_fraction']:.1%}"
        assert agreement == f"{natural['teacher_agreement']:.2%}"


def test_the_picture_is_there() -> None:
    assert (ROOT / "analyses" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_error_table_is_the_one_that_ships() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- error table -->\n")[1].split("\n<!-- end of error table -->")[0]
    assert shown == table_markdown(read_json(table_path("quick")))


def test_the_bench_table_has_every_row_and_says_what_was_not_met() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- bench table -->\n")[1].split("\n<!-- end of bench table -->")[0].splitlines()
    assert shown[:2] == markdown([]).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in shown[2:]]
    assert [row[0].strip("` ") for row in cells] == list(BENCHES)
    for row in cells:
        goal, _, word = row[4].partition(", ")
        if goal != "-":
            reached = float(row[3].replace(",", "")) >= float(goal.replace(",", "")) * 0.995  # three digits are shown
            assert word == ("met" if reached else "**not met**")
