"""Reports that were written keep the published schema; reports that are read are sound, or refused in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sample_reports import CASES, engine_measured, report_of

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.report.document import Records
from vitcompress.pipeline.report.markdown import render
from vitcompress.pipeline.report.schema import load_report
from vitcompress.pipeline.report.schema_file import PATH, text

LAST = Path(__file__).parent / "data" / "report-3.json"


def problems(report: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(json.loads(PATH.read_text()))
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(report)]


def saved(folder: Path, content: Any) -> Path:
    path = folder / "report.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_the_published_schema_is_that_of_the_code_and_describes_its_keys() -> None:
    assert PATH.read_text() == text(), "write it anew: python -m vitcompress.pipeline.report.schema_file"
    jsonschema.Draft202012Validator.check_schema(json.loads(text()))
    parts = json.loads(text())["$defs"]
    assert parts["LatencyRow"]["properties"]["session_p50_ms"]["description"].startswith("Median of each session, mill")
    assert parts["Gate"]["properties"]["required"]["description"].startswith("Whether this verdict")  # of its base


def test_every_report_keeps_the_schema(case: Records) -> None:
    assert problems(report_of(case)) == problems(report_of(engine_measured(case, graph_reason="none"))) == []
    lost = replace(case, distill=case.distill.model_copy(update={"losses": {"ce": float("nan")}}))
    assert problems(report_of(lost, history=[{"training": "distill", "epoch": 1, "loss": float("inf")}])) == []


def test_a_report_is_read_as_it_was_written(case: Records, tmp_path: Path) -> None:
    report = report_of(engine_measured(case))
    path = saved(tmp_path, report)
    assert load_report(path) == report
    run = tmp_path / "run"
    (run / "report").mkdir(parents=True)
    path.rename(run / "report" / "report.json")
    assert load_report(run) == report


def test_a_report_of_the_last_version_still_loads_and_nothing_is_made_up() -> None:
    """Written by commit cfa835e for Swin on the digits."""
    old = json.loads(LAST.read_text())
    report = load_report(LAST)
    assert (old["schema_version"], report["schema_version"], problems(report)) == (3, 4, [])
    for key in ("verdict", "gates", "config", "command", "images_digest"):
        assert report[key] == old[key]
    old["artifacts"]["preprocess"]["bits"] = 8
    assert report["artifacts"] == old["artifacts"] | {"teacher_engines": [], "teacher_reduced": {}}
    assert [row["session_p50_ms"] for row in report["latency"]] == [row["session_p50_ms"] for row in old["latency"]]
    assert "PASS" in render(report) or "DONE" in render(report)


def test_fields_that_engines_had_before_are_left_out(tmp_path: Path) -> None:
    report = report_of(CASES["plain"])
    before = {"gpu_p50_ms": None, "gpu_p90_ms": None, "gpu_p99_ms": None, "gpu_method": ""}
    rows = [{name: value for name, value in {**row, **before}.items() if name != "gpu"} for row in report["latency"]]
    assert load_report(saved(tmp_path, {**report, "latency": rows})) == report


def without(*path: str | int) -> Callable[[dict[str, Any]], Any]:
    """A report less one key."""

    def cut(report: dict[str, Any]) -> Any:
        value: Any = report
        for part in path[:-1]:
            value = value[part]
        del value[path[-1]]
        return report

    return cut


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda report: json.dumps(report).encode()[:5000], "is damaged or no JSON"),
        (lambda report: json.dumps(report).replace("1000", "NaN", 1).encode(), "NaN is no JSON number"),
        (lambda report: [report], "holds a list, not a JSON object"),
        (lambda report: {}, "no report of compress"),
        (
            lambda report: {"kind": "compress-baseline", "schema_version": 1, "verdict": {}},
            "its kind is 'compress-baseline'",
        ),
        (lambda report: {**report, "schema_version": 2}, "schema 2, written by another version"),
        (lambda report: {**report, "schema_version": 5}, "schema 5, written by another version"),
        (lambda report: {**report, "schema_version": "4"}, "schema 4, written by another version"),
        (without("models", 1, "label"), "what schema 4 promises ('models.1.label': field required)"),
        (lambda report: {**report, "extra": 1}, "('extra': extra inputs are not permitted)"),
        (lambda report: {**report, "pinned": ["a", "b"]}, ", and 1 more)"),
    ],
)
def test_what_is_no_sound_report_is_refused_in_one_sentence(
    content: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, content(report_of(CASES["plain"])))
    with pytest.raises(UsageError) as caught:
        load_report(path)
    message = str(caught.value)
    assert said in message
    assert str(path) in message
    assert "\n" not in message
    assert "compress verify RUN" in message or "give a run directory" in message  # what to do


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nothing.json", "does not exist; give a run directory"),
        ("empty", "has no report"),
        ("report.json/below", "does not exist; give a run directory"),
    ],
)
def test_where_there_is_no_report(place: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    saved(tmp_path, {})
    with pytest.raises(UsageError) as caught:
        load_report(tmp_path / place)
    assert said in str(caught.value)


def test_reading_needs_neither_torch_nor_a_runtime(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom vitcompress.pipeline.report.schema import load_report\n"
        "load_report(Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'timm', 'onnx', 'onnxruntime', 'scipy', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", program, saved(tmp_path, report_of(CASES["lift"]))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
