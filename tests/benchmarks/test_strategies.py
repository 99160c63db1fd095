"""benchmarks/strategies.py: its statistics, what it writes, that it trains nothing twice, and docs/strategies.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import student_costs
from click.testing import CliRunner, Result
from scipy import stats
from strategies import METHODS, main
from strategies_table import Estimate, over_seeds, paired, reading, summary, table
from student_costs import STUDENTS, Row

from vitcompress.core.errors import ResultError
from vitcompress.core.records import DistillRecord, FoldRecord, TeacherRecord
from vitcompress.core.rundir import RunDirectory

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "teacher.args": "{embed_dim: 48, depth: 2, num_heads: 2}",
    "student.args": "{embed_dim: 24, depth: 2, num_heads: 3}",
    "teacher.epochs": "1",
    "teacher.warmup_epochs": "auto",
    "teacher.batch_size": "128",
    "distill.batch_size": "128",
}
SETS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
VALUES = [97.2, 98.3, 98.9, 97.8, 98.6]
OTHERS = [97.0, 98.0, 98.3, 97.5, 98.6]


def test_interval_is_students_t() -> None:
    ours = over_seeds(VALUES)
    theirs = stats.ttest_1samp(VALUES, 0.0).confidence_interval(0.95)
    assert (ours.mean, ours.seeds) == (pytest.approx(np.mean(VALUES)), 5)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_difference_is_paired_by_seed_whatever_the_order() -> None:
    ours = paired(dict(enumerate(VALUES)), dict(reversed(list(enumerate(OTHERS)))))
    theirs = stats.ttest_rel(VALUES, OTHERS).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    unpaired = stats.ttest_ind(VALUES, OTHERS).confidence_interval(0.95)
    assert ours.low != pytest.approx(unpaired.low, abs=0.05)


@pytest.mark.parametrize("values", [[98.0], [98.0, 98.0, 98.0]])
def test_what_tells_no_spread_has_no_interval(values: list[float]) -> None:
    assert over_seeds(values) == Estimate(98.0, None, None, len(values))
    assert over_seeds(values).text() == "98.00"


def test_other_seeds_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match=r"the same seeds needed; got \[0, 1\] and \[0, 2\]"):
        paired({0: 1.0, 1: 2.0}, {0: 1.0, 2: 2.0})
    with pytest.raises(ValueError, match="no values"):
        over_seeds([])


def cell(method: str, seed: int, top1: float, **changes: Any) -> dict[str, Any]:
    values = {"graph": "plain", "parameters": 7, "macs": 5, "epochs": 2, "steps": 88, "seconds": 3.0}
    return {"method": method, "seed": seed, "top1": top1, "teacher_weights": f"of seed {seed}", **values, **changes}


PAIR = [method for method in METHODS if method.name in ("soft", "lift")]
CELLS = [cell("soft", 0, 97.0), cell("soft", 1, 98.0), cell("lift", 0, 98.0), cell("lift", 1, 98.5)]


def test_summary_compares_with_soft_distillation() -> None:
    soft, lift = summary(PAIR, CELLS)
    assert soft["difference"] is None
    assert lift["difference"]["mean"] == pytest.approx(0.75)
    theirs = stats.ttest_1samp([1.0, 0.5], 0.0).confidence_interval(0.95)
    assert lift["difference"]["high"] == pytest.approx(theirs.high)
    (alone,) = summary([PAIR[1]], CELLS[2:])
    assert alone["difference"] is None  # nothing to compare with


@pytest.mark.parametrize("changes", [{"steps": 44}, {"epochs": 1}, {"teacher_weights": "another"}])
def test_cells_trained_differently_are_not_compared(changes: dict[str, Any]) -> None:
    with pytest.raises(ResultError, match="cannot be compared"):
        summary(PAIR, [*CELLS[:3], cell("lift", 1, 98.5, **changes)])


def run(output: Path, *more: str) -> Result:
    words = ["--methods", "soft,lift", "--seeds", "1", "--epochs", "1", "--output", str(output), *SETS, *more]
    return CliRunner().invoke(main, words)


@pytest.mark.sweep
def test_two_methods_on_digits_are_told_as_recorded_and_never_trained_twice(tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = run(output)
    assert first.exit_code == 0, first.output
    assert "3 of 3 computed" in first.output
    document = json.loads((output / "results.json").read_text())
    assert [(each["method"], each["seed"]) for each in document["cells"]] == [("soft", 0), ("lift", 0)]
    soft, lift = document["cells"]
    for each in (soft, lift):
        run_of = RunDirectory.existing(output / each["folder"])
        distill, fold = run_of.load_record("distill", DistillRecord), run_of.load_record("fold", FoldRecord)
        assert each["top1"] == distill.val_top1_ema  # by rule, not the better of the two
        cost = fold.costs["lift-folded" if each is lift else "plain"]
        assert (each["parameters"], each["macs"]) == (cost.parameters, cost.macs)
    teachers = [
        RunDirectory.existing(output / "seed0" / name).load_record("teacher", TeacherRecord)
        for name in ("teacher", "soft", "lift")
    ]
    assert len({teacher.weights.sha256 for teacher in teachers}) == 1
    assert not (output / "seed0" / "lift" / "checkpoints" / "teacher").exists()

    assert document["methods"][1]["difference"]["mean"] == pytest.approx(lift["top1"] - soft["top1"])
    assert document["held_out_images"] == 359
    page = (output / "results.md").read_text()
    assert f"| {lift['parameters']:,} |" in table(document)
    assert table(document) in page
    assert "One seed: no interval" in page
    assert "one image is 0.28 points" in page
    assert "averaged (EMA) weights" in reading(document)[1]

    again = run(output)
    assert "0 of 3 computed" in again.output
    assert json.loads((output / "results.json").read_text())["cells"] == document["cells"]
    changed = run(output, "--methods", "soft", "--set", "distill.tau=2.0")
    assert "1 of 2 computed" in changed.output  # the teacher stays


@pytest.mark.parametrize("key", ["distill.features=[]", "student.strategy=lift"])
def test_what_the_methods_differ_in_cannot_be_set(key: str, tmp_path: Path) -> None:
    refused = run(tmp_path / "out", "--set", key)
    assert refused.exit_code == 2
    assert f"--set {key.partition('=')[0]} is what the methods differ in" in refused.output
    assert not (tmp_path / "out").exists()


# ---- docs/strategies.md

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
