"""The page of a stored analysis: complete, self-contained, escaped, and showing the numbers that it was given."""

import base64
import doctest
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from stored_analysis import CITIES, HEADS, LAYERS, METHODS, PREFIX, stored_figures, stored_report, write_stored_analysis

from mesaprobe.errors import UserError
from mesaprobe.report import (
    attention,
    behaviour,
    drawing,
    instances,
    markup,
    patching,
    render,
    training,
    wording,
)
from mesaprobe.report.controls import SCRIPT
from mesaprobe.report.reasons import REASONS
from mesaprobe.report.sections import SECTIONS
from mesaprobe.verdict.vector import COMPONENTS

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;"
VOID = {"meta", "input", "br", "hr", "link", "img"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes, text directly inside), in order; raises on wrong nesting."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(source)
        assert not self._open, f"left open: {[tag for tag, *_ in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        entry = (tag, dict(attrs), [])
        self.elements.append(entry)
        if tag not in VOID:
            self._open.append(entry)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, "".join(text)) for name, attrs, text in self.elements if name == tag]

    @property
    def words(self) -> str:
        """Everything that a reader reads."""
        return " ".join("".join(text) for tag, _, text in self.elements if tag not in ("script", "style"))

    def figures(self) -> dict[str, dict[str, Any]]:
        return {a["data-plot"]: json.loads(text) for a, text in self.all("script") if a.get("data-plot")}


def array(value: Any) -> np.ndarray:
    """An array as plotly writes it into JSON."""
    if isinstance(value, dict):
        flat = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        shape = [int(n) for n in str(value["shape"]).split(",")] if "shape" in value else [-1]
        return flat.reshape(shape)
    return np.array(value, dtype=float)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(write_stored_analysis(tmp_path_factory.mktemp("stored"))).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def rendered(folder: Path, **changes: Any) -> Page:
    return Page(render(write_stored_analysis(folder, **changes)).read_text(encoding="utf-8"))


# The page as a whole


def test_page_needs_no_network(page: Page, source: str) -> None:
    for tag in ("img", "iframe", "object", "embed", "video", "audio", "source"):
        assert not page.all(tag)
    assert not [attrs for attrs, _ in page.all("script") if "src" in attrs]
    assert [attrs["href"] for attrs, _ in page.all("link")] == ["data:,"]
    assert all(attrs["href"].startswith(("#", "data:")) for attrs, _ in page.all("a"))
    style = "".join(text for _, text in page.all("style"))
    assert "url(" not in style
    assert "@import" not in style
    own = source.replace(get_plotlyjs(), "").replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", own)


def test_plotly_is_inlined_once_and_may_not_send_data_away(source: str) -> None:
    assert source.count(get_plotlyjs()) == 1
    assert source.count("plotly.js v") == 1
    assert "showSendToCloud: false" in SCRIPT
    assert len(source) < 12e6


def test_page_is_accessible(page: Page) -> None:
    ids = [attrs["id"] for _, attrs, _ in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    places = {attrs["href"][1:] for attrs, _ in page.all("a") if attrs["href"].startswith("#")}
    assert places == {"verdict", "downloads", *(section.id for section in SECTIONS)}
    assert places <= set(ids)
    plots = [attrs for attrs, _ in page.all("div") if attrs.get("class") == "plot"]
    assert len(plots) == len(page.figures())
    assert len(page.all("figcaption")) == len(page.all("figure"))
    strips = [attrs for attrs, _ in page.all("svg") if attrs.get("class") == "strip" and "aria-hidden" not in attrs]
    assert len(strips) == len(COMPONENTS) + 1
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in [*plots, *strips])
    assert len(page.all("caption")) == len(page.all("table"))
    assert len(page.all("h1")) == 1
    assert page.all("html")[0][0]["lang"] == "en-GB"


def test_verdict_comes_first_and_is_explained(page: Page) -> None:
    headings = [text for _, text in page.all("h2")]
    assert headings == ["Verdict", *(section.title for section in SECTIONS), "Download the results"]
    assert REASONS["NO_ZOO"].meaning in page.words
    assert REASONS["NO_ZOO"].missing in page.words
    assert "never “is a mesa-optimizer”" in page.words
    assert "Gate G4 failed:" in page.words
    assert "Gate G2 not known:" in page.words


