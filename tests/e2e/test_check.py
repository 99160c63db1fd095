"""A regression from end to end: a harmed student is exported and measured, and `compress check` names the cause."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Result, in_process
from harm import damage_last_block
from running import Finished, sets

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
    assert any(line.startswith("FAIL onnx-fp32 loss of top-1: ") for line in failures(done)), done.out
