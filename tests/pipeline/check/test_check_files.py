"""Files that `compress check` reads and writes: what it makes of sound ones, and of every kind of broken one."""

from __future__ import annotations

import json
import xml.etree.ElementTree as Xml
from pathlib import Path
from typing import Any

import pytest
from command_line import in_process
from made_runs import ELSEWHERE, made, written

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.check.baseline import load_baseline, text_of
from vitcompress.pipeline.check.command import check, renew
from vitcompress.pipeline.config import parse_sets


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_sound_run_passes_and_what_was_compared_is_written(run: Path, baseline: Path) -> None:
    told = in_process("check", run, "--baseline", baseline)
    assert told.code == 0
    assert told.out.startswith("PASS (exit code 0)")
    found = json.loads((run / "report" / "check.json").read_text())
    assert (found["kind"], found["verdict"]["word"]) == ("compress-check", "PASS")
    assert {"gate", "artifact", "limit", "value", "low", "high", "verdict", "required", "why", "label"} <= set(
        found["rows"][0]
    )
    assert (run / "report" / "check.md").read_text().startswith("# PASS against the baseline: ")
    suite = Xml.fromstring((run / "report" / "check.junit.xml").read_text())  # noqa: S314 - written just now
    assert (suite.get("failures"), suite.get("tests")) == ("0", str(len(found["rows"])))


def test_a_regression_fails_with_its_cause_on_one_line(run: Path, baseline: Path, tmp_path: Path) -> None:
    evil = ELSEWHERE.model_copy(update={"processor": "[red]<b>|x[/nope]"})
    written(run, made(lost=40, slower=1.15, seed=3, hardware=evil))
    told = in_process("check", run, "--baseline", baseline, "--output", tmp_path / "out")
    assert told.code == 1
    out = told.out
    lines = [line for line in out.splitlines() if line.startswith("FAIL onnx")]
    assert [line.partition(":")[0] for line in lines] == [
        "FAIL onnx (fp32) loss of top-1",
        "FAIL onnx (fp32) slowdown since the baseline, relative to the teacher",
    ]
    page = (tmp_path / "out" / "check.md").read_text()
    assert lines[0] in page
    sides = {
        row.split(" | ")[0]: row.split(" | ")[1:] for row in page.splitlines() if row.startswith("| artifact onnx")
    }
    kept, now, change = sides["| artifact onnx-fp32 size"]
    assert (kept, change) == (now, "+0.0 % |")
    assert sides["| artifact onnx-fp32 top-1"][2].startswith("-")
    assert 5 < float(sides["| artifact onnx-fp32 batch 1"][2].split()[0]) < 25
    assert "[red]<b>" in out  # text of a report is never read as markup
    assert "<b>" not in page
    suite = Xml.fromstring((tmp_path / "out" / "check.junit.xml").read_text())  # noqa: S314 - written just now
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failed == [
        "onnx (fp32) loss of top-1 at most 0 points",
        "onnx (fp32) slowdown since the baseline, relative to the teacher at most 3 %",
    ]
    assert not (run / "report" / "check.json").exists()


