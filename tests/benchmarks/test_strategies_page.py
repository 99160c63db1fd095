"""docs/strategies.md says what the networks are counted to cost and what the recorded cells come to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import student_costs
from strategies import METHODS
from strategies_table import reading, summary, table
from student_costs import STUDENTS, Row

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
NAMES = [*STUDENTS, "lift, as deployed"]


@pytest.fixture(scope="module")
def students() -> dict[str, Row]:
    """Every student by its name: networks of full size, built once."""
    return {row.name: row for row in student_costs.rows()}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_sum_over_the_layers(name: str, students: dict[str, Row]) -> None:
    row = students[name]
    terms = re.findall(r"(\d*)([A-Z])\(([\d,]+)\)", row.sum)
    assert "+".join(f"{times}{name}({widths})" for times, name, widths in terms) == row.sum
    counted = sum(int(times or 1) * LAYERS[name](*map(int, widths.split(","))) for times, name, widths in terms)
    assert counted == row.cost.parameters


def test_the_page_has_the_counted_costs(students: dict[str, Row], monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted(students) == sorted(NAMES)
    monkeypatch.setattr(student_costs, "rows", lambda: list(students.values()))
    assert student_costs.table() in PAGE


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
