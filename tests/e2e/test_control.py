"""`compress run --control labels`: the gate on the teacher's worth, passed and failed; a student that never learned."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import in_process
from running import Finished, sets

from vitcompress.pipeline.report.schema import load_report
from vitcompress.stages.models.students import FoldedLift, LiftStudent
from vitcompress.stages.verify.stage import _torch_infer as torch_infer


@pytest.fixture
def controlled_copy(controlled: Finished, tmp_path: Path) -> Path:
    """The run with a control, moved to another place, to be changed at will."""
    return Path(shutil.copytree(controlled.root, tmp_path / "moved"))


def test_a_teacher_that_is_worth_too_little_fails_the_run(controlled: Finished) -> None:
    root, result = controlled.root, controlled.result
    assert result.code == 1, result.err
    assert "FAIL student gain by the teacher over labels alone: " in " ".join(result.out.split())
    control = load_report(root)["training"]["control"]
    assert (control["epochs"], control["steps"], control["images"]) == (1, 22, 359)
    assert control["gain"]["low"] < control["gain"]["value"] < control["gain"]["high"]
    assert control["sentence"][1:] in " ".join(result.out.split())
    assert (root / "control" / "model.safetensors").is_file()


def test_another_limit_is_judged_and_nothing_trained(controlled_copy: Path) -> None:
    root = controlled_copy
    before = (root / "records" / "control.json").stat().st_mtime_ns
    passed = in_process("verify", root, *sets("gates.min_teacher_gain=-90", "verify.latency_seconds=0.2"))
    assert passed.code == 0, passed.err
    assert "control  reused" in passed.err
    (row,) = load_report(root)["gates"]
    assert (row["gate"], row["verdict"]) == ("min_teacher_gain", "pass")
    assert (root / "records" / "control.json").stat().st_mtime_ns == before


def untrained(network: Any, device: Any, images: Any) -> Any:
    """Logits of a teacher as it is, and of a student that says the same of every image."""
    logits = torch_infer(network, device, images)
    return logits if not isinstance(network, LiftStudent | FoldedLift) else np.zeros_like(logits)


def test_a_student_that_never_left_chance_ends_with_1(controlled_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitcompress.stages.verify.stage._torch_infer", untrained)
    settings = ("gates.min_teacher_gain=null", "gates.above_chance=true", "verify.latency_seconds=0.2")
    result = in_process("verify", controlled_copy, *sets(*settings))
    assert result.code == 1, result.out
    assert "never-left-chance" in [finding["code"] for finding in load_report(controlled_copy)["findings"]]
    assert "Error: the student never left chance (" in " ".join(result.out.split())
