"""`compress compare`: what may be compared, who dominates whom, and what is said of it."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from sample_reports import CASES, report_of

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.cli import cli
from vitcompress.pipeline.compare import tell
from vitcompress.pipeline.compare.pareto import standings
from vitcompress.pipeline.compare.plot import pareto_figure
from vitcompress.pipeline.compare.read import Comparison, Run, compared

Change = Callable[[dict[str, Any]], object]


def quantity(value: float | None, spread: float = 0.0, reason: str = "") -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "reason": reason}
    return {"value": value, "low": value - spread, "high": value + spread, "reason": ""}


def saved(folder: Path, top1: float | None, ms: float, change: Change = lambda report: None) -> Path:
    """A run whose deployed model has this top-1 (give or take 1) and latency (give or take 1)."""
    report = copy.deepcopy(report_of(CASES["plain"]))
    row = next(row for row in report["models"] if row["deployed"])
    row["top1"] = quantity(top1, 1.0, "it could not be run")
    row["latency"]["1"] |= {"p50_ms": quantity(ms, 1.0), "speedup": quantity(400 / ms, 0.1)}
    change(report)
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "report.json").write_text(json.dumps(report))
    return folder


def other_machine(report: dict[str, Any]) -> None:
    report["hardware"]["processor"] = "Another CPU"


def other_teacher(report: dict[str, Any]) -> None:
    report["artifacts"]["teacher"]["cost"]["parameters"] = 99_000_000


def told(comparison: Comparison) -> str:
    console = Console(width=80, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(tell.terminal(comparison, standings(comparison)))
    return captured.get()


def on_a_gpu(report: dict[str, Any]) -> None:
    report["hardware"]["gpu"] = "A GPU"
    next(row for row in report["models"] if row["deployed"])["provider"] = "CUDAExecutionProvider"


def other_machine_and_teacher(report: dict[str, Any]) -> None:
    other_machine(report)
    other_teacher(report)


def other_images(report: dict[str, Any]) -> None:
    report["images_digest"] = "3" * 64


def test_same_images_and_hardware_are_compared_by_latency(tmp_path: Path) -> None:
    runs = [saved(tmp_path / "a", 90.0, 50.0), saved(tmp_path / "b", 92.5, 80.0), saved(tmp_path / "c", 89.9, 60.0)]
    comparison = compared(runs)
    assert (comparison.time, comparison.warnings, comparison.undecided) == ("p50_ms", (), "")
    found = standings(comparison)
    assert [(one.optimal, one.by, one.overlapping) for one in found] == [
        (True, (), ()),
        (True, (), ()),
        (False, (1,), ("top-1",)),
    ]
    text = " ".join(told(comparison).split())
    assert "Pareto-optimal (top-1 against latency): 1, 2." in text
    assert (
        "3 is dominated by 1 (top-1 89.90 against 90.00 %, latency 60.00 ms against 50.00 ms); the 95 % intervals of "
        "top-1 overlap, so this is not certain." in text
    )


MACHINES = "the hardware differs (processor: A CPU, Another CPU, A CPU): latency "
TEACHERS = "the teachers differ (cait_s24_224 of 46.92 M parameters, cait_s24_224 of 99.00 M parameters"


@pytest.mark.parametrize(
    ("change", "time", "said", "undecided"),
    [
        (other_machine, "speedup", [MACHINES + "is compared by speed-up"], ""),
        (other_teacher, "p50_ms", [TEACHERS], ""),
        (other_machine_and_teacher, None, [MACHINES + "cannot be compared.", TEACHERS], "speed has no common measure"),
        (
            on_a_gpu,
            None,
            [
                "the hardware differs (gpu: none, A GPU, none)",
                "the execution providers differ (CPUExecutionProvider, CUDA",
            ],
            "speed has no common measure",
        ),
        (other_images, "p50_ms", ["the held-out images differ (1 and 3; 2): top-1"], "the held-out images differ"),
    ],
)
def test_what_stands_in_the_way_of_a_comparison_is_told(
    change: Change, time: str | None, said: list[str], undecided: str, tmp_path: Path
) -> None:
    runs = [saved(tmp_path / "a", 90.0, 50.0), saved(tmp_path / "b", 92.5, 80.0, change), saved(tmp_path / "c", 1, 99)]
    comparison = compared(runs)
    assert comparison.time == time
    assert [warning.startswith(start) for warning, start in zip(comparison.warnings, said, strict=True)] == [
        True
    ] * len(said)
    found = standings(comparison)
    assert [one.optimal for one in found] == ([] if undecided else [True, True, False])
    if undecided:
        assert f"Which run is best cannot be said: {undecided}" in told(comparison)
        assert {entry["pareto_optimal"] for entry in tell.document(comparison, ())["runs"]} == {None}


def test_a_run_of_unknown_hardware_is_compared_by_speed_up(tmp_path: Path) -> None:
    unknown = saved(tmp_path / "b", 90.0, 50.0, lambda report: report.update(hardware=None))
    comparison = compared([saved(tmp_path / "a", 90.0, 50.0), unknown])
    assert comparison.time == "speedup"
    assert comparison.warnings == (
        "the hardware of 2 is not recorded: latency is compared by speed-up, against each run's own teacher.",
    )


def test_what_was_not_measured_has_no_place(tmp_path: Path) -> None:
    comparison = compared([saved(tmp_path / "a", None, 50.0), saved(tmp_path / "b", 50.0, 80.0)])
    first, second = standings(comparison)
    assert (first.optimal, second.optimal) == (False, True)
    assert "1 has no place: top-1 unmeasured: it could not be run." in told(comparison)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=2, max_size=8))
def test_the_front_is_what_no_other_beats(points: list[tuple[int, int]]) -> None:
    runs = tuple(
        Run(
            number=number,
            name=str(number),
            top1=quantity(float(top1)),
            p50_ms=quantity(float(ms)),
            **dict.fromkeys(("teacher", "student", "strategy", "artifact", "verdict"), ""),  # type: ignore[arg-type]
            **dict.fromkeys(("drop", "speedup", "teacher_top1", "teacher_p50_ms"), quantity(1.0)),  # type: ignore[arg-type]
            parameters=1,
            bytes=1,
        )
        for number, (top1, ms) in enumerate(points, 1)
    )
    for one, (top1, ms) in zip(standings(Comparison(runs, "", "p50_ms", ())), points, strict=True):
        beating = {
            number
            for number, (other_top1, other_ms) in enumerate(points, 1)
            if other_top1 >= top1 and other_ms <= ms and (other_top1, other_ms) != (top1, ms)
        }
        assert set(one.by) == beating
        assert one.optimal == (not beating)


def test_the_table_fits_80_columns_whatever_the_numbers(tmp_path: Path) -> None:
    def large(report: dict[str, Any]) -> None:
        row = next(row for row in report["models"] if row["deployed"])
        row |= {"drop": quantity(-12.34), "parameters": 999_000_000, "bytes": 999_900_000}
        row["latency"]["1"]["speedup"] = quantity(123.45, 12.34)

    runs = [saved(tmp_path / "[red]" / str(index), 100.0, 12345.6, large) for index in range(11)]
    text = told(compared(runs))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    row = next(line for line in text.splitlines() if line.startswith(" 11 "))
    assert " ".join(row.split()) == "11 100.00 [99.0, 101.0] -12.34 123.5 [111.1, 135.8] 12346 999.00 M 999.9"
    assert "[red]" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "takes two runs or more, given was none"),
        (("a",), "takes two runs or more, given was 'a' alone"),
        (("a", "b", "./a/"), "is the same run as 'a'"),
        (("a", "a/report/report.json"), "'a/report/report.json' is the same run as 'a'"),
        (("a", "nothing"), "report 'nothing' does not exist"),
        (("a", "empty"), "'empty' has no report"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "a", 90.0, 50.0)
    saved(tmp_path / "b", 90.0, 50.0)
    (tmp_path / "empty").mkdir()
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
    assert (found["kind"], found["schema_version"], found["time"]) == ("compress-comparison", 1, "p50_ms")
    assert [(one["top1"]["value"], one["pareto_optimal"]) for one in found["runs"]] == [(90.0, True), (92.5, True)]
    text = (folder / "compare.md").read_text()
    assert f"| 1 | `{runs[0]}`: deit_tiny_patch16_224 from cait_s24_224, plain" in text
    assert "![top-1 against speed, with 95 % intervals](pareto.png)" in text
    with pytest.raises(UsageError, match="a file is where a folder is needed"):
        tell.write(compared([Path(run) for run in runs]), folder / "compare.md")


@pytest.mark.parametrize("change", [lambda report: None, other_machine], ids=["latency", "speed-up"])
def test_the_plot_shows_every_run(change: Change, tmp_path: Path) -> None:
    runs = [saved(tmp_path / "$x_a$", 90.0, 50.0), saved(tmp_path / "b", 92.5, 900.0, change)]
    comparison = compared([*runs, saved(tmp_path / "日本", None, 60.0), saved(tmp_path / "語", 90.5, 70.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no font has every script
        paths = tell.write(comparison, tmp_path / "out")
    image = Image.open(paths[2]).convert("RGB")
    assert image.size == (1350, 780)
    assert len(image.getcolors(1 << 24) or []) > 20
    if change is not other_machine:  # once is enough: the axis makes no difference to the bytes
        again = tell.write(comparison, tmp_path / "again")
        assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


@pytest.mark.parametrize("change", [lambda report: None, other_machine], ids=["latency", "speed-up"])
def test_the_legend_names_every_run_and_where_it_stands(change: Change, tmp_path: Path) -> None:
    runs = [saved(tmp_path / "$x_a$", 90.0, 50.0, change), saved(tmp_path / "b", 92.5, 900.0)]
    comparison = compared([*runs, saved(tmp_path / "c", 89.0, 60.0), saved(tmp_path / "d", None, 60.0)])
    figure = pareto_figure(comparison, standings(comparison))
    teacher = ["teacher, measured with each run"] if change is not other_machine else []
    names = [r"1  \$x_a\$: Pareto-optimal", "2  b: Pareto-optimal", "3  c: dominated"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*teacher, *names]
    assert figure.axes[0].xaxis_inverted() == (change is other_machine)  # faster is left
    assert figure.axes[0].get_xscale() == "log"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda row: row.update(deployed=False), "no deployed model"),
        (lambda row: row["latency"].pop("1"), "no latency at batch 1"),
    ],
)
def test_a_report_that_lacks_what_is_compared_is_refused(
    how: Callable[[dict[str, Any]], object], said: str, tmp_path: Path
) -> None:
    runs = [saved(tmp_path / name, 90.0, 50.0) for name in "ab"]
    file = runs[0] / "report" / "report.json"
    report = json.loads(file.read_text())
    for row in report["models"]:
        how(row)
    file.write_text(json.dumps(report))
    with pytest.raises(UsageError, match=f"damaged \\({said}"):
        compared(runs)


def test_what_check_or_compare_wrote_is_no_old_report(tmp_path: Path) -> None:
    runs = [saved(tmp_path / name, 90.0, 50.0) for name in "ab"]
    for kind in ("compress-check", "compress-comparison"):
        file = tmp_path / "other.json"
        file.write_text(json.dumps({"kind": kind, "schema_version": 1, "verdict": {}}))
        with pytest.raises(UsageError, match=f"no report of compress .*{kind}"):
            compared([runs[0], file])
