"""report.md as a comment and the terminal's table: numbers of the report, the verdict first, short enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from command_line import printed
from markdown_it import MarkdownIt
from sample_reports import CASES, NO_ENGINE, NO_GPU, engine_measured, gate, report_of

from vitcompress.core.measured_records import GatesRecord
from vitcompress.pipeline.report import report_tables
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.markdown import MOST, fitted, render
from vitcompress.pipeline.report.table import Column, Output, Table, terminal
from vitcompress.pipeline.report.terminal import table


def cells(text: str, start: str) -> list[str]:
    """The cells of the first Markdown table line that starts with ``start``."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def judged(given: Records, rows: Sequence[Any], passed: bool = False) -> Records:
    return replace(given, gates=GatesRecord(rows=tuple(rows), passed=passed))


def test_markdown_shows_the_numbers_of_the_report(case: Records) -> None:
    report = report_of(case)
    text = render(report)
    row = next(row for row in report["models"] if row["deployed"])
    low, high = (f"{1.23 + side:.2f}" for side in (-0.9, 0.9))
    line = cells(text, f"| **{row['label']}**")
    assert line[1:3] == ["91.07 [89.37, 92.77]", f"1.23 [{low}, {high}]"]
    assert line[3].startswith(f"{row['latency']['1']['p50_ms']['value']:.1f} [")
    assert line[4].startswith(f"{row['latency']['1']['speedup']['value']:.2f}x [")
    assert line[5].startswith(f"{row['latency']['1']['speedup_deployed']['value']:.2f}x [")
    assert line[6:] == [f"{row['bytes'] / 1e6:.2f}"]
    assert "(verify.teacher_reference): teacher, torch (371 ms), the fastest; others: teacher, ONNX CPU" in text
    assert "for there is none in their precision" not in text
    details = text.partition("<summary>Everything measured</summary>")[2]
    costs = [f"{row['parameters'] / 1e6:.2f} M", f"{row['macs'] / 1e9:.2f} G"]
    assert cells(details, f"| {row['label']}")[1:] == ["99.00", "99.70 [99.10, 99.90]", "3.25", *costs]
    deploying = cells(details.partition("What it takes to deploy")[2], f"| {row['label']}")
    file, package = row["bytes"] / 1e6, (row["bytes"] + 58e6) / 1e6
    assert deploying[1:] == [f"{file:.2f}", f"{package:.0f}", "220 [216, 276]", "120", "45.5", "55.0", "151"]
    assert "Energy, unmeasured: only root may read the processor's energy counter." in details
    line = cells(details, f"| {row['label']} | 8 ")
    assert line[2].startswith(f"{row['latency']['8']['p50_ms']['value']:.0f} [")
    assert line[-1] == f"{row['throughput']['8']['value']:.1f}"


def test_markdown_renders_as_tables_and_folds_after_the_verdict(case: Records) -> None:
    text = render(report_of(case))
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<table>") == len(re.findall(r"^\| ---", text, re.MULTILINE)) > 3
    assert html.count("<details>") == html.count("</details>") == text.count("<details>")
    assert text.startswith("## PASS: deit_tiny_patch16_224 from cait_s24_224")
    assert html.index("<h2>PASS") < html.index("<table>") < html.index("<details>")
    assert "compress run --teacher cait_s24" in text.split("<summary>How to reproduce</summary>")[1]
    assert "- Images are 64 px instead of 224 px." in text


def test_an_engine_on_a_gpu_is_told_in_trtexecs_terms(lift: Records) -> None:
    assert "Enqueue Time" not in render(report_of(lift))
    why = "no CUDA graph: CUDA call cuStreamEndCapture failed"
    for graph_reason in ("", why):
        text = render(report_of(engine_measured(lift, graph_reason=graph_reason)))
        table = text[text.index("| engine | batch | CUDA graph") :]
        name = f"| student {lift.export.deployed} fp16, TensorRT-RTX"
        assert cells(table, f"{name} | 8 | no")[3:] == [
            "0.210", "0.400", "3.200", "0.004", "3.604 (p99 4.325)", "0.0312 [0.0309, 0.0316]"
        ]  # fmt: skip
        in_graph = (
            ["(a)"] * 5 + ["-"] if graph_reason else ["0.012", "0.400", "3.200", "0.004", "3.604 (p99 4.325)", "-"]
        )
        assert cells(table, f"{name} | 8 | yes")[3:] == in_graph
        assert (why in text) == bool(graph_reason)
        assert "1410 to 1695 MHz" in text
        assert "power 72 W, idle 32 W" in text
        assert "software power cap 40%" in text


