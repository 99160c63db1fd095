from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_run import teacher_record

from vitcompress.core.artifact_records import GatesRecord
from vitcompress.core.context import Context
from vitcompress.core.errors import BundleError, EnvironmentLacksError
from vitcompress.exporters.bundle import ModelFile
from vitcompress.exporters.targets.onnx_runtime import OnnxTarget
from vitcompress.exporters.targets.tensorrt import TensorrtTarget
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
    """A folder that counts as an intact bundle of a graph and an engine."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "manifest.json").write_text("{}")
    models = [
        ModelFile("onnx fp32", path / "model.onnx", "onnx", "fp32"),
        ModelFile("tensorrt fp32", path / "model.engine", "tensorrt", "fp32"),
    ]
    monkeypatch.setattr(under_test, "open_bundle", lambda _: SimpleNamespace(labels=("a", "b"), models=models))
    return path


LACKS = EnvironmentLacksError("running an engine needs an NVIDIA GPU.")


@pytest.mark.parametrize(
    ("graph", "engine", "found"),
    [
        (None, LACKS, ["ok", "absent"]),
        (None, None, ["ok", "ok"]),
        (BundleError("model.onnx is damaged."), BundleError("it is for another GPU."), ["broken", "absent"]),
    ],
)
def test_each_model_of_a_bundle_is_loaded(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, graph: Any, engine: Any, found: list[str]
) -> None:
    def opens(error: Exception | None) -> Any:
        def opened(*_: Any) -> Any:
            if error:
                raise error
            return nullcontext()

        return opened

    monkeypatch.setattr(OnnxTarget, "open", opens(graph))
    monkeypatch.setattr(TensorrtTarget, "open", opens(engine))
    intact, *models = examine_folder(bundle)
    assert (intact.state, intact.what) == ("ok", f"bundle: {bundle}, 2 labels, every file as it was written")
    assert [one.state for one in models] == found
    for one, name, error in zip(models, ("model.onnx", "model.engine"), (graph, engine), strict=True):
        assert name in one.what
        assert str(error or "loads in") in one.what


def test_a_damaged_manifest_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real open_bundle
    for content, words in ((b"{}", "manifest.json has schema None"), (b"{half", "manifest.json is damaged")):
        (bundle / "manifest.json").write_bytes(content)
        assert about(bundle, words).state == "broken"
    (bundle / "manifest.json").unlink()
    assert about(bundle, "it has no manifest.json").state == "broken"


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


def test_what_is_neither_is_refused_before_anything_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending("doctor", str(tmp_path)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "neither a run" in told.err