def test_every_reason_code_of_the_schema_is_explained() -> None:
    schema = json.loads(files("mesaprobe.analysis").joinpath("report.schema.json").read_text(encoding="utf-8"))
    codes = schema["properties"]["verdict"]["properties"]["reason"]["enum"]
    assert set(REASONS) == set(codes) - {None}


def test_numbers_of_the_report_stand_in_the_page(page: Page) -> None:
    tiles = [text for attrs, text in page.all("span") if attrs.get("class") == "value"]
    assert tiles == ["0.73%", "86.2%", "99.9%", "96.1%", "81.2%"]
    cells = [text for tag in ("td", "th") for _, text in page.all(tag)]
    for words in ("22.3%", "0.0421", "0.0312 to 0.0533", "0.004", "1 min 4 s", "102.1%"):
        assert words in cells
    assert "random twin: 0.0117" in [text for _, text in page.all("li")]


def test_every_trace_that_has_a_key_is_shown_as_its_inputs_say_at_first(page: Page) -> None:
    """The drawing before the script has run agrees with the inputs as they stand then."""
    chosen: dict[str, set[str]] = {}
    first_option = None
    for tag, attrs, _ in page.elements:
        if tag == "select":
            first_option = attrs.get("data-key")
        elif tag == "option" and first_option is not None:
            chosen[first_option], first_option = {str(attrs["value"])}, None
        elif tag == "input" and "checked" in attrs:
            chosen.setdefault(str(attrs["data-key"]), set()).add(str(attrs["value"]))
    assert chosen == {"instance": {"0"}, "method": {"model", "optimal"}, "layer": {"0"}, "head": {"0"}}
    keyed = [trace for figure in page.figures().values() for trace in figure["data"] if "meta" in trace]
    assert len(keyed) == 3 * (len(METHODS) * 2 + 2) + LAYERS * HEADS * (3 + 1)
    for trace in keyed:
        wanted = all(value in chosen[key] for key, value in trace["meta"].items())
        assert trace.get("visible", True) is wanted


# What can go wrong in the data


def test_hostile_words_stay_words(tmp_path: Path, page: Page) -> None:
    report, figures = stored_report(HOSTILE), stored_figures()
    report["lines"][0]["details"] = {HOSTILE: HOSTILE}
    report["gates"][0]["why"] = report["subject"]["teacher"] = HOSTILE
    figures["E6"]["hooks"] = np.array([HOSTILE] * len(figures["E6"]["hooks"]))
    figures["E6"]["kinds"] = np.array([HOSTILE] * len(figures["E6"]["hooks"]))
    figures["patching"]["locations"] = np.array([HOSTILE] * len(figures["patching"]["locations"]))
    hostile = rendered(tmp_path / "a", report=report, figures=figures)
    assert [text for _, text in hostile.all("h1")] == [HOSTILE]
    assert hostile.all("title")[0][1].startswith(HOSTILE)
    assert len(hostile.all("script")) == len(page.all("script"))
    assert not hostile.all("img")
    for figure in hostile.figures().values():  # plotly draws a subset of HTML, links among it
        assert "<img" not in json.dumps(figure)
        assert "<script" not in json.dumps(figure)


@pytest.mark.parametrize("stem", list(stored_figures()))
def test_missing_figure_leaves_one_sentence(tmp_path: Path, page: Page, stem: str) -> None:
    left = {name: arrays for name, arrays in stored_figures().items() if name != stem}
    without = rendered(tmp_path / "a", figures=left)
    told = [text for _, text in without.all("code") if text.startswith("figures/")]
    wanted = [section.figures for section in SECTIONS if section.figures and section.figures.stem == stem]
    measured = [figures for figures in wanted if figures.line in (None, "E6")]  # others say that they were not
    assert told == [f"figures/{stem}.npz"] * len(measured)
    assert len(without.all("figure")) + len(without.all("svg")) < len(page.all("figure")) + len(page.all("svg"))


