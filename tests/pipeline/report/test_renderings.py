from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from sample_reports import NO_ENGINE, NO_GPU, report_of

from vitcompress.core.artifact_records import GatesRecord
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.markdown import render
from vitcompress.pipeline.report.terminal import table


def shown(report, width):
    return shown_with(report, (), width)


def shown_with(report, said, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(table(report, said))
    return console.file.getvalue()


def cells(text, start):
    """The cells of the first Markdown table line that starts with ``start``."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_markdown_shows_the_numbers_of_the_report(case: Records) -> None:
    report = report_of(case)
    text = render(report)
    row = next(row for row in report["models"] if row["deployed"])
    drop, first = row["drop"], row["latency"]["1"]
    line = cells(text, f"| **{row['label']}**")
    assert line[1] == f"{row['top1']['value']:.2f}"
    assert line[2] == f"{drop['value']:.2f} [{drop['low']:.2f}, {drop['high']:.2f}]"
    assert line[3] == f"{first['p50_ms']['value']:.2f}"
    assert line[4].startswith(f"{first['speedup']['value']:.2f} [")
    assert line[5:] == [f"{row['bytes'] / 1e6:.2f}"]
    details = text.partition("<summary>Everything measured</summary>")[2]
    line = cells(details, f"| {row['label']}")
    assert line[4:6] == [f"{row['parameters'] / 1e6:.2f} M", f"{row['macs'] / 1e9:.2f} G"]
    line = cells(details, f"| {row['label']} | 8 ")
    assert line[2] == f"{row['latency']['8']['p50_ms']['value']:.2f}"


def test_markdown_starts_with_the_verdict_and_says_how_to_reproduce(case: Records) -> None:
    text = render(report_of(case))
    assert text.startswith("## PASS: deit_tiny_patch16_224 from cait_s24_224")
    assert "compress run --teacher cait_s24" in text.split("<summary>How to reproduce</summary>")[1]
    assert "- Images are 64 px instead of 224 px." in text


def test_unmeasured_is_never_a_number_or_a_pass(case: Records) -> None:
    why = NO_GPU if case.export.engines[0].status == "built" else NO_ENGINE
    text = render(report_of(case))
    engine = cells(text, f"| student {case.export.deployed} fp16, TensorRT-RTX engine")
    assert not any(character.isdigit() for cell in engine[1:5] for character in cell)
    assert f"unmeasured: {why}" in text
    gate = cells(text, "| engine accuracy drop")
    assert (gate[1], gate[3]) == ("– unmeasured", "unmeasured")


def test_graphs_are_compared_only_when_there_are_two(case: Records) -> None:
    assert ("<summary>Projector" in render(report_of(case))) == (len(case.export.student) > 1)


def test_markdown_has_the_terms_of_the_loss_unless_the_report_is_older(lift: Records) -> None:
    text = render(report_of(lift))
    assert "<summary>Terms of the loss</summary>" in text
    assert cells(text, "| feature |") == ["feature", "45.0 %", "8.7 %", "0.2", "0.4", "0.0625"]
    assert cells(text, "| ce |")[-1] == "-"
    older = lift.distill.model_copy(update={"shares": {}})
    assert "Terms of the loss" not in render(report_of(replace(lift, distill=older)))


def test_text_cannot_break_a_table(lift: Records) -> None:
    rows = (lift.gates.rows[1].model_copy(update={"why": "a | b\n<script>"}),)
    text = render(report_of(replace(lift, gates=GatesRecord(rows=rows, passed=True))))
    assert "a \\| b &lt;script>" in text


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_has_one_line_a_model_and_fits(case: Records, width: int) -> None:
    report = report_of(case)
    lines = shown(report, width).splitlines()
    assert max(len(line) for line in lines) <= width
    deployed = next(line for line in lines if line.lstrip().startswith(">"))
    # Everything of the deployed model in one unwrapped line.
    assert {"91.07", "-1.23", "23.12" if "lift" in case.export.deployed else "22.97"} <= set(deployed.split())
    assert lines[0].startswith("PASS (exit code 0)")


def test_terminal_names_what_failed_in_words(lift: Records) -> None:
    failed = lift.gates.rows[0].model_copy(update={"verdict": "fail", "limit": 0.1})
    text = shown(report_of(replace(lift, gates=GatesRecord(rows=(failed,), passed=False))), 120)
    assert text.startswith("FAIL (exit code 1)")
    assert "FAIL onnx accuracy drop: 1.23 [0.33, 2.13] points; limit at most 0.1 points." in text


def test_terminal_tells_first_what_fails_the_run(lift: Records) -> None:
    first = lift.gates.rows[0]
    rows = tuple(
        first.model_copy(update={"verdict": verdict, "required": required, "artifact": verdict})
        for verdict, required in (("inconclusive", False), ("unmeasured", True), ("fail", False))
    )
    text = shown(report_of(replace(lift, gates=GatesRecord(rows=rows, passed=False))), 120)
    places = [text.index(f"{word} ") for word in ("UNMEASURED unmeasured", "FAIL fail", "INCONCLUSIVE (not required)")]
    assert places == sorted(places)


def test_terminal_does_not_read_markup_in_the_reports_text(lift: Records) -> None:
    assert "[red]odd[/red]" in shown(report_of(lift, notes=["[red]odd[/red]"]), 80)


def test_a_note_said_before_is_not_said_again(lift: Records) -> None:
    report = report_of(lift, notes=["reduced geometry", "something else"])
    text = " ".join(shown_with(report, ["reduced geometry"]).split())
    assert "Note: something else" in text
    assert "reduced geometry" not in text
    assert render(report).count("reduced geometry") == 1


def test_hardware_that_nothing_read_back_is_called_the_documented_default(lift: Records) -> None:
    text = render(report_of(lift))
    assert "| 8.9, 12.0 (documented default) | 1 to 8 | 33.0 | 23.46 | yes |" in text
    assert "| 49 float16 | 40 float16, 1 float32 |" in text
    assert "TF32" in text


def test_precisions_say_what_they_are_made_of_and_where_they_ended_up(lift: Records) -> None:
    text = render(report_of(lift))
    fp16 = cells(text, "| fp16 | half precision")
    assert fp16[2:8] == ["0.0012", "1", "blocks.3.mlp.fc2", "48 fp16, 1 fp32", "11.51", "yes"]
    assert "- No int8: top-1 agrees on 12 % of the images" in text
    assert "Recommended in ONNX Runtime: fp32 (no other is faster)." in text
    assert "Recommended engine: tensorrt-rtx fp16 (no engine was measured here)." in text


def test_a_failure_to_make_something_is_told_first_in_the_terminal(lift: Records) -> None:
    export = lift.export.model_copy(update={"not_made": ("int8 ONNX: Too Far",)})
    text = shown(report_of(replace(lift, export=export, gates=lift.gates.model_copy(update={"passed": False}))), 120)
    assert "Not made: int8 ONNX: Too Far" in text


def test_renderings_read_only_the_report(lift: Records) -> None:
    report = report_of(lift)
    row = next(row for row in report["models"] if row["deployed"])
    row["top1"]["value"] = 12.34
    assert "12.34" in render(report)
    assert "12.34" in shown(report, 80)


def test_times_taken_before_they_had_settled_are_told(lift: Records) -> None:
    assert "still falling" not in render(report_of(lift))
    rows = tuple(
        row.model_copy(update={"settled": (row.runtime, row.batch) != ("onnx", 8)}) for row in lift.verify.latency
    )
    text = render(report_of(replace(lift, verify=lift.verify.model_copy(update={"latency": rows}))))
    assert "all 4 artifacts at batch 8." in text
    assert "Times were still falling when warm-up ended, in one session or more: " in text


def test_what_is_odd_about_the_images_is_told(lift: Records) -> None:
    assert "byte for byte" not in render(report_of(lift))
    odd = {
        "duplicates": 12,
        "dropped": ("train/a/1.png", "train/a/2.png"),
        "contradictory": 4,
        "left_out": ("a/3.png",),
    }
    text = render(report_of(replace(lift, data=lift.data.model_copy(update=odd))))
    assert (
        "(the folder's own val); 12 held-out images in training too, byte for byte "
        "(2 training images left out for it); 4 training images with a copy in another class; "
        "1 images that cannot be used left out"
    ) in text
