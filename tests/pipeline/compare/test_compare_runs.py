"""`compress compare`: what may be compared, who dominates whom, and what is said of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from check.made_runs import made, written
from click.testing import CliRunner
from command_line import printed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.cli import cli
from vitcompress.pipeline.compare import tell
from vitcompress.pipeline.compare.plot import pareto_figure
from vitcompress.pipeline.compare.read import Comparison, Run, compared, standings

Change = Callable[[dict[str, Any]], object]


def quantity(value: float | None, spread: float = 0.0, reason: str = "") -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "reason": reason}
    return {"value": value, "low": value - spread, "high": value + spread, "reason": ""}


def deployed(report: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = next(row for row in report["models"] if row["deployed"])
    return row


def saved(folder: Path, top1: float | None, ms: float, *changes: Change) -> Path:
    """A run whose deployed model has this top-1 (give or take 1) and latency (give or take 1)."""
    report = made()
    row = deployed(report)
    row["top1"] = quantity(top1, 1.0, "it could not be run")
    row["latency"]["1"] |= {"p50_ms": quantity(ms, 1.0), "speedup": quantity(400 / ms, 0.1)}
    for change in changes:
        change(report)
    return written(folder, report)


def other_machine(report: dict[str, Any]) -> None:
    report["hardware"]["processor"] = "Another CPU"


def other_teacher(report: dict[str, Any]) -> None:
    report["artifacts"]["teacher"]["cost"]["parameters"] = 99_000_000


def other_images(report: dict[str, Any]) -> None:
    report["images_digest"] = "3" * 64


def told(comparison: Comparison) -> str:
    return printed(tell.terminal(comparison, standings(comparison)))


def test_same_images_and_hardware_are_compared_by_latency(tmp_path: Path) -> None:
    runs = [saved(tmp_path / "a", 90.0, 50.0), saved(tmp_path / "b", 92.5, 80.0), saved(tmp_path / "c", 89.9, 60.0)]
    comparison = compared(runs)
    assert (comparison.warnings, comparison.undecided) == ((), "")
    assert [(one.optimal, one.by, one.overlapping) for one in standings(comparison)] == [
        (True, (), ()),
        (True, (), ()),
        (False, (1,), ("top-1",)),
    ]
    text = " ".join(told(comparison).split())
    assert "Pareto-optimal (top-1 against latency): 1, 2." in text
    assert "3 is dominated by 1; the 95 % intervals of top-1 overlap, so this is not certain." in text


HERE, ELSEWHERE = "A processor (2 cores, 2 threads)", "Another CPU (2 cores, 2 threads)"
MACHINES = f"the hardware differs ({HERE}, {ELSEWHERE}, {HERE})"
TEACHERS = "the teachers differ (cait_s24_224, 46.92 M parameters, "
IMAGES = "the held-out images differ (dddddddd, 33333333, dddddddd)"


@pytest.mark.parametrize(
    ("changes", "said", "undecided"),
    [
        ([other_teacher], [TEACHERS], ""),
        ([other_machine, other_teacher], [MACHINES, TEACHERS], MACHINES),
        ([other_images], [IMAGES + ": top-1"], IMAGES),
    ],
)
def test_what_stands_in_the_way_of_a_comparison_is_told(
    changes: list[Change], said: list[str], undecided: str, tmp_path: Path
) -> None:
    second = saved(tmp_path / "b", 92.5, 80.0, *changes)
    comparison = compared([saved(tmp_path / "a", 90.0, 50.0), second, saved(tmp_path / "c", 1, 99)])
    assert all(warning.startswith(start) for warning, start in zip(comparison.warnings, said, strict=True))
    found = standings(comparison)
    assert [one.optimal for one in found] == ([False] * 3 if undecided else [True, True, False])
    assert comparison.undecided == undecided
    if undecided:
        assert tell.conclusions(comparison, found) == [f"Which run is best cannot be said: {undecided}."]
        assert {entry["pareto_optimal"] for entry in tell.document(comparison, found)["runs"]} == {None}


def test_a_run_of_unknown_hardware_is_shown_and_not_compared(tmp_path: Path) -> None:
    unknown = saved(tmp_path / "b", 90.0, 50.0, lambda report: report.update(hardware=None))
    comparison = compared([saved(tmp_path / "a", 90.0, 50.0), unknown])
    assert "not all of the hardware is recorded" in comparison.undecided


def test_what_was_not_measured_has_no_place(tmp_path: Path) -> None:
    comparison = compared([saved(tmp_path / "a", None, 50.0), saved(tmp_path / "b", 50.0, 80.0)])
    assert [one.optimal for one in standings(comparison)] == [False, True]
    assert "1 has no place: top-1 unmeasured: it could not be run." in told(comparison)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=2, max_size=8))
def test_the_front_is_what_no_other_beats(points: list[tuple[int, int]]) -> None:
    words = dict.fromkeys(("name", "teacher", "student", "strategy", "artifact", "verdict"), "")
    nothing: dict[str, Any] = {**words, "drop": {}, "speedup": {}, "parameters": 1, "bytes": 1}
    runs = tuple(
        Run(number=number, top1=quantity(float(top1)), p50_ms=quantity(float(ms)), **nothing)
        for number, (top1, ms) in enumerate(points, 1)
    )
    for one, (top1, ms) in zip(standings(Comparison(runs, "", ())), points, strict=True):
        beating = {
            number
            for number, (other_top1, other_ms) in enumerate(points, 1)
            if other_top1 >= top1 and other_ms <= ms and (other_top1, other_ms) != (top1, ms)
        }
        assert set(one.by) == beating
        assert one.optimal == (not beating)


def test_the_table_fits_80_columns_whatever_the_numbers(tmp_path: Path) -> None:
    def large(report: dict[str, Any]) -> None:
        row = deployed(report)
        row |= {"drop": quantity(-12.34), "parameters": 999_000_000, "bytes": 999_900_000}
        row["latency"]["1"]["speedup"] = quantity(123.45, 12.34)

    runs = [saved(tmp_path / "[red]" / str(index), 100.0, 12345.6, large) for index in range(11)]
    text = told(compared(runs))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    row = next(line for line in text.splitlines() if line.startswith(" 11 "))
    assert row.split()[:3] == ["11", "100.00", "[99.00,"]
    assert row.split()[-4:] == ["12,346", "999.00", "M", "1,000"]
    assert "[red]" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a",), "takes two runs or more, given was 'a' alone"),
        (("a", "damaged"), "is damaged (it has no deployed model, or no latency of it at batch 1)"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "a", 90.0, 50.0)
    saved(tmp_path / "damaged", 90.0, 50.0, lambda report: deployed(report)["latency"].pop("1"))
    with pytest.raises(UsageError) as caught:
        compared([Path(word) for word in words])
    assert said in str(caught.value)


def test_the_command_writes_only_with_output(tmp_path: Path) -> None:
    runs = [str(saved(tmp_path / "a", 90.0, 50.0)), str(saved(tmp_path / "b", 92.5, 80.0))]
    before = sorted(tmp_path.rglob("*"))
    shown = CliRunner().invoke(cli, ["compare", *runs])
    assert (shown.exit_code, sorted(tmp_path.rglob("*"))) == (0, before)
    assert "Pareto-optimal" in shown.output
    folder = tmp_path / "new" / "folder"
    assert CliRunner().invoke(cli, ["compare", *runs, "--output", str(folder)]).exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"compare.md", "compare.json", "pareto.png", "pareto.svg"}
    found = json.loads((folder / "compare.json").read_text())
    assert (found["kind"], found["schema_version"]) == ("compress-comparison", 2)
    assert [(one["top1"]["value"], one["pareto_optimal"]) for one in found["runs"]] == [(90.0, True), (92.5, True)]
    assert (
        f"| **1** | `{runs[0]}`: deit_tiny_patch16_224 from cait_s24_224, plain" in (folder / "compare.md").read_text()
    )
    with pytest.raises(UsageError, match="a file is where a folder is needed"):
        tell.write(compared([Path(run) for run in runs]), folder / "compare.md")


def test_the_plot_names_every_run_that_it_shows_and_where_it_stands(tmp_path: Path) -> None:
    runs = [saved(tmp_path / "$x_a$", 90.0, 50.0), saved(tmp_path / "b", 92.5, 900.0)]
    comparison = compared([*runs, saved(tmp_path / "日本", 89.0, 60.0), saved(tmp_path / "d", None, 60.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no font has every script
        paths = tell.write(comparison, tmp_path / "out")
    with Image.open(paths[2]) as image:
        assert image.size == (1350, 780)
    figure = pareto_figure(standings(comparison))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        r"1  \$x_a\$: Pareto-optimal",
        "2  b: Pareto-optimal",
        "3  日本: dominated",
    ]
