"""report.md as a comment: short enough whatever is in it, the verdict never lost, nothing of it a command to GitHub."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from measured_reports import measured, measured_report
from rich.console import Console
from sample_reports import gate, report_of

from vitcompress.core.artifact_records import GatesRecord
from vitcompress.pipeline.report.comment import MOST, Fold, fitted
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.markdown import render
from vitcompress.pipeline.report.terminal import table


def size(text: str) -> int:
    return len(text.encode())


def test_short_parts_are_left_as_they_are() -> None:
    assert fitted(["one", "", "two"], [Fold("title", "body")]) == (
        "one\n\ntwo\n\n<details>\n<summary>title</summary>\n\nbody\n\n</details>\n"
    )


def test_the_last_folds_are_left_out_first_and_say_so() -> None:
    half = "é" * (MOST // 4)
    text = fitted(["verdict"], [Fold("first", half), Fold("second", half), Fold("third", "short")])
    assert size(text) <= MOST
    assert half in text
    assert "<summary>second</summary>\n\nLeft out here for its length" in text
    assert text.count("<details>") == text.count("</details>") == 3


@pytest.mark.parametrize("line", ["short – line\n", "x" * 5_000 + "\n", "y" * 3 * MOST])
def test_open_parts_are_cut_at_a_line(line: str) -> None:
    text = fitted(["## FAIL", line * 20_000 if len(line) < 100 else line * 40], [Fold("fold", "body")])
    assert size(text) <= MOST
    assert text.startswith("## FAIL\n")
    assert "Cut here for its length" in text
    assert text.endswith("</details>\n")


def test_an_enormous_report_fits(lift: Records) -> None:
    rows = tuple(
        gate("min_accuracy", "onnx", 90.0, "unmeasured", None, False, f"{index} " + "why " * 300)
        for index in range(400)
    )
    report = report_of(
        replace(lift, gates=GatesRecord(rows=rows, passed=True)),
        notes=["n" * 1000] * 100,
        command="compress run " + "x" * 100_000,
    )
    text = render(report)
    assert size(text) <= MOST
    assert text.startswith("## UNDECIDED: deit_tiny")


def test_it_renders_as_tables_and_folds(case: Records) -> None:
    text = render(measured_report(case))
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<table>") == len(re.findall(r"^\| ---", text, re.MULTILINE)) > 3
    assert html.count("<details>") == html.count("</details>") == text.count("<details>")
    assert "| ---" not in html  # no table that is none
    assert html.index("<h2>PASS") < html.index("<table>") < html.index("<details>")


def test_flips_and_the_classes_that_lost_most(case: Records) -> None:
    text = render(measured_report(case))
    assert "lost 31 images (teacher right, it wrong) and won 18; 7 more are wrong in another way." in text
    assert "largest losses: `e` 92 to 82 of 100, `b` 92 to 88 of 100, `a` 92 to 91 of 100." in text


def test_losses_are_shares_of_a_class_and_only_the_largest_are_named(lift: Records) -> None:
    report = measured_report(lift)
    report["class_images"] = [100] * 9 + [10]
    for row in report["accuracy"]:
        row["class_right"] = [90] * 9 + [9] if row["model"] == "teacher" else [89, 88, 87, 86, 85, 84, 90, 91, 90, 1]
    text = render(report)
    assert "largest losses: `j` 9 to 1 of 10, `f` 90 to 84 of 100, `e` 90 to 85 of 100, `d` 90 to" in text
    assert "`c` 90 to 87 of 100, and 2 more." in text


def test_what_was_not_recorded_is_said(lift: Records) -> None:
    assert "Flips: which images flip was not recorded; `compress verify RUN` records it." in render(report_of(lift))
    details = render(report_of(lift)).partition("<summary>Everything measured</summary>")[2]
    assert "unmeasured: throughput was not measured in this run" in details


def test_new_columns_are_in_the_details(lift: Records) -> None:
    details = render(measured_report(lift)).partition("<summary>Everything measured</summary>")[2]
    row = next(line for line in details.splitlines() if line.startswith("| student lift-folded, ONNX"))
    assert row.split(" | ")[1:4] == ["99.00", "99.70 [99.10, 99.90]", "3.25"]
    assert row.endswith("| 151.00 |")
    times = next(
        line for line in details.splitlines() if line.startswith("| student lift-folded, ONNX CPU (deployed) | 8 ")
    )
    assert times.endswith(f"| {1000 * 8 / (48.5 * 8 * 0.9**7):.1f} |")
    report = measured_report(lift)
    report["models"][1]["throughput"]["1"]["value"] = 13_391.4
    assert "| 13,391 |" in render(report)


def test_a_class_name_mentions_nobody_and_breaks_nothing(lift: Records) -> None:
    names = ("<b>@all`|x", *"bcdefghij")
    data = measured(lift).data.model_copy(update={"classes": names})
    text = render(report_of(replace(measured(lift), data=data)))
    assert "`<b>@all'\\|x` 92 to 91" in text
    outside = re.sub(r"`[^`]*`", "", text)
    assert "@" not in outside


def test_terminal_tells_agreement_only_where_answers_changed(lift: Records) -> None:
    def shown(report: object) -> str:
        console = Console(file=io.StringIO(), width=80)
        console.print(table(report))  # type: ignore[arg-type]
        return console.file.getvalue()  # type: ignore[attr-defined]

    report = measured_report(lift)
    line = "Agrees with the same model in torch on 99.70 % [99.10, 99.90] of the images."
    assert line in shown(report).splitlines()
    next(row for row in report["models"] if row["deployed"])["agreement"]["value"] = 100.0
    assert "Agrees" not in shown(report)
    assert "Agrees" not in shown(report_of(lift))
