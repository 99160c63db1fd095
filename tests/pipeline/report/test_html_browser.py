"""`report.html` in a real Chromium: looked at and listened to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, DRIVER, REQUIRED, Browser, chromium
from rich_report import rich_report
from sample_reports import CASES, report_of

from vitcompress.core.measured_records import GatesRecord
from vitcompress.pipeline.report.html.page import render

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not REQUIRED,
    reason="Chromium and chromedriver are not installed (`make browser` does that, as root)",
)
WIDTHS = (400, 1400)
UNFOLD = "for (const one of document.querySelectorAll('details')) one.open = true;"

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that has everything."""
    root = tmp_path_factory.mktemp("rich run")
    page = root / "report.html"
    page.write_text(render(rich_report(root), root))
    return page


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_the_page_asks_for_nothing_and_the_console_is_silent(browser: Browser, rich: Path, scripts: bool) -> None:
    browser.open(rich, scripts=scripts)
    browser.ask(UNFOLD)
    console, addresses = browser.logs()
    assert console == []
    assert browser.ask("return document.compatMode;") == "CSS1Compat"
    assert rich.as_uri() in addresses
    assert {one[:60] for one in addresses if not one.startswith("data:")} <= {rich.as_uri()[:60], "about:blank"}
    pictures = browser.ask("return [...document.images].map((one) => [one.complete, one.naturalWidth]);")
    assert all(done and width for done, width in pictures)
    assert len(pictures) > 20
    assert browser.ask("return document.querySelectorAll('script, b, i').length;") == 1  # names with HTML stay text


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_the_window(browser: Browser, rich: Path, width: int) -> None:
    browser.open(rich, width=width)
    browser.ask(UNFOLD)
    assert browser.ask("return document.documentElement.scrollWidth;") == width
    assert browser.ask(SIDEWAYS) == []


def test_the_models_need_no_scrolling_at_1200_pixels(browser: Browser, rich: Path) -> None:
    browser.open(rich, width=1200)
    wide = "const box = document.querySelector('#models .scroll'); return [box.scrollWidth, box.clientWidth];"
    needed, there = browser.ask(wide)
    assert 0 < needed <= there


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out_from_its_background(browser: Browser, rich: Path, theme: str) -> None:
    browser.open(rich, theme=theme)
    browser.ask(UNFOLD)
    found = browser.ask(CONTRAST)
    assert len(found) > 300
    assert [(round(ratio, 2), what[:80]) for ratio, what in found if ratio < 4.5] == []
    paper = browser.ask("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);")
    assert (min(paper) > 200) if theme == "light" else (max(paper) < 60)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_verdict_of_a_failed_run_is_in_the_first_window(browser: Browser, width: int, tmp_path: Path) -> None:
    given = CASES["no-engine"]
    failed = given.gates.rows[0].model_copy(update={"verdict": "fail", "limit": 0.1})
    page = tmp_path / "report.html"
    page.write_text(render(report_of(replace(given, gates=GatesRecord(rows=(failed,), passed=False))), tmp_path))
    browser.open(page, width=width)
    assert browser.driver.title == "FAIL: deit_tiny_patch16_224 from cait_s24_224"
    bottom = "return document.querySelector('{}').getBoundingClientRect().bottom;"
    assert browser.ask(bottom.format(".word")) < 200
    assert browser.ask(bottom.format(".lead")) < 900


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