def test_page_without_figures_still_holds_verdict_and_numbers(tmp_path: Path) -> None:
    report = stored_report()
    report["lines"][0] |= {"status": "na", "reason": "no hook points", "value": None, "ci": None, "p": None, "null": {}}
    bare = rendered(tmp_path / "a", report=report, figures={})
    wanted = [section.figures for section in SECTIONS if section.figures]
    assert bare.words.count("Not drawn") == sum(figures.line in (None, "E6") for figures in wanted)
    absent = {figures.line for figures in wanted} - {None, "E6"}
    assert all(f"Line {line} was not measured in this analysis." in bare.words for line in absent)
    assert ": no hook points." in bare.words
    assert "INCONCLUSIVE" in bare.words
    assert "0.73%" in bare.words


def test_null_is_not_known_and_never_a_number(tmp_path: Path) -> None:
    report = stored_report()
    for part in (report["subject"], report["behaviour"], report["verdict"], report["lines"][0]):
        counts = {"instances", "decision_states", "discordant_states"}
        keep = {"name", "problem", "label", "id", "status", "details", *counts}
        part |= {key: None for key in part if key not in keep and not isinstance(part[key], dict)}
    for reference in report["behaviour"]["references"].values():
        reference |= {"gap_mean": None, "optimal_fraction": None}
    report["lines"][0] |= {"name": "plans", "null": {"random twin 0": None}}
    empty = rendered(tmp_path / "a", report=report)
    tiles = [text for attrs, text in empty.all("span") if (attrs.get("class") or "").startswith("value")]
    assert tiles == [wording.NOT_KNOWN] * 5
    assert "95% interval not known" in empty.words
    assert "random twin: not known" in empty.words
    assert not re.search(r"\b(None|nan|NaN)\b", empty.words)


def test_broken_figure_file_is_named_and_the_old_page_stays(tmp_path: Path) -> None:
    folder = write_stored_analysis(tmp_path / "a")
    before = render(folder).read_bytes()
    np.savez(folder / "figures" / "gaps.npz", methods=np.array(["model"]))
    with pytest.raises(UserError, match=r"figures/gaps\.npz lacks gaps"):
        render(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".*.partial"))


def test_rendering_twice_gives_the_same_page(tmp_path: Path, source: str) -> None:
    assert render(write_stored_analysis(tmp_path / "a")).read_text(encoding="utf-8") == source


# The figures show the numbers that they were given