def test_unmeasured_is_never_a_number_or_a_pass(case: Records) -> None:
    why = NO_GPU if case.export.engines[0].status == "built" else NO_ENGINE
    text = render(report_of(case))
    engine = cells(text, f"| student {case.export.deployed} fp16, TensorRT-RTX engine")
    assert not any(character.isdigit() for cell in engine[1:5] for character in cell)
    assert f"unmeasured: {why}" in text
    row = cells(text, "| engine accuracy drop")
    assert (row[1], row[3]) == ("– unmeasured", "unmeasured")


def test_flips_and_the_classes_that_lost_the_largest_share(lift: Records) -> None:
    report = report_of(lift)
    text = render(report)
    assert "lost 31 images (teacher right, it wrong) and won 18; 7 more are wrong in another way." in text
    assert "largest losses: `e` 92 to 82 of 100, `b` 92 to 88 of 100, `a` 92 to 91 of 100." in text
    report["class_images"] = [100] * 9 + [10]
    for row in report["accuracy"]:
        row["class_right"] = [90] * 9 + [9] if row["model"] == "teacher" else [89, 88, 87, 86, 85, 84, 90, 91, 90, 1]
    text = render(report)
    assert "largest losses: `j` 9 to 1 of 10, `f` 90 to 84 of 100, `e` 90 to 85 of 100, `d` 90 to" in text
    assert "`c` 90 to 87 of 100, and 2 more." in text


def test_text_of_others_breaks_no_table_and_mentions_nobody(lift: Records) -> None:
    data = lift.data.model_copy(update={"classes": ("<b>@all`|x", *"bcdefghij")})
    row = lift.gates.rows[1].model_copy(update={"why": "a | b\n<script>"})
    text = render(report_of(judged(replace(lift, data=data), [row], passed=True)))
    assert "a \\| b &lt;script>" in text
    assert "`<b>@all'\\|x` 92 to 91" in text
    assert "@" not in re.sub(r"`[^`]*`", "", text)


