"""`compress compare-targets`: which artifact of a run is chosen for a budget, and what is said where none is."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from check.made_runs import IMAGES, made, written
from command_line import in_process

import vitcompress as vc
from vitcompress.core.bits import packed

ARTIFACTS = {
    # images right, ms (the interval is 1 ms to each side), bytes
    "onnx-fp32": (900, 40.0, 22_000_000),
    "onnx-fp16": (899, 30.0, 11_000_000),  # wrong on one image more: nobody can tell them apart
    "tensorrt-rtx-fp32": (900, 45.0, 30_000_000),  # slower and larger than the first
    "onnx-int8": (860, 20.0, 6_000_000),  # worse for sure
}


def quantity(value: float, spread: float = 0.0) -> dict[str, Any]:
    return {"value": value, "low": value - spread or None, "high": value + spread or None, "reason": ""}


def saved(folder: Path, *, answers: bool = True, **gates: Any) -> Path:
    """A run with these artifacts, all of them wrong on the last images; and one that was not measured."""
    report = made()
    row = next(one for one in report["models"] if one["deployed"])
    answered = next(one for one in report["accuracy"] if one["model"] == row["model"] and one["runtime"] == "onnx")
    report["models"] = [one for one in report["models"] if one["model"] == "teacher" or one["runtime"] == "torch"]
    report["accuracy"] = [one for one in report["accuracy"] if one["model"] == "teacher"]
    for name, (right, ms, size) in ARTIFACTS.items():
        one, (runtime, _, precision) = copy.deepcopy(row), name.rpartition("-")
        one |= {"runtime": runtime, "precision": precision, "bytes": size, "deployed": name == "onnx-fp32"}
        one |= {"top1": quantity(right / 10, 1.9), "drop": quantity(90.5 - right / 10, 0.5)}
        one |= {"package": quantity(size + 50_000_000), "memory": quantity(100_000_000)}
        one["cold_start"] = {"value": 200.0, "low": 190.0, "high": 260.0, "reason": ""}
        one["latency"]["1"]["p50_ms"] = quantity(ms, 1.0)
        report["models"].append(one)
        bits = packed(np.arange(IMAGES) < right) if answers else ""
        report["accuracy"].append({**answered, "runtime": runtime, "precision": precision, "right": bits})
    absent = copy.deepcopy(row) | {"runtime": "another-target", "precision": "fp32", "deployed": False}
    absent["top1"] = {"value": None, "low": None, "high": None, "reason": "it runs on macOS alone"}
    report["models"].append(absent)
    report["config"]["gates"] = gates
    report["artifacts"]["bundle"]["rejected"] = [{"runtime": "onnx", "precision": "int8", "why": "it is no faster"}]
    return written(folder, report)


def test_the_fastest_is_chosen_of_those_that_cannot_be_told_from_the_best(tmp_path: Path) -> None:
    found = vc.compare_targets(saved(tmp_path / "run"))
    assert found["chosen"] == "onnx-fp16"
    assert "whose top-1 cannot be told from the highest, ONNX Runtime fp32's 90.00 %" in found["sentence"]
    pareto = {one["artifact"]: one["pareto"] for one in found["artifacts"]}
    assert pareto == {"onnx-fp32": True, "onnx-fp16": True, "tensorrt-rtx-fp32": False, "onnx-int8": True}
    assert found["unmeasured"] == [{"name": "another-target fp32", "reason": "it runs on macOS alone"}]


@pytest.mark.parametrize(
    ("limits", "gates", "expected"),
    [
        ({"max_ms": 31.0}, {}, "onnx-fp16"),  # the upper end of its interval is at the limit
        ({"max_ms": 30.5}, {}, "onnx-int8"),  # and here beyond it, though the median is not
        ({"max_mb": 6.0}, {}, "onnx-int8"),
        ({"max_mb": 5.9}, {}, None),
        ({"max_package_mb": 60.0}, {}, "onnx-int8"),
        ({"max_memory_mb": 99.0}, {}, None),
        ({"max_cold_start_ms": 255.0}, {}, None),  # the slowest start counts
        ({"max_cold_start_ms": 260.0}, {}, "onnx-fp16"),
        ({"max_mb": 6.0}, {"max_accuracy_drop": 5.0}, "onnx-int8"),
        ({"max_mb": 6.0}, {"max_accuracy_drop": 4.6}, None),  # inconclusive: its interval reaches 5
        ({"max_mb": 6.0}, {"max_accuracy_drop": 4.6, "only": {"onnx-int8": {"max_accuracy_drop": None}}}, "onnx-int8"),
        ({}, {"min_accuracy": 95.0}, None),
    ],
)
def test_what_fits_a_budget(
    limits: dict[str, float], gates: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    assert vc.compare_targets(saved(tmp_path / "run", **gates), **limits)["chosen"] == expected


def test_without_answers_the_interval_of_the_best_decides(tmp_path: Path) -> None:
    assert vc.compare_targets(saved(tmp_path / "run", answers=False))["chosen"] == "onnx-fp16"  # 86 % is below 88.1 %


def test_the_command_and_its_exit_codes(tmp_path: Path) -> None:
    run = saved(tmp_path / "run")
    done = in_process("compare-targets", run, "--max-ms", "25", "--max-mb", "30")
    assert done.code == 0
    said = "For at most 25 ms and 30 MB: ONNX Runtime int8 (20.0 ms, 6.00 MB, top-1 86.00 %). It is not in the bundle:"
    assert said in " ".join(done.out.split())
    assert max(map(len, done.out.splitlines()[:12])) <= 80
    none = in_process("compare-targets", run / "report", "--max-ms", "10", "--json")
    assert none.code == 1
    document = json.loads(none.out)
    assert document["chosen"] is None
    assert "Nearest: ONNX Runtime int8: 21.0 ms, limit 10; ONNX Runtime fp16: 31.0" in document["sentence"]
    assert document["artifacts"][0]["images_per_second"] == 25.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "4"], "batch 4 was not measured"),
        (["--machine", "a phone"], "machine 'a phone' is 0 of"),
        (["--max-ms", "-1"], "the limit max_ms=-1.0 is not usable"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    done = in_process("compare-targets", saved(tmp_path / "run"), *words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