def test_gap_distribution_is_the_empirical_one() -> None:
    arrays = {
        "methods": np.array(["model", "random_legal"]),
        "gaps": np.array([[0.0, 0.0, 0.1, 0.2], [0.5, 0.5, 1.0, 2.0]]),
    }
    model, floor = behaviour.gaps_figure(arrays).data
    edge = behaviour.SMALLEST_GAP
    np.testing.assert_allclose(model.x, [edge, 0.1, 0.2, 2.0])
    np.testing.assert_allclose(model.y, [0.5, 0.75, 1.0, 1.0])
    np.testing.assert_allclose(floor.x, [edge, 0.5, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(floor.y, [0.0, 0.5, 0.75, 1.0, 1.0])
    assert (model.name, floor.name) == ("model", "random legal tours")


def test_dstar_figure_shows_accuracy_interval_and_states() -> None:
    arrays = stored_figures()["dstar"]
    figure = behaviour.dstar_figure(arrays)
    assert list(figure.layout.xaxis.categoryarray) == ["0<br>4,120", "1<br>1,211", "2<br>230", "3+<br>0"]
    for row, trace in enumerate(figure.data):
        np.testing.assert_array_equal(trace.y, arrays["accuracy"][row])
        np.testing.assert_allclose(trace.y + trace.error_y.array, arrays["high"][row])
        np.testing.assert_allclose(trace.y - trace.error_y.arrayminus, arrays["low"][row])


def test_training_curves_leave_out_rows_without_evaluation() -> None:
    arrays = stored_figures()["training"]
    (gap,) = training.gap_figure(arrays).data
    np.testing.assert_array_equal(gap.x, arrays["instances_seen"][::2])
    np.testing.assert_array_equal(gap.y, arrays["gap_mean"][::2])
    (loss,) = training.loss_figure(arrays).data
    np.testing.assert_array_equal(loss.y, arrays["loss"])
    assert [trace.y[-1] for trace in training.shares_figure(arrays).data] == [
        arrays[key][-2] for key in ("optimal_fraction", "legal_fraction", "teacher_agreement")
    ]


def test_axis_is_logarithmic_only_where_values_span_a_factor_of_five() -> None:
    assert training.value_axis(np.array([0.02, np.nan, 0.9]), "~g")["type"] == "log"
    assert "type" not in training.value_axis(np.array([0.2, 0.9]), "~g")
    assert "type" not in training.value_axis(np.array([0.0, 0.9]), "~g")


def test_instances_show_cities_tours_and_weights() -> None:
    arrays = stored_figures()["instances"]
    figure = instances.instances_figure(arrays)
    weights, tour = arrays["weights"][1], arrays["tours"][0, 1]
    own = [trace for trace in figure.data if trace.meta == {"instance": "1", "method": "model"}]
    line, marks = own
    points = drawing.to_unit_square(arrays["layout"][1])
    path = np.stack([line.x, line.y], axis=1).reshape(CITIES, 3, 2)
    np.testing.assert_allclose(path[:, 0], points[tour])
    np.testing.assert_allclose(path[:, 1], points[np.roll(tour, -1)])
    for (u, v), words in zip(drawing.tour_edges(tour), marks.hovertext, strict=True):
        assert f"edge {u}-{v}: weight {weights[u, v]} " in words
        assert "model" in words
    (cities,) = [trace for trace in figure.data if trace.meta == {"instance": "1"}]
    assert list(cities.text) == [str(city) for city in range(CITIES)]
    shown = [trace.meta["method"] for trace in figure.data if trace.visible and "method" in trace.meta]
    assert set(shown) == {"model", "optimal"}


def test_every_edge_is_on_a_tour_or_among_the_others() -> None:
    arrays = stored_figures()["instances"]
    figure = instances.instances_figure(arrays)
    named = {
        tuple(sorted(map(int, found.groups())))
        for trace in figure.data
        if trace.meta["instance"] == "0"
        for words in (trace.hovertext if trace.hovertext is not None else ())
        if (found := re.match(r"edge (\d+)-(\d+)", words))
    }
    assert named == {(u, v) for u in range(CITIES) for v in range(u + 1, CITIES)}


def test_instance_tables_hold_costs_gaps_and_tours(page: Page) -> None:
    arrays = stored_figures()["instances"]
    cells = [text for _, text in page.all("td")]
    for index in range(len(arrays["weights"])):
        model, optimal = arrays["costs"][:2, index]
        at = cells.index("\N{NO-BREAK SPACE}".join(map(str, arrays["tours"][0, index])))
        assert cells[at - 2 : at] == [str(model), wording.percent(float(model / optimal - 1))]


def test_layout_is_said_to_be_approximate_only_where_it_is(tmp_path: Path, page: Page) -> None:
    assert "distances in the drawing are only approximate" in page.words
    assert "(normalised stress 0.22; 0 would be exact)" in page.words
    figures = stored_figures()
    for stem in ("instances", "attention", "patching"):
        figures[stem]["layout_kind"] = np.array("coordinates")
    plane = rendered(tmp_path / "a", figures=figures)
    assert "approximate" not in plane.words
    assert "Cities stand at their coordinates." in plane.words


def test_attention_wedges_are_as_wide_as_their_weights() -> None:
    arrays = stored_figures()["attention"]
    figure = attention.drawing_figure(arrays)
    source, row = PREFIX[-1], arrays["decode_positions"][-1]
    for layer in range(LAYERS):
        for head in range(HEADS):
            to_instance, to_tour, cities = (
                t for t in figure.data if t.meta == {"layer": str(layer), "head": str(head)}
            )
            pattern = arrays["patterns"][layer, head, row].astype(float)
            shape = np.stack([to_instance.x, to_instance.y], axis=1).reshape(-1, 5, 2)
            widths = np.hypot(*(shape[:, 1] - shape[:, 2]).T)
            others = [city for city in range(CITIES) if city != source and pattern[city] > 0]
            np.testing.assert_allclose(widths / widths.sum(), pattern[others] / pattern[others].sum(), rtol=1e-6)
            assert len(to_tour.x) == 5 * (len(PREFIX) - 1)
            assert f"city 4: {wording.percent(float(pattern[4]))} to its instance token" in cities.hovertext[4]
            assert cities.visible is (layer == head == 0)


def test_attention_maps_show_every_pattern_with_token_labels() -> None:
    arrays = stored_figures()["attention"]
    for figure in (attention.head_figure(arrays), attention.grid_figure(arrays)):
        assert len(figure.data) == LAYERS * HEADS
        for index, trace in enumerate(figure.data):
            np.testing.assert_array_equal(trace.z, arrays["patterns"][index // HEADS, index % HEADS].astype(np.float32))
    names = attention.token_names(arrays)
    assert names[:CITIES] == [f"city {city}" for city in range(CITIES)]
    assert names[CITIES:] == ["step 1 (0)", "step 2 (3)", "step 3 (1)"]


def test_many_heads_are_chosen_one_by_one(tmp_path: Path) -> None:
    """Compiled networks have dozens of heads a layer, more than a figure has room for."""
    figures = stored_figures()
    patterns = figures["attention"]["patterns"]
    figures["attention"]["patterns"] = np.tile(patterns, (1, 20, 1, 1))
    crowded = rendered(tmp_path / "a", figures=figures)
    assert "too many for one figure" in crowded.words
    assert len(crowded.figures()["plot-attention-head"]["data"]) == LAYERS * 20 * HEADS


def test_patching_maps_share_one_colour_scale(page: Page) -> None:
    arrays, figures = stored_figures()["patching"], page.figures()
    for name, key in (
        ("patching", "effects"),
        *((f"patching-{key}", key) for key in ("identity", "irrelevant", "random")),
    ):
        (trace,) = figures[f"plot-{name}"]["data"]
        np.testing.assert_array_equal(array(trace["z"]), arrays[key])
        assert (trace["zmin"], trace["zmax"]) == (-1.0, 1.0)
        assert trace["x"] == arrays["locations"].tolist()
        assert trace["y"] == ["into layer 0", "into layer 1", "out of layer 1"]
    arrays["random"][0, 0] = -1.7
    assert patching.colour_limit(arrays) == 1.7


def test_patching_pair_is_named_in_words() -> None:
    arrays = stored_figures()["patching"]
    change, choices, logits = patching.pair_words(arrays)
    before, after = arrays["clean_weights"][2, 4], arrays["corrupt_weights"][2, 4]
    assert f"the weight between cities 2 and 4 is {before} on the clean instance and {after} on the changed" in change
    assert "It is no weight of the current city" in change
    assert "to city 2 on the clean instance and to city 5 on the changed" in choices
    assert "\N{MINUS SIGN}4.21 on the clean and 3.07 on the changed instance" in logits
    assert "It is a weight of the current city" in patching.pair_words(arrays | {"prefix": np.array([0, 2])})[0]
    names = [trace.name for trace in patching.pair_figure(arrays).data if trace.name]
    assert names == [f"changed weight: {before} → {after}", "prefix", "clean choice: 2", "changed choice: 5"]


def test_moved_city_is_named_as_such() -> None:
    arrays = stored_figures()["patching"] | {"changed": np.array([3, 3])}
    assert "city 3 stands elsewhere" in patching.pair_words(arrays)[0]
    assert not any("changed weight" in (trace.name or "") for trace in patching.pair_figure(arrays).data)


# Parts


def test_unit_square_keeps_proportions() -> None:
    points = np.array([[10.0, -5.0], [30.0, 5.0], [20.0, 0.0]])
    np.testing.assert_allclose(drawing.to_unit_square(points), [[0.0, 0.25], [1.0, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(drawing.to_unit_square(np.ones((3, 2))), 0.5)


def test_asymmetric_edges_name_both_weights() -> None:
    weights = np.array([[0, 3], [7, 0]], dtype=np.int32)
    assert drawing.edge_words(weights, 0, 1) == "edge 0→1: weight 3, back 7"


@pytest.mark.parametrize("module", [wording, markup])
def test_examples(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0
