"""Reports that were written keep the published schema; reports that are read are sound, or refused in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from measured_reports import measured_report
from sample_reports import CASES, report_of

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.markdown import render
from vitcompress.pipeline.report.schema import load_report
from vitcompress.pipeline.report.schema_file import PATH, text
from vitcompress.pipeline.report.shape import NEW_IN_3

LAST = Path(__file__).parent / "data" / "report-2.json"
"""Written by the last version that wrote schema 2."""


def problems(report: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(json.loads(PATH.read_text()))
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(report)]


def saved(folder: Path, content: Any) -> Path:
    path = folder / "report.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_the_published_schema_is_that_of_the_code() -> None:
    assert PATH.read_text() == text(), "write it anew: python -m vitcompress.pipeline.report.schema_file"
    jsonschema.Draft202012Validator.check_schema(json.loads(text()))


def test_the_schema_describes_its_keys() -> None:
    parts = json.loads(text())["$defs"]
    assert parts["LatencyRow"]["properties"]["session_p50_ms"]["description"].startswith("Median of each session, mill")
    assert parts["Gate"]["properties"]["required"]["description"].startswith("Whether this verdict")  # of its base


def test_every_report_keeps_the_schema(case: Records) -> None:
    assert problems(report_of(case)) == []
    assert problems(measured_report(case)) == []
    lost = replace(case, distill=case.distill.model_copy(update={"losses": {"ce": float("nan")}}))
    assert problems(report_of(lost, history=[{"training": "distill", "epoch": 1, "loss": float("inf")}])) == []


def test_a_report_is_read_as_it_was_written(case: Records, tmp_path: Path) -> None:
    report = measured_report(case)
    path = saved(tmp_path, report)
    assert load_report(path) == report
    run = tmp_path / "run"
    (run / "report").mkdir(parents=True)
    path.rename(run / "report" / "report.json")
    assert load_report(run) == report


def test_the_last_versions_report_still_loads_and_nothing_is_made_up() -> None:
    old = json.loads(LAST.read_text())
    assert old["schema_version"] == 2
    old["artifacts"]["preprocess"] |= {"exif_orientation": False, "transparency": "dropped"}  # as it read files
    report = load_report(LAST)
    assert problems(report) == []
    for key in ("verdict", "headline", "gates", "artifacts", "config", "command"):
        assert report[key] == old[key]
    new = ("shares", "first_shares", "gradient_norms", "first_gradient_norms", "scales")
    assert [report["training"]["distill"].pop(key) for key in new] == [{}] * 5
    assert [report["training"]["distill"].pop(key) for key in ("precision", "images", "left_over")] == ["", 0, 0]
    for key, held in old["training"].items():
        assert report["training"][key] == held
    assert (report["training"]["control"], report["findings"]) == (None, [])
    assert report["schema_version"] == 3
    assert (report["flips"], report["hardware"], report["images_digest"]) == ([], None, "")
    assert {row["agreement"]["reason"] for row in report["models"]} == {NEW_IN_3}
    assert {tuple(row["session_p50_ms"]) for row in report["latency"]} == {()}
    assert {row["right"] for row in report["accuracy"]} == {""}
    assert render(report).startswith("## PASS")


def without(*path: str | int) -> Callable[[dict[str, Any]], Any]:
    """A report less one key."""

    def cut(report: dict[str, Any]) -> Any:
        value: Any = report
        for part in path[:-1]:
            value = value[part]
        del value[path[-1]]
        return report

    return cut


def as_text(change: Callable[[str], str]) -> Callable[[dict[str, Any]], Any]:
    return lambda report: change(json.dumps(report)).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (as_text(lambda text: text[: len(text) // 2]), "is damaged or no JSON"),
        (as_text(lambda text: ""), "is damaged or no JSON"),
        (as_text(lambda text: text.replace("1000", "NaN", 1)), "NaN is no JSON number"),
        (as_text(lambda text: text.replace("1000", "1e999", 1)), "1e999 is too large"),
        (as_text(lambda text: text.replace("1000", "9" * 5000, 1)), "is damaged"),
        (as_text(lambda text: "[" * 100_000), "nested too deeply"),
        (lambda report: json.dumps(report).encode("utf-16"), "is not UTF-8 text (byte 0)"),
        (lambda report: b"\x00\xff\x10" * 50, "is not UTF-8 text (byte 1)"),
        (lambda report: [report], "holds a list, not a JSON object"),
        (lambda report: None, "holds null, not a JSON object"),
        (lambda report: {}, "it holds nothing"),
        (lambda report: {"kind": "compress-baseline", "schema_version": 1}, "its kind is 'compress-baseline'"),
        (lambda report: {"name": "x", "version": "1"}, "it holds 'name', 'version'"),
        (lambda report: {**report, "schema_version": "3"}, "its schema_version is '3'"),
        (lambda report: {**report, "schema_version": True}, "its schema_version is 'True'"),
        (
            lambda report: {**report, "schema_version": 4},
            "schema 4, written by a newer compress; this version reads 2 t",
        ),
        (
            lambda report: {**report, "schema_version": 1},
            "schema 1, written by an older compress; this version reads 2",
        ),
        (without("models"), "what schema 3 promises ('models': field required)"),
        (without("models", 1, "label"), "('models.1.label': field required)"),
        (lambda report: {**report, "gates": "none"}, "'gates': input should be a valid array"),
        (lambda report: {**report, "extra": 1}, "('extra': extra inputs are not permitted)"),
        (lambda report: {**report, "pinned": ["a", "b"]}, ", and 1 more)"),
    ],
)
def test_what_is_no_sound_report_is_refused_in_one_sentence(
    content: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, content(report_of(CASES["plain"])))
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        load_report(path)
    message = str(caught.value)
    assert said in message
    assert str(path) in message
    assert "\n" not in message
    assert "compress verify RUN" in message or "give a run directory" in message  # what to do
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nothing.json", "does not exist; give a run directory"),
        ("empty", "has no report"),
        ("report.json/below", "does not exist; give a run directory"),
        ("pipe", "is no regular file"),
        ("folder", "report.json' is a folder"),
        ("huge.json", "has 257 MiB, more than the 256"),
    ],
)
def test_where_there_is_no_report(place: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder" / "report" / "report.json").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(257 * 2**20)  # of no blocks
    saved(tmp_path, {})
    with pytest.raises(UsageError) as caught:
        load_report(tmp_path / place)
    assert said in str(caught.value)


def test_reading_needs_neither_torch_nor_a_runtime() -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom vitcompress.pipeline.report.schema import load_report\n"
        "load_report(Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'timm', 'onnx', 'onnxruntime', 'scipy', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, LAST], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
