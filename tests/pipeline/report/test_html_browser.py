"""`report.html` in a real Chromium: looked at, listened to, and used by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, DRIVER, REQUIRED, Browser, chromium
from rich_report import rich_report
from sample_reports import CASES, report_of

from vitcompress.core.artifact_records import GatesRecord
from vitcompress.pipeline.report.html.page import render

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not REQUIRED,
    reason="Chromium and chromedriver are not installed (`make browser` does that, as root)",
)
WIDTHS, THEMES = (400, 1400), ("light", "dark")

# For every element with text of its own: how its colour stands out from the first background behind it (WCAG 2.1).
CONTRAST = """
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = (rgb) => {
  const [r, g, b] = rgb.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  for (let one = node; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!own || !node.getClientRects().length || node.closest("script, title")) continue;
  const style = getComputedStyle(node);
  const colour = parse(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const [a, b] = [light(colour), light(behind(node))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), node.tagName + "." + node.getAttribute("class") + ": " + node.textContent]);
}
return found;
"""
# Elements that stick out of the window and do not scroll in a box of their own.
SIDEWAYS = """
return [...document.querySelectorAll("body *")]
  .filter((node) => !node.closest(".scroll, pre, .skip, .colon, svg") && node.getClientRects().length)
  .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
  .map((node) => node.outerHTML.slice(0, 100));
"""
# Of every figure: its drawings and pictures that are visible, with their size.
FIGURES = """
return [...document.querySelectorAll("figure")].map((figure) =>
  [...figure.querySelectorAll(":scope > svg, :scope > img")].map((one) => one.getBoundingClientRect())
    .filter((box) => box.width && box.height).map((box) => [box.width, box.height]));
