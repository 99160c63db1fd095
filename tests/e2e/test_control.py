"""`compress run --control labels`: the gate on the teacher's worth, passed and failed; a student that never learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running import NAMES, TINY, Result, in_process, sets

QUICK = (*TINY, "teacher.epochs=1", "distill.epochs=1")
FILES = ("--target", "onnx", "--precision", "fp32")


def run(root: Path, *settings: str, control: bool = True) -> Result:
    asked = ("--control", "labels") if control else ()
    return in_process("run", *NAMES, *sets(*QUICK, *settings), *FILES, *asked, "--output", root)


def report_of(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "report" / "report.json").read_text()))


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    root = tmp_path_factory.mktemp("control") / "run"
    return root, run(root, "gates.min_teacher_gain=60")


def test_a_teacher_that_is_worth_too_little_fails_the_run(controlled: tuple[Path, Result]) -> None:
    root, result = controlled
    assert result.code == 1, result.err
    assert "FAIL student gain by the teacher over labels alone: " in " ".join(result.out.split())
    control = report_of(root)["training"]["control"]
    assert (control["epochs"], control["steps"], control["images"]) == (1, 22, 359)
    assert control["gain"]["low"] < control["gain"]["value"] < control["gain"]["high"]
    assert control["sentence"][1:] in " ".join(result.out.split())
    assert 'name="min_teacher_gain"' not in (root / "report" / "junit.xml").read_text()  # it is a property's value
    assert 'value="min_teacher_gain"' in (root / "report" / "junit.xml").read_text()
    assert (root / "control" / "model.safetensors").is_file()


def test_another_limit_is_judged_and_nothing_trained(controlled: tuple[Path, Result]) -> None:
    root, _ = controlled
    before = (root / "records" / "control.json").stat().st_mtime_ns
    passed = in_process("verify", root, *sets("gates.min_teacher_gain=-90", "verify.latency_seconds=0.2"))
    assert passed.code == 0, passed.err
    assert "control  reused" in passed.err
    (row,) = report_of(root)["gates"]
    assert (row["gate"], row["verdict"]) == ("min_teacher_gain", "pass")
    assert (root / "records" / "control.json").stat().st_mtime_ns == before


def test_a_limit_without_a_control_is_refused_at_once(tmp_path: Path) -> None:
    refused = run(tmp_path / "run", "gates.min_teacher_gain=0.5", control=False)
    assert refused.code == 2
    assert "give `compress run ... --control labels`, or leave the limit out." in refused.err
    assert not (tmp_path / "run").exists()


def test_a_student_that_never_left_chance_ends_with_1(tmp_path: Path) -> None:
    root = tmp_path / "run"
    still = ("distill.lr=1.0e-9", "distill.min_lr=0", "distill.warmup_lr=0", "gates.above_chance=true")
    result = run(root, *still, control=False)
    report = report_of(root)
    assert "control" not in result.err
    assert report["training"]["control"] is None
    assert result.code == 1, result.out
    assert report["findings"][0]["code"] == "never-left-chance"
    assert "Error: the student never left chance (" in " ".join(result.out.split())