def test_settings_of_the_run_hold_unless_the_command_says_otherwise(run: Path, baseline: Path) -> None:
    report = made(lost=40)
    report["config"]["check"] = {"max_accuracy_loss": 9.0, "artifacts": ["onnx"]}
    written(run, report)
    assert check(run, baseline, {}, None)["verdict"]["word"] == "PASS"
    assert check(run, baseline, {"check": {"max_accuracy_loss": 1.0}}, None)["verdict"]["word"] == "FAIL"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("check.max_slow=1", "unknown key 'check.max_slow'; did you mean max_slowdown"),
        ("max_slowdown=5", "can change settings of check, not of max_slowdown"),
    ],
)
def test_settings_that_are_not_there_are_refused(run: Path, baseline: Path, setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(run, baseline, parse_sets([setting]), None)


def test_a_baseline_is_small_sorted_and_read_back_as_it_was(baseline: Path) -> None:
    text = baseline.read_text()
    assert json.loads(text) == json.loads(json.dumps(json.loads(text), sort_keys=True))
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert text_of(load_baseline(baseline)) == text
    assert len(text) < 8000
    assert any(line.strip().startswith('"1": [') and line.rstrip().endswith(("]", "],")) for line in text.splitlines())


def test_update_tells_what_it_writes_and_what_changes(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "baseline.json"
    first = renew(run, path, force=False)
    assert first[0] == f"baseline {path} written"
    assert any(line.startswith("  artifact onnx-fp32 top-1: ") for line in first)
    before = path.read_bytes()
    assert renew(run, path, force=False) == [f"baseline {path} is as this run measured it; left as it is"]
    assert path.read_bytes() == before
    written(run, made(lost=10, seed=4, hardware=ELSEWHERE))
    told = renew(run, path, force=False)
    assert told[0] == f"baseline {path} replaced"
    assert "  artifact onnx-fp32: 10 of 1000 images turn right or wrong" in told
    assert any(line.startswith("  hardware: A processor") for line in told)
    assert any(line.startswith("  artifact onnx-fp32 top-1: ") and " -> " in line for line in told)
    assert check(run, path, {}, None)["verdict"]["passed"]


def test_a_run_that_failed_its_gates_or_another_network_needs_force(run: Path, baseline: Path) -> None:
    before = baseline.read_bytes()
    written(run, made(lost=5, gates={"passed": False}))
    with pytest.raises(UsageError, match=r"failed its own gates .* --force"):
        renew(run, baseline, force=False)
    written(run, made(case="lift"))
    with pytest.raises(UsageError, match=r"of something else \(strategy plain, here lift\).*--force"):
        renew(run, baseline, force=False)
    assert baseline.read_bytes() == before
    with pytest.raises(UsageError, match=r"strategy plain, here lift.* Nothing was compared"):
        check(run, baseline, {}, None)
    models = "deit_tiny_patch16_224 from cait_s24_224, "
    replaced = f"  models: {models}plain; deployed plain -> {models}lift; deployed lift-folded"
    assert replaced in renew(run, baseline, force=True)
    written(run, made(case="lift", gates={"passed": False}))
    found = check(run, baseline, {}, None)
    assert found["verdict"]["passed"]
    assert any("failed its own gates" in note for note in found["notes"])


def edit(file: Path, path: str, value: Any) -> None:
    """Set what stands at a path in a JSON file."""
    content = json.loads(file.read_text())
    place, (*outer, last) = content, path.split("/")
    for key in outer:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = value
    file.write_text(json.dumps(content))


def refused(run: Path, baseline: Path, *more: str) -> str:
    """The one line with which both are refused, with nothing changed on disk."""
    before = snapshot(baseline.parent)
    told = in_process("check", run, "--baseline", baseline, *more)
    assert (told.code, told.out) == (2, "")
    assert snapshot(baseline.parent) == before
    lines = told.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "internal" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "something"),
        ("schema_version", 99),
        ("extra", 1),
        ("images", None),
        ("artifacts/onnx-fp32/right", "AAAA"),  # bits of another length
        ("artifacts/onnx-fp32/right", "?"),
        ("artifacts/onnx-fp32/top1", 12.5),  # its answers say otherwise
        ("artifacts/onnx-fp32/session_p50_ms", {"1": [1e-320, 1.0]}),
        ("artifacts/onnx-fp32/session_p50_ms", {"-1": [1.0, 1.0]}),
    ],
)
def test_a_broken_baseline_is_refused_and_never_overwritten(run: Path, baseline: Path, path: str, value: Any) -> None:
    edit(baseline, path, value)
    assert str(baseline) in refused(run, baseline)
    assert str(baseline) in refused(run, baseline, "--update", "--force")


def test_a_cut_baseline_or_report_is_refused(run: Path, baseline: Path) -> None:
    report = run / "report" / "report.json"
    edit(report, "accuracy/3/right", "AAAA")
    assert str(report) in refused(run, baseline)
    for file in (report, baseline):
        file.write_bytes(file.read_bytes()[:-200])
        assert str(file) in refused(run, baseline, "--update")
        written(run, made())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--output", "BASELINE"], "cannot be written (a file is where a folder is needed); give a folder"),
        (["--update", "--set", "check.max_growth=8"], "leave them out"),
        (["--force"], "--force goes with --update alone"),
    ],
)
def test_options_that_cannot_be_used_are_refused(run: Path, baseline: Path, more: list[str], said: str) -> None:
    assert said in refused(run, baseline, *[str(baseline) if one == "BASELINE" else one for one in more])


def test_missing_and_other_files_are_refused_with_what_to_do(run: Path, baseline: Path) -> None:
    absent, report = baseline.parent / "absent.json", run / "report" / "report.json"
    assert "is no baseline; give a file" in refused(run, report)
    assert "no report of compress" in refused(baseline, baseline)
    assert f"`compress check RUN --baseline {absent} --update`" in refused(run, absent)
    report.unlink()
    assert "give the folder of a finished `compress run`" in refused(run, baseline)


def test_the_folder_that_verify_wrote_for_a_bundle_is_a_run_too(run: Path, baseline: Path) -> None:
    assert in_process("check", run / "report", "--baseline", baseline).code == 0
    assert (run / "report" / "check.md").is_file()


def test_a_run_without_sessions_is_no_baseline(run: Path, baseline: Path) -> None:
    written(run, made(sessions=0))
    assert "no timing sessions of onnx-fp32" in refused(run, baseline, "--update")
    assert check(run, baseline, {}, None)["verdict"]["word"] == "FAIL"  # what is required is unmeasured
