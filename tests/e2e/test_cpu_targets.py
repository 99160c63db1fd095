"""Every target for a CPU that can be made here, all of them in one export: built, judged, bundled, used, examined.

A new target is among them as soon as it is registered; what only it does is tested with it (tests/exporters).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, in_process
from pretend_target import PretendTarget, installed
from running import NAMES as NETWORKS
from running import Finished, sets

from vitcompress.exporters import targets
from vitcompress.exporters.bundled import file_name
from vitcompress.exporters.environments import VARIABLE
from vitcompress.exporters.targets import Availability, Target
from vitcompress.pipeline.report.schema import load_report

TOLERANCE = 1e-3
"""Of probabilities, and of logits: export.tolerance."""
BUILT_IN = [name for name, one in targets.BUILT_IN.items() if one.runs_on == "cpu" and one.kind == "engine"]
NAMES = [*(name for name in BUILT_IN if targets.BUILT_IN[name].available().yes), "pretend"]
of_each = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Deployed:
    """A run with all of them in fp32, and what was said of it."""

    root: Path
    running: list[str]
    """Targets whose files run on this machine."""
    judged: dict[str, tuple[Result, list[dict[str, Any]]]]
    """By verdict: what was said with gates that each of these passes or fails, and the rows of its report."""

    def row(self, name: str) -> dict[str, Any]:
        """The report's row of the student's artifact."""
        rows = (one for one in load_report(self.root)["models"] if one["model"] != "teacher")
        return next(one for one in rows if one["runtime"] == name)


def gates(names: list[str], drop: int) -> list[str]:
    """Settings of gates on these targets; every accuracy is below the teacher's by less than 100 points."""
    artifacts = ", ".join(f"{name}-fp32" for name in names)
    named = f"gates.artifacts=[onnx, {artifacts}]", f"gates.require=[{artifacts}]"
    return sets(*named, f"gates.max_accuracy_drop={drop}")


@pytest.fixture(scope="module")
def deployed(
    finished: Finished,
    tmp_path_factory: pytest.TempPathFactory,
    takes_graphs_from_before: Callable[[pytest.MonkeyPatch], None],
) -> Iterator[Deployed]:
    root = Path(shutil.copytree(finished.root, tmp_path_factory.mktemp("targets") / "run"))
    with pytest.MonkeyPatch.context() as patch, installed(PretendTarget):
        takes_graphs_from_before(patch)
        done = in_process("export", root, "--target", ",".join(["onnx", *NAMES]), "--precision", "fp32")
        assert done.code in (0, 1), done.out + done.err  # 1: one was not built, which its own test says
        rows = load_report(root)["models"]
        running = [one["runtime"] for one in rows if one["model"] != "teacher" and one["top1"]["value"] is not None]
        running = [name for name in NAMES if name in running]
        judged = {}
        for verdict, drop in (("fail", -100), ("pass", 100)):
            said = in_process("verify", root, *gates(running, drop))
            judged[verdict] = said, load_report(root)["gates"]
        yield Deployed(root, running, judged)


@pytest.fixture(scope="module")
def examined(deployed: Deployed) -> str:
    return in_process("doctor").out + in_process("doctor", deployed.root).out