@pytest.mark.parametrize("open_part", ["## FAIL\n" + "short – line\n" * 20_000, "## FAIL\n" + "y" * 3 * MOST])
def test_what_is_too_long_for_a_comment_is_left_out_and_said(open_part: str) -> None:
    assert fitted("one", {"title": "body"}) == "one\n\n<details>\n<summary>title</summary>\n\nbody\n\n</details>\n"
    half = "é" * (MOST // 4)
    text = fitted("verdict", {"first": half, "second": half, "third": "short"})
    assert len(text.encode()) <= MOST
    assert half in text
    assert "<summary>second</summary>\n\nLeft out here for its length" in text
    cut = fitted(open_part, {"fold": "body"})
    assert len(cut.encode()) <= MOST
    assert cut.startswith("## FAIL\n")
    assert cut.count("Left out here for its length") == 2


def test_an_enormous_report_fits(lift: Records) -> None:
    rows = [gate("min_accuracy", "onnx", 90.0, "unmeasured", None, False, f"{i} " + "why " * 300) for i in range(400)]
    report = report_of(judged(lift, rows, passed=True), notes=["n" * 1000] * 100, command="run " + "x" * 100_000)
    text = render(report)
    assert len(text.encode()) <= MOST
    assert text.startswith("## UNDECIDED: deit_tiny")


def test_precisions_and_engines_say_what_they_are_made_of_and_where_they_ended_up(lift: Records) -> None:
    text = render(report_of(lift))
    fp16 = cells(text, "| fp16 | half precision")
    assert fp16[2:7] == ["0.0012", "1", "48 fp16, 1 fp32", "11.51", "yes"]
    assert "- No int8: top-1 agrees on 12 % of the images" in text
    assert cells(text, "| teacher, tensorrt-rtx 1.2.0")[-1] == "no: to compare with"
    engine = cells(text, "| tensorrt-rtx 1.2.0")
    traced = "48 fp16, 1 unknown; 68 of 70 layers traced"
    assert engine[2:] == ["49 float16", traced, "8.9, 12.0 (documented default)", "-", "23.46", "yes"]
    assert "TF32" in text
    assert "Recommended in ONNX Runtime: fp32 (no other is faster)." in text
    assert "Recommended as engine: tensorrt-rtx fp16 (no engine was measured here)." in text
    assert "differ from the kept one's by at most 1.8e-07 over 64 images" in text
    assert "kept one's" not in render(report_of(CASES["plain"]))


def test_an_engine_that_is_not_what_its_graph_asks_says_which_products(lift: Records) -> None:
    built = lift.export.engines[0]
    assert built.trace is not None
    widened = {f"node_{index}": "int8 asked for, fp32 built" for index in range(5)}
    trace = built.trace.model_copy(update={"otherwise": widened, "products": {"int8": 67, "fp32": 31}})

    def rendered(**changes: Any) -> str:
        export = lift.export.model_copy(update={"engines": (built.model_copy(update=changes),)})
        return render(report_of(replace(lift, export=export)))

    said = "tensorrt-rtx fp16, 5 of 98 matrix products: int8 asked for, fp32 built (node_0, node_1, node_2 and 2 more)."
    assert said in rendered(trace=trace).replace("\\", "")
    assert cells(rendered(trace=None), "| tensorrt-rtx 1.2.0")[3] == "40 float16, 1 float32"
    assert cells(rendered(trace=None, built_layers=None), "| tensorrt-rtx 1.2.0")[3] == "not told"


def test_classes_of_the_recommended_engine_are_shown_where_it_was_measured(lift: Records) -> None:
    report = report_of(lift)
    before = report_tables.classes(report)
    assert before is not None
    assert "tensorrt-rtx fp16 right" not in {column.name for column in before.columns}
    (row,) = (one for one in report["accuracy"] if (one["model"], one["runtime"]) == ("lift-folded", "tensorrt-rtx"))
    row["class_right"] = list(range(10))
    table = report_tables.classes(report)
    assert table is not None
    shown = table.shown(Output.DETAILS)
    at = [column.name for column in shown.columns].index("tensorrt-rtx fp16 right")
    assert {cells[0].text: cells[at].text for cells in shown.rows} == dict(zip("abcdefghij", "0123456789", strict=True))


def test_times_taken_before_they_had_settled_and_odd_images_are_told(lift: Records) -> None:
    assert not re.search("still falling|byte for byte", render(report_of(lift)))
    rows = [
        row.model_copy(update={"settled": row.batch == 1 or (row.model, row.precision) != ("teacher", "fp32")})
        for row in lift.verify.latency
    ]
    odd = {"duplicates": 12, "dropped": ("a/1.png", "a/2.png"), "contradictory": 4, "left_out": ("a/3.png",)}
    changed = {"verify": lift.verify.model_copy(update={"latency": tuple(rows)})}
    text = render(report_of(replace(lift, data=lift.data.model_copy(update=odd), **changed)))
    assert "Times were still falling when warm-up ended, in one session or more: teacher, ONNX CPU at batch 8." in text
    assert (
        "(the folder's own val); 12 held-out images in training too, byte for byte "
        "(2 training images left out for it); 4 training images with a copy in another class; "
        "1 images that cannot be used left out"
    ) in text


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_has_one_line_a_model_and_fits(case: Records, width: int) -> None:
    lines = printed(table(report_of(case)), width).splitlines()
    assert max(len(line) for line in lines) <= width
    deployed = next(line for line in lines if line.lstrip().startswith(">"))
    # Everything of the deployed model in one unwrapped line.
    assert {"91.07", "-1.23", "23.12" if "lift" in case.export.deployed else "22.97"} <= set(deployed.split())
    assert lines[0].startswith("PASS (exit code 0)")


def test_terminal_names_what_failed_first_in_words(lift: Records) -> None:
    first = lift.gates.rows[0]
    rows = [
        first.model_copy(update={"verdict": verdict, "required": required, "artifact": verdict, "limit": 0.1})
        for verdict, required in (("inconclusive", False), ("unmeasured", True), ("fail", False))
    ]
    export = lift.export.model_copy(update={"not_made": ("int8 ONNX: Too Far",)})
    text = printed(table(report_of(judged(replace(lift, export=export), rows))), 120)
    assert text.startswith("FAIL (exit code 1)")
    assert "FAIL fail accuracy drop: 1.23 [0.33, 2.13] points; limit at most 0.1 points." in text
    places = [text.index(f"{word} ") for word in ("UNMEASURED unmeasured", "FAIL fail", "INCONCLUSIVE (not required)")]
    assert places == sorted(places)
    assert "Not made: int8 ONNX: Too Far" in text


def test_terminal_reads_no_markup(lift: Records) -> None:
    assert "Note: [red]odd[/red]" in printed(table(report_of(lift, notes=["[red]odd[/red]"])))


def test_a_terminal_table_has_intervals_where_they_are_asked_for() -> None:
    given = {"value": 1.234, "low": 1.0, "high": 2.0, "reason": ""}
    rows = Table("", [Column("value", lambda row: given, ".2f", shown=Output.TERMINAL)], ["row"])
    assert printed(terminal(rows)).split()[-1:] == ["1.23"]
    assert printed(terminal(rows, intervals=True)).split()[-3:] == ["1.23", "[1.00,", "2.00]"]
