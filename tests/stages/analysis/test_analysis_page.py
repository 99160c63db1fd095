"""docs/advice.md shows the rules that the code follows, in its order."""

from __future__ import annotations

from pathlib import Path

from vitcompress.stages.analysis.rules import RULES
from vitcompress.stages.analysis.statistics import MIN_IMAGES, RESAMPLES

PAGE = (Path(__file__).parents[3] / "docs" / "advice.md").read_text()


def test_every_rule_is_a_row_in_its_order() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    shown = [(row[0], row[1], row[3]) for row in rows if row[0] in {"strategy", "pairs", "width"}]
    papers = {"[EM] arXiv 2511.15572": "EM", "[SKD] arXiv 2412.19055": "SKD"}
    expected = []
    for rule in RULES:
        paper, _, part = rule.source.partition(": ")
        expected.append((rule.what, rule.when, f"{papers[paper]}: {part}"))
    assert shown == expected


def test_the_numbers_in_the_text_are_the_code_s() -> None:
    assert f"of {RESAMPLES} bootstrap draws" in PAGE
    assert MIN_IMAGES == 50
    assert "With fewer than 50 images nothing is recommended" in PAGE