@pytest.fixture(scope="module")
def answers(deployed: Deployed, digits_folder: Path) -> dict[str, tuple[str, float]]:
    """What the bundle's own `infer.py` says to real images: label and probability by path."""
    words = [sys.executable, str(deployed.root / "bundle" / "infer.py"), str(digits_folder / "val")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {path: (label, float(share)) for path, label, share in lines}


@of_each
def test_it_answers_as_torch_and_onnx_runtime_do_or_says_why_it_was_not_run(deployed: Deployed, name: str) -> None:
    report, row = load_report(deployed.root), deployed.row(name)
    (made,) = (one for one in report["artifacts"]["engines"] if one["flavour"] == name)
    assert made["status"] == "built", made["reason"]
    if name not in deployed.running:
        assert row["top1"]["reason"]
        assert made["max_logit_difference"] == {}
        return
    (graph,) = (one for one in report["models"] if one["deployed"])
    assert row["top1"]["value"] == graph["top1"]["value"]
    assert 0 <= max(made["max_logit_difference"].values()) <= TOLERANCE
    times = row["latency"]["1"]
    assert times["p50_ms"]["low"] <= times["p50_ms"]["value"] <= times["p50_ms"]["high"]
    (of_teacher,) = (one for one in report["artifacts"]["teacher_engines"] if one["flavour"] == name)
    if of_teacher["status"] == "built":
        assert (deployed.root / of_teacher["file"]["path"]).is_file()
        assert times["speedup_against"] == "fp32"  # the teacher's, built by the same target
    else:
        assert of_teacher["reason"] in times["speedup"]["reason"]


def test_one_gate_passes_and_one_fails_for_each(deployed: Deployed) -> None:
    for verdict, (said, rows) in deployed.judged.items():
        assert said.code == (0 if verdict == "pass" else 1), said.out + said.err
        found = {one["artifact"]: one["verdict"] for one in rows if one["gate"] == "max_accuracy_drop"}
        assert {found[f"{name}-fp32"] for name in deployed.running} == {verdict}


@of_each
def test_a_baseline_is_kept_to_and_a_change_is_named(deployed: Deployed, name: str, tmp_path: Path) -> None:
    if name not in deployed.running:
        assert deployed.row(name)["top1"]["value"] is None
        return
    path, artifact = tmp_path / "baseline.json", f"{name}-fp32"
    words = "check", deployed.root, "--baseline", path
    judged = f"check.artifacts=[{artifact}]", f"check.require=[{artifact}]"
    limits = sets("check.max_slowdown=null", "check.max_growth=10", *judged)
    assert in_process(*words, "--update").code == 0
    done = in_process(*words, *limits)
    assert done.code == 0, done.out + done.err
    baseline = json.loads(path.read_text())
    baseline["artifacts"][artifact]["bytes"] //= 2
    path.write_text(json.dumps(baseline))
    done = in_process(*words, *limits)
    assert done.code == 1, done.err
    assert [line for line in done.out.splitlines() if line.startswith(f"FAIL {artifact}")], done.out


@of_each
def test_predict_answers_as_infer_py_does(
    deployed: Deployed, answers: dict[str, tuple[str, float]], digits_folder: Path, name: str
) -> None:
    words = "predict", deployed.root / "bundle", digits_folder / "val", "--top", "1", "--json"
    done = in_process(*words, "--model", f"{name} fp32")
    if name not in deployed.running:
        assert done.code == 3, done.err
        assert done.err.count("\n") == 1
        return
    assert done.code == 0, done.err
    said = {one["path"]: one["labels"][0] for one in map(json.loads, done.out.splitlines())}
    assert {path: one["label"] for path, one in said.items()} == {path: label for path, (label, _) in answers.items()}
    for path, (_, probability) in answers.items():
        assert said[path]["probability"] == pytest.approx(probability, abs=TOLERANCE)


@of_each
def test_the_bundle_has_its_files_and_doctor_knows_it(deployed: Deployed, examined: str, name: str) -> None:
    target, bundle = targets.get(name), deployed.root / "bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    (model,) = (one for one in manifest["models"] if one["name"] == f"{name} fp32")
    assert model["file"] == file_name(name, "fp32", target.suffix)
    export = json.loads((deployed.root / "records" / "export.json").read_text())
    (made,) = (one for one in export["engines"] if one["flavour"] == name)
    kept = {one["path"] for one in manifest["files"]}
    assert model["file"] in kept
    assert len([path for path in kept if path.startswith(f"model.{name}.")]) >= 1 + len(made["more"])
    assert f"{name} ({target.title}): " in examined
    state = "loads in" if name in deployed.running else "cannot be run here"
    assert f"{model['file']} {state}" in examined
    assert f"`{model['file']}`: {target.title}" in (bundle / "README.md").read_text()


@pytest.mark.parametrize("name", BUILT_IN)
def test_asked_for_by_name_without_its_library_it_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target: Target = targets.get(name)
    real, module = type(target).available, sys.modules[type(target).__module__]

    def without(self: Target) -> Availability:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(importlib.util, "find_spec", lambda *_: None)
            if hasattr(module, "find_spec"):
                patch.setattr(module, "find_spec", lambda *_: None)
            return real(self)

    monkeypatch.setenv(VARIABLE, str(tmp_path / "no environments"))
    monkeypatch.setattr(type(target), "available", without)
    done = in_process("run", *NETWORKS, "--output", tmp_path / "run", "--target", f"onnx,{name}")
    assert done.code == 3, done.err
    (line,) = done.err.splitlines()
    assert "install" in line
    assert not (tmp_path / "run").exists()


def test_help_names_every_target() -> None:
    said = "".join(in_process("run", "--help").out.split())  # a long name may be cut at its hyphen
    assert [name for name in targets.BUILT_IN if name not in said] == []
