from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_run import teacher_record

from vitcompress.core.artifact_records import GatesRecord
from vitcompress.core.context import Context
from vitcompress.core.errors import BundleError, UsageError
from vitcompress.pipeline import cli
from vitcompress.pipeline.doctor import folder as under_test
from vitcompress.pipeline.doctor.finding import Finding
from vitcompress.pipeline.doctor.folder import examine_folder


def ending(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    assert isinstance(stop.value.code, int)
    return stop.value.code


def states(path: Path) -> dict[str, str]:
    return {finding.what: finding.state for finding in examine_folder(path)}


def about(path: Path, words: str) -> Finding:
    (found,) = [finding for finding in examine_folder(path) if words in finding.what]
    return found


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as an intact bundle, with a graph that loads and an engine."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "manifest.json").write_text("{}")
    (path / "model.engine").write_bytes(b"engine")
    weights = numpy_helper.from_array(np.ones((3 * 8 * 8, 10), np.float32), "W")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "W"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path / "model.onnx")
    monkeypatch.setattr(under_test, "open_bundle", lambda _: SimpleNamespace(labels=("a", "b")))
    monkeypatch.setattr(under_test, "gpu_present", lambda: False)
    return path


def test_an_intact_bundle_is_healthy_and_a_corrupted_one_broken(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(bundle) == {
        f"bundle: {bundle}, 2 labels, every file as it was written": "ok",
        "bundle: model.onnx loads in ONNX Runtime (float images of 8)": "ok",
        "bundle: model.engine cannot be run here: there is no NVIDIA GPU": "absent",
    }
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:900])
    found = about(bundle, "model.onnx is damaged or no ONNX file")
    assert (found.state, found.fix) == ("broken", "export it again")
    monkeypatch.undo()  # the real open_bundle
    for content, words in ((b"{}", "manifest.json has schema None"), (b"{half", "manifest.json is damaged")):
        (bundle / "manifest.json").write_bytes(content)
        assert about(bundle, words).state == "broken"
    (bundle / "manifest.json").unlink()
    assert about(bundle, "it has no manifest.json").state == "broken"


@pytest.mark.parametrize("loads", [True, False])
def test_an_engine_is_tried_where_there_is_a_gpu(bundle: Path, monkeypatch: pytest.MonkeyPatch, loads: bool) -> None:
    class Engine:
        min_batch, max_batch = 1, 8

        def __init__(self, path: Path, flavour: str) -> None:
            if not loads:
                raise BundleError(f"{path.name} cannot be loaded by {flavour}.")

        def __enter__(self) -> Engine:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(under_test, "gpu_present", lambda: True)
    monkeypatch.setattr(under_test, "installed_flavours", lambda: {"tensorrt": "11.4"})
    monkeypatch.setattr(under_test, "EngineRunner", Engine)
    found = about(bundle, "model.engine")
    if loads:
        assert found == Finding("ok", "bundle: model.engine loads in tensorrt (batches of 1 to 8)")
    else:
        assert (found.state, found.fix) == ("absent", "build the engine on this machine")
        assert "cannot be loaded by tensorrt" in found.what


def finish(context: Context) -> Path:
    """A run whose teacher and gates are done, and whose export failed."""
    run = context.run
    written = run.save_record("teacher", teacher_record(context))
    run.mark("teacher", "done", "f", record=written)
    run.mark("export", "failed", "f", error="the graph is odd")
    run.mark("gates", "done", "f", record=run.save_record("gates", GatesRecord(rows=(), passed=True)))
    run.mark("dance", "done", "f")
    return run.root


def test_a_run_tells_how_each_stage_stands(context: Context) -> None:
    root = finish(context)
    found = states(root)
    assert found["stage teacher: done, its files are as they were written"] == "ok"
    assert found["stage gates: done, its files are as they were written"] == "ok"
    assert found["stage export: failed (the graph is odd)"] == "absent"
    assert found["stage dance: this version has no such stage, and leaves it alone"] == "absent"
    assert "broken" not in found.values()


def test_a_damaged_file_of_a_run_is_named_and_ends_the_command_with_3(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finish(context)
    weights = root / "teacher" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    found = about(root, "stage teacher: teacher/model.safetensors is missing or not as it was written")
    assert (found.state, found.fix) == ("broken", "the same `compress run` command makes it again")
    (root / "records" / "gates.json").write_text("{")
    assert about(root, "stage gates: ").state == "broken"
    weights.unlink()
    assert ending("doctor", str(root)) == 3
    assert "broken   stage teacher: teacher/model.safetensors is missing" in capsys.readouterr().out


def test_a_damaged_state_is_named(context: Context) -> None:
    root = finish(context)
    (root / "state.json").write_text(json.dumps({"schema": 1}))
    (found,) = examine_folder(root)
    assert found.state == "broken"
    assert "state.json is damaged" in found.what


def test_what_is_read_only_is_told(context: Context, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = finish(context)
    (root / "bundle").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert about(root, "cannot be written, so nothing in it can be resumed").state == "broken"
    assert about(root, "is read-only, so export cannot replace it").state == "broken"
    alone = about(bundle, "is read-only: it can be used, but not replaced")
    assert (alone.state, "chmod" in alone.fix) == ("absent", True)


def test_what_is_neither_is_refused_before_anything_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"neither a run .* nor a bundle"):
        list(examine_folder(tmp_path))
    assert ending("doctor", str(tmp_path)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "neither a run" in told.err
