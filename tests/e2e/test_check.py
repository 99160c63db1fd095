"""A regression from end to end: a harmed student is exported and measured, and `compress check` names the cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harm import add_block, damage_last_block
from running import Finished, Result, in_process, sets

ONNX = sets("check.artifacts=[onnx-fp32]", "check.require=[onnx-fp32]")
"""One artifact, whichever precision measured fastest when the run was made."""
AGAIN = ("--target", "onnx", "--precision", "fp32")


@pytest.fixture
def baseline(finished: Finished, tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    done = in_process("check", finished.root, "--baseline", path, "--update")
    assert done.code == 0, done.err
    assert f"baseline {path} written" in done.out
    return path


def failures(done: Result) -> list[str]:
    return [line for line in done.out.splitlines() if line.startswith("FAIL onnx")]


def test_the_unharmed_run_passes_and_the_baseline_stays(finished: Finished, baseline: Path, tmp_path: Path) -> None:
    before = baseline.read_bytes()
    done = in_process("check", finished.root, "--baseline", baseline, "--output", tmp_path / "out")
    assert done.code == 0, done.out + done.err
    assert failures(done) == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check.json", "check.md", "check.junit.xml"}
    assert baseline.read_bytes() == before


@pytest.mark.usefixtures("exported_before")
def test_a_damaged_block_is_caught_and_named(run_copy: Path, baseline: Path) -> None:
    damage_last_block(run_copy, std=10.0)
    for graph in (run_copy / "export").glob("student-*.onnx"):  # the teacher's is that of its weights still
        graph.unlink()
    exported = in_process("export", run_copy, *AGAIN)
    assert exported.code == 0, exported.err
    assert "distill  reused" in exported.err
    done = in_process("check", run_copy, "--baseline", baseline, *ONNX)
    assert done.code == 1, done.out + done.err
    (line,) = failures(done)
    assert "of top-1 lost against the baseline, on the same images" in line


def with_times(report: Path, factor: float, seed: int) -> None:
    """Replace the sessions' times by steady ones, ``factor`` times as long for the student."""
    content: dict[str, Any] = json.loads(report.read_text())
    rng = np.random.default_rng(seed)
    for row in content["latency"]:
        if row["session_p50_ms"]:
            middle = 4.0 if row["model"] == "teacher" else factor
            row["session_p50_ms"] = [float(time) for time in middle * np.exp(rng.normal(0, 0.002, 10))]
    report.write_text(json.dumps(content))


def test_a_slower_student_is_caught_and_named(run_copy: Path, baseline: Path) -> None:
    report = run_copy / "report" / "report.json"
    with_times(report, 1.0, seed=0)
    assert in_process("check", run_copy, "--baseline", baseline, "--update").code == 0
    with_times(report, 1.0, seed=1)
    steady = in_process("check", run_copy, "--baseline", baseline, *ONNX)
    assert (steady.code, failures(steady)) == (0, [])
    with_times(report, 1.1, seed=2)
    done = in_process("check", run_copy, "--baseline", baseline, *ONNX)
    assert done.code == 1, done.out + done.err
    (line,) = failures(done)
    assert "slower against the teacher than the baseline; limit 3 %." in line


@pytest.mark.slow  # its verdict depends on the machine
def test_an_extra_block_is_caught_by_the_clock(run_copy: Path, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    timing = sets("verify.latency_seconds=20")
    assert in_process("export", run_copy, *AGAIN).code == 0
    assert in_process("verify", run_copy, *timing).code == 0
    assert in_process("check", run_copy, "--baseline", path, "--update").code == 0
    add_block(run_copy, copies=2)
    assert in_process("export", run_copy, *AGAIN).code == 0
    done = in_process("check", run_copy, "--baseline", path)
    assert done.code == 1, done.out + done.err
    (line,) = failures(done)
    assert "slower against the teacher than the baseline" in line
