"""The pages in a real browser: nothing complains, nothing is fetched, every figure is there, the explorer answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find_chromium
from stored_analysis import CITIES, HEADS, LAYERS, stored_figures, stored_report, write_stored_analysis

from mesaprobe.report import render
from mesaprobe.report.compare import load_compared, render_comparison

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no browser: install Debian's chromium, or name a program in $CHROMIUM"
)

WIDE, NARROW = (1400, 900), (390, 844)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(write_stored_analysis(tmp_path_factory.mktemp("stored")))


def words(browser: Browser) -> str:
    return str(browser.value("document.querySelector('.state-words').textContent"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_page_is_whole_at_every_size_and_scheme(
    browser: Browser, page: Path, size: tuple[int, int], dark: bool
) -> None:
    browser.events.clear()
    browser.window(*size, dark=dark)
    browser.open(page)
    assert browser.complaints() == []
    assert browser.requests() == []
    plots = browser.value("document.querySelectorAll('script[data-plot]').length")
    drawn = browser.value(
        "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('.main-svg').getBoundingClientRect()"
        ".height > 40 && p.querySelector('.trace, .hm, .scatterlayer path, .heatmaplayer image')).length"
    )
    assert drawn == plots > 10
    assert browser.value("[...document.querySelectorAll('svg.strip')].every(s => s.getBoundingClientRect().width > 0)")
    wide = browser.value("document.documentElement.scrollWidth")
    assert wide <= size[0], "the page itself never scrolls sideways"
    assert browser.value("document.querySelector('nav details').open") is (size == WIDE)
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")


def test_words_in_the_page_have_contrast(browser: Browser, page: Path) -> None:
    """WCAG AA, 4.5 to 1, for all text outside figures, in both schemes."""
    script = """
    (() => {
      const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
      const rgb = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
      const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (rgb(c)[3] === 255) return rgb(c); } return [255, 255, 255]; };
      const bad = new Set();
      for (const e of document.querySelectorAll("main p, main td, main th, main li, main dt, main dd, main a, nav a"
          + ", h1, h2, h3, summary, figcaption, .label, .strip-name, .strip-value, .kicker, .question")) {
        if (!e.textContent.trim() || !e.getClientRects().length) continue;
        const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
        if ((a + .05) / (b + .05) < 4.5) bad.add(`${e.tagName}.${e.className}: ${e.textContent.slice(0, 30)}`);
      }
      return [...bad];
    })()
    """
    for dark in (False, True):
        browser.window(*WIDE, dark=dark)
        browser.open(page)
        assert browser.value(script) == []


def test_explorer_answers_the_mouse(browser: Browser, page: Path) -> None:
    arrays = stored_figures()["explorer"]
    browser.window(*WIDE)
    browser.open(page)
    tour = arrays["tours"][0].tolist()
    assert f"Instance 1, step 2: the tour so far is 0 → {tour[1]}. The network goes to city {tour[2]}" in words(browser)
    browser.click("[data-part=on]")
    assert f"step 3: the tour so far is 0 → {tour[1]} → {tour[2]}." in words(browser)
    rows = browser.value(
        "[...document.querySelectorAll('[data-part=candidates] tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    values = arrays["values"][0, 2]
    free = sorted((city for city in range(CITIES) if values[city] < float("inf")), key=lambda c: (values[c], c))
    assert [int(row[1]) for row in rows] == free
    assert [float(row[3]) for row in rows] == [values[city] for city in free]
    assert [float(row[4]) for row in rows] == [values[city] - values.min() for city in free]
    assert [int(row[2]) for row in rows] == [arrays["weights"][0][tour[2], city] for city in free]
    before = browser.value("document.querySelector('.state-drawing svg').getAttribute('aria-label')")
    others = [city for city in free if city != tour[3]]
    now = int(browser.value("document.querySelector('[data-part=candidates] input:checked').value"))
    other = next(city for city in others if city != now)
    browser.click(f"[data-part=candidates] input[value='{other}']")
    after = browser.value("document.querySelector('.state-drawing svg').getAttribute('aria-label')")
    assert after != before
    way = arrays["completions"][0, 2, other].tolist()
    assert f"through city {other}: {', '.join(map(str, [*way[2:], 0]))}" in after
    browser.click(f".state-drawing g.free:nth-of-type({now + 1}) circle.disc")
    assert browser.value("document.querySelector('.state-drawing svg').getAttribute('aria-label')") == before
    assert browser.complaints() == []


def test_explorer_answers_the_keyboard(browser: Browser, page: Path) -> None:
    browser.window(*WIDE)
    browser.open(page)
    browser.value("document.querySelector('[data-part=instance]').focus()")
    browser.press("ArrowDown", 40)
    assert words(browser).startswith("Instance 2")
    browser.value("document.querySelector('[data-part=on]').focus()")
    browser.press("Enter", 13, "\r")
    assert words(browser).startswith("Instance 2, step 3")
    browser.value("document.querySelector('[data-part=candidates] input:checked').focus()")
    checked = browser.value("document.querySelector('[data-part=candidates] input:checked').value")
    browser.press("ArrowDown", 40)
    assert browser.value("document.querySelector('[data-part=candidates] input:checked').value") != checked
    focused = browser.value("document.activeElement.value")
    assert focused == browser.value("document.querySelector('[data-part=candidates] input:checked').value")


def test_lens_and_attention_tables_hold_the_stored_shares(browser: Browser, page: Path) -> None:
    arrays = stored_figures()["explorer"]
    browser.window(*WIDE)
    browser.open(page)
    cells = "[...document.querySelectorAll('[data-part=%s] tr')].map(r => [...r.cells].map(c => c.textContent))"
    lens = browser.value(cells % "lens")
    assert len(lens) == LAYERS + 1
    for row, shares in zip(lens, arrays["lens"][:, 0, 1], strict=True):
        for word, share in zip(row[1:], shares.astype(float), strict=True):
            assert abs(float(word.rstrip("%")) / 100 - share) <= 0.0056  # rounded to thousandths, then to whole percent
    attention = browser.value(cells % "attention")
    assert len(attention) == LAYERS * HEADS
    assert attention[-1][0] == f"layer {LAYERS - 1}, head {HEADS - 1}"
    halos = "document.querySelectorAll('.state-drawing .halo').length"
    assert browser.value(halos) == 0
    browser.value(
        "(() => { const s = document.querySelector('[data-part=attention-of]'); s.value = '1.0';"
        " s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    assert browser.value(halos) == CITIES


def test_menus_of_other_sections_switch_their_figures(browser: Browser, page: Path) -> None:
    browser.window(*WIDE)
    browser.open(page)
    shown = "document.querySelector('#plot-instances').data.filter(t => t.visible && t.meta.instance === '1').length"
    assert browser.value(shown) == 0
    browser.value(
        "(() => { const s = document.querySelector('#instances [data-key=instance]'); s.value = '1';"
        " s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    browser.wait_for(f"{shown} > 0")


def test_downloads_hold_the_stored_files(browser: Browser, page: Path) -> None:
    browser.open(page)
    text = browser.value("fetch(document.querySelector('a[download$=\"evidence.csv\"]').href).then(r => r.text())")
    assert text.splitlines()[0].startswith("line,quantity")
    assert "0.0421" in text
    report = browser.value("fetch(document.querySelector('a[download$=\"report.json\"]').href).then(r => r.json())")
    assert report["subject"]["name"] == "matrix6-optimal"
    size = browser.value(
        "fetch(document.querySelector('a[download$=\"evidence.parquet\"]').href).then(r => r.arrayBuffer())"
        ".then(b => b.byteLength)"
    )
    assert size == (page.parent / "evidence.parquet").stat().st_size


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_comparison_is_whole(browser: Browser, tmp_path: Path, size: tuple[int, int]) -> None:
    folders = [write_stored_analysis(tmp_path / name, report=stored_report(name)) for name in ("one", "two", "three")]
    browser.events.clear()
    browser.window(*size)
    browser.open(render_comparison(load_compared(folders), tmp_path / "compare.html"))
    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.value("document.documentElement.scrollWidth") <= size[0]
    assert browser.value("document.querySelectorAll('.strip-row svg.strip .mark.subject2').length") == 1