"""
# Texts of drawings that are cut off at the drawing's edge.
CUT = """
const found = [];
for (const svg of document.querySelectorAll("svg")) {
  const frame = svg.getBoundingClientRect();
  for (const text of frame.width ? svg.querySelectorAll("text") : []) {
    const box = text.getBoundingClientRect();
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
        || box.bottom > frame.bottom + 1) found.push(text.textContent);
  }
}
return found;
"""
# Texts in one drawing that cover each other.
COVERED = """
const found = [];
for (const svg of document.querySelectorAll("svg")) {
  const boxes = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  boxes.forEach(([name, a], index) => boxes.slice(index + 1).forEach(([other, b]) => {
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (width > 0 && height > 4) found.push([name, other]);
  }));
}
return found;
"""


def looks(*kept: tuple[int, str]) -> Any:
    """A test for each width and theme, those not in `kept` in the sweep alone."""
    every = [(width, theme) for width in WIDTHS for theme in THEMES]
    return pytest.mark.parametrize(
        ("width", "theme"), [pytest.param(*one, marks=() if one in kept else pytest.mark.sweep) for one in every]
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that has everything."""
    root = tmp_path_factory.mktemp("rich run")
    report = rich_report(root)
    page = root / "report" / "report.html"
    page.write_text(render(report, root))
    return page


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a failed run of an earlier version: hardly anything was measured."""
    root = tmp_path_factory.mktemp("bare run")
    given = CASES["no-engine"]
    failed = given.gates.rows[0].model_copy(update={"verdict": "fail", "limit": 0.1})
    report = report_of(replace(given, gates=GatesRecord(rows=(failed,), passed=False)))
    page = root / "report.html"
    page.write_text(render(report, root))
    return page


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("name", ["rich", "bare"])
def test_the_page_asks_for_nothing_and_the_console_is_silent(
    browser: Browser, request: pytest.FixtureRequest, name: str, scripts: bool
) -> None:
    page = request.getfixturevalue(name)
    browser.open(page, scripts=scripts)
    browser.unfold()
    console, addresses = browser.logs()
    assert console == []
    assert browser.ask("return document.compatMode;") == "CSS1Compat"
    assert page.as_uri() in addresses
    assert [
        address[:60]
        for address in addresses
        if address not in (page.as_uri(), "about:blank") and address[:5] != "data:"
    ] == []
    pictures = browser.ask("return [...document.images].map((one) => [one.complete, one.naturalWidth]);")
    assert all(done and width for done, width in pictures)
    assert len(pictures) > 20 or name == "bare"
    assert browser.driver.title == f"{'PASS' if name == 'rich' else 'FAIL'}: deit_tiny_patch16_224 from cait_s24_224"
    assert browser.ask("return document.querySelectorAll('script, b, i').length;") == 1  # names with HTML stay text


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["rich", "bare"])
def test_it_fits_the_window_with_every_figure_there(
    browser: Browser, request: pytest.FixtureRequest, name: str, width: int, scripts: bool
) -> None:
    browser.open(request.getfixturevalue(name), width=width, scripts=scripts)
    browser.unfold()
    assert browser.ask("return document.documentElement.scrollWidth;") == width
    assert browser.ask(SIDEWAYS) == []
    figures = browser.ask(FIGURES)
    assert len(figures) >= (13 if name == "rich" else 3)
    assert [len(shown) for shown in figures] == [1] * len(figures)
    assert all(wide > 150 and high > 100 for ((wide, high),) in figures)
    assert browser.ask(CUT) == []
    assert browser.ask(COVERED) == []


@looks((1400, "light"), (1400, "dark"), (400, "light"))
def test_all_text_stands_out_from_its_background(browser: Browser, rich: Path, width: int, theme: str) -> None:
    browser.open(rich, width=width, theme=theme)
    browser.unfold()
    found = browser.ask(CONTRAST)
    assert len(found) > 500
    assert [(round(ratio, 2), what[:80]) for ratio, what in found if ratio < 4.5] == []
    paper = browser.ask("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);")
    assert (min(paper) > 200) if theme == "light" else (max(paper) < 60)


def test_the_verdict_is_in_the_first_window(browser: Browser, bare: Path) -> None:
    for width in WIDTHS:
        browser.open(bare, width=width)
        word = browser.ask("const one = document.querySelector('.word'); return one.getBoundingClientRect().bottom;")
        lead = browser.ask("return document.querySelector('.lead').getBoundingClientRect().bottom;")
        assert word < 200
        assert lead < 900


def test_it_is_used_by_keyboard(browser: Browser, rich: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(rich, scripts=False)
    body = browser.driver.find_element("tag name", "body")
    body.send_keys(Keys.TAB)
    first = browser.driver.switch_to.active_element
    assert first.text == "Skip to the verdict"
    assert first.rect["y"] >= 0
    assert browser.ask("return getComputedStyle(document.activeElement).outlineStyle;") != "none"
    first.send_keys(Keys.ENTER)
    assert browser.ask("return location.hash;") == "#verdict"
    summary = browser.driver.find_element("css selector", "#timing summary")
    details = "return document.querySelector('#timing details').open;"
    assert browser.ask(details) is False
    summary.send_keys(Keys.ENTER)
    assert browser.ask(details) is True
    assert browser.ask("return document.querySelector('#timing details table').getClientRects().length;") == 1
    summary.send_keys(Keys.SPACE)
    assert browser.ask(details) is False


def test_tables_sort_by_their_numbers(browser: Browser, rich: Path) -> None:
    browser.open(rich)
    column = browser.driver.find_element("css selector", "#models thead th:last-child")
    button = column.find_element("tag name", "button")
    sizes = (
        "return [...document.querySelector('#models table').tBodies[0].rows]"
        ".map((row) => row.cells[row.cells.length - 1].dataset.sort).filter((one) => one).map(Number);"
    )
    before = browser.ask(sizes)
    button.click()
    assert column.get_attribute("aria-sort") == "ascending"
    assert browser.ask(sizes) == sorted(before) != before
    button.click()
    assert column.get_attribute("aria-sort") == "descending"
    assert browser.ask(sizes) == sorted(before, reverse=True)


def test_flipped_images_are_filtered_with_scripts_and_all_there_without(browser: Browser, rich: Path) -> None:
    shown = "return [...document.querySelectorAll('.flip-table')[0].querySelectorAll('.flip')].filter((one) => !one.hidden).length;"  # noqa: E501
    browser.open(rich)
    assert browser.ask(shown) == 21
    bar = browser.driver.find_element("css selector", ".filter")
    next(one for one in bar.find_elements("tag name", "button") if one.text == "won").click()
    assert browser.ask(shown) == 6
    assert bar.find_element("tag name", "p").text == "6 of 21 shown"
    bar.find_element("tag name", "input").send_keys("species 2/0012")
    assert browser.ask(shown) == 1
    browser.open(rich, scripts=False)
    assert browser.ask(shown) == 21
    assert browser.ask("return document.querySelectorAll('button').length;") == 0


def test_it_prints(browser: Browser, rich: Path) -> None:
    browser.open(rich)
    assert browser.command("Page.printToPDF")["data"].startswith("JVBERi")  # %PDF-
    assert browser.ask("return document.querySelectorAll('details[open]').length;") == 0  # folded again
