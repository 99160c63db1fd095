"""docs/strategies.md says what the networks are counted to cost and what the recorded cells come to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from strategies import METHODS
from strategies_table import reading, summary, table
from student_costs import Row, rows
from student_costs import table as table_of_costs

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "strategies.md").read_text()
LAYERS = {
    "E": lambda w: 3 * 16 * 16 * w + w + w + (1 + 14 * 14) * w,
    "B": lambda w: 12 * w**2 + 13 * w,
    "N": lambda w: 2 * w,
    "H": lambda w: 1000 * (w + 1),
    "L": lambda a, b: a * b + 2 * b,
    "R": lambda w: w**2,
}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_parameters_are_the_sum_over_the_layers(row: Row) -> None:
    terms = re.findall(r"(\d*)([A-Z])\(([\d,]+)\)", row.sum)
    assert "+".join(f"{times}{name}({widths})" for times, name, widths in terms) == row.sum
    counted = sum(int(times or 1) * LAYERS[name](*map(int, widths.split(","))) for times, name, widths in terms)
    assert counted == row.cost.parameters


def test_the_page_has_the_counted_costs() -> None:
    assert table_of_costs() in PAGE


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / "strategies-digits.json").read_text())


def test_the_recorded_summary_is_that_of_the_recorded_cells(document: Any) -> None:
    names = [row["method"] for row in document["methods"]]
    again = summary([method for method in METHODS if method.name in names], document["cells"])
    assert json.loads(json.dumps(again)) == document["methods"]


def test_the_page_has_the_recorded_table(document: Any) -> None:
    assert table(document) in PAGE
    assert document["command"] in PAGE
    for line in reading(document):
        assert f"- {line}\n" in PAGE
