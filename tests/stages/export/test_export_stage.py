from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_run import data_record, distill_record, student_record, teacher_record

import exporters.onnx
from core.artifact_records import OnnxArtifact
from core.context import Context
from core.errors import BundleError, EnvironmentLacksError, ResultError
from core.files import is_intact, references_in
from exporters.bundle import open_bundle
from exporters.runners import OnnxRunner
from stages.export import stage
from stages.export.config import ExportConfig
from stages.export.stage import Inputs
from stages.fold import stage as fold_stage
from stages.fold.config import FoldConfig
from stages.images.loaders import sample
from stages.images.sources import recorded_images
from stages.models.build import build_model
from stages.models.weights import load_own


def make_inputs(context: Context, digits: Path, strategy: str) -> Inputs:
    data, student = data_record(str(digits), context), student_record(context, strategy)
    distill = distill_record(student)
    folded = fold_stage.run(FoldConfig(images=8), fold_stage.Inputs(data, student, distill), context)
    return Inputs(data, teacher_record(context), student, distill, folded)


@pytest.fixture
def lift(context: Context, digits_folder: Path) -> Inputs:
    return make_inputs(context, digits_folder, "lift")


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for exporting, for tests of what is decided around it."""
    facts = type("Facts", (), {"nodes": 1, "opset": 20, "seconds": 0.1, "data": None})()

    def write(module: object, path: Path, **_: object) -> object:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"onnx")
        return facts

    monkeypatch.setattr(stage, "onnx_from_module", write)
    monkeypatch.setattr(stage, "max_difference", lambda *_: {"1": 1e-7})
    monkeypatch.setattr(stage, "_bundle", lambda *_: ())


def config(**changes) -> ExportConfig:
    return ExportConfig(**{"engine": "none", "max_batch": 8, "images": 4, **changes})


def test_every_graph_and_the_teacher_are_exported_and_bundled(lift: Inputs, context: Context) -> None:
    record = stage.run(config(), lift, context)
    assert set(record.student) == {"lift-kept", "lift-folded"}
    assert record.deployed == "lift-folded"
    assert "asked for with projector: fold; logits change by" in record.deployed_why
    root = context.run.root
    assert all(is_intact(ref, root) for ref in references_in(record))
    images = sample(recorded_images(lift.data)[1].val, lift.student.preprocess, 5)
    networks = [
        (lift.fold.models[graph], lift.fold.graphs[graph], record.student[graph]) for graph in record.student
    ] + [(lift.teacher.model, lift.teacher.weights, record.teacher)]
    for spec, weights, artifact in networks:
        with torch.no_grad():
            wanted = load_own(build_model(spec), weights, root).eval()(images).numpy()
        with OnnxRunner(root / artifact.file.path) as runner:
            np.testing.assert_allclose(runner.infer(images.numpy()), wanted, atol=1e-4)
        assert set(artifact.max_logit_difference) == {"1", "2", "7"}
        assert max(artifact.max_logit_difference.values()) < 1e-4
    names = {Path(ref.path).name for ref in record.bundle}
    assert {"model.onnx", "preprocess.json", "labels.txt", "manifest.json"} <= names
    deployed = (root / record.student["lift-folded"].file.path).read_bytes()
    assert (root / "bundle" / "model.onnx").read_bytes() == deployed
    assert (root / "bundle" / "labels.txt").read_text().splitlines() == list(lift.data.classes)
    assert json.loads((root / "bundle" / "preprocess.json").read_text())["size"] == 32
    assert (record.engine.status, record.engine.flavour, record.engine.file) == ("off", "none", None)


@pytest.mark.usefixtures("no_export")
def test_a_strategy_with_one_graph_deploys_it(context: Context, digits_folder: Path) -> None:
    record = stage.run(config(), make_inputs(context, digits_folder, "plain"), context)
    assert (record.deployed, record.deployed_why) == ("plain", "the strategy has one graph")


@pytest.mark.usefixtures("no_export")
def test_the_projector_can_be_kept(lift: Inputs, context: Context) -> None:
    record = stage.run(config(projector="keep"), lift, context)
    assert (record.deployed, record.deployed_why) == ("lift-kept", "asked for with projector: keep")


def with_difference(lift: Inputs, difference: float) -> Inputs:
    return replace(lift, fold=lift.fold.model_copy(update={"max_logit_difference": difference}))


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_an_inexact_fold_is_refused_kept_or_avoided_as_asked(lift: Inputs, context: Context, difference: float) -> None:
    inexact = with_difference(lift, difference)
    words = f"folding changes logits by {difference:.3g}, more than fold.tolerance 0.0001"
    with pytest.raises(ResultError, match=f"{words}; deploy the projector with --projector keep"):
        stage.run(config(), inexact, context)
    assert stage.run(config(projector="keep"), inexact, context).deployed == "lift-kept"
    record = stage.run(config(projector="auto"), inexact, context)
    assert (record.deployed, record.deployed_why) == ("lift-kept", words)


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    ("ratio", "deployed"),
    [((2.0, 1.9, 2.1), "lift-folded"), ((0.98, 0.95, 1.01), "lift-folded"), ((0.5, 0.4, 0.6), "lift-kept")],
)
def test_auto_folds_unless_kept_is_faster_beyond_noise(
    lift: Inputs,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    ratio: tuple[float, float, float],
    deployed: str,
) -> None:
    monkeypatch.setattr(stage, "_folding_speedup", lambda *_: ratio)
    record = stage.run(config(projector="auto"), lift, context)
    assert record.deployed == deployed
    assert f"{ratio[0]:.3f}x [{ratio[1]:.3f}, {ratio[2]:.3f}] as fast as kept" in record.deployed_why


def test_auto_measures_both_with_the_threads_of_verification(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    class Counting(OnnxRunner):
        def __init__(self, path: Path, **given: Any) -> None:
            threads.append(given["threads"])
            super().__init__(path, **given)

    monkeypatch.setattr(stage, "_AUTO_SECONDS", 0.2)
    monkeypatch.setattr(stage, "physical_cores", lambda: 3)
    monkeypatch.setattr(stage, "OnnxRunner", Counting)
    torch.set_num_threads(1)  # as a reduced training leaves it
    record = stage.run(config(projector="auto"), lift, context)
    assert record.deployed in {"lift-kept", "lift-folded"}
    assert threads == [3, 3]
    assert "(CPUExecutionProvider, 3 threads, 95 % interval)" in record.deployed_why


@pytest.mark.usefixtures("no_export")
def test_auto_without_the_gpu_it_needs_folds_and_says_so(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise EnvironmentLacksError("no GPU in ONNX Runtime")

    monkeypatch.setattr(stage, "OnnxRunner", lacking)
    record = stage.run(config(projector="auto"), lift, context)
    assert (record.deployed, record.deployed_why) == (
        "lift-folded",
        "not timed against lift-kept (no GPU in ONNX Runtime)",
    )


def test_weights_in_a_file_of_their_own_are_recorded_counted_and_bundled(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporters.onnx, "EXTERNAL_ABOVE", 1000)
    record = stage.run(config(), lift, context)
    root = context.run.root
    for artifact in (record.teacher, *record.student.values()):
        assert artifact.data is not None
        on_disk = [path for path in (root / "export").iterdir() if path.name.startswith(f"{artifact.name}.onnx")]
        assert {path.relative_to(root).as_posix() for path in on_disk} == {artifact.file.path, artifact.data.path}
        assert artifact.bytes == sum(path.stat().st_size for path in on_disk) > artifact.data.bytes > 1000
    weights = root / "bundle" / "model.onnx.data"
    assert weights.relative_to(root).as_posix() in {ref.path for ref in record.bundle}
    assert all(is_intact(ref, root) for ref in references_in(record))
    assert open_bundle(root / "bundle").onnx.name == "model.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"model\.onnx\.data is damaged"):
        open_bundle(root / "bundle")
    (root / record.student["lift-kept"].data.path).unlink()  # type: ignore[union-attr]
    assert not all(is_intact(ref, root) for ref in references_in(record))


def test_one_file_is_recorded_as_one(lift: Inputs, context: Context) -> None:
    teacher = stage.run(config(), lift, context).teacher
    assert isinstance(teacher, OnnxArtifact)
    assert (teacher.data, teacher.bytes) == (None, teacher.file.bytes)


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("difference", [2e-3, float("inf"), float("nan")])
def test_a_graph_that_disagrees_with_torch_is_refused(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    monkeypatch.setattr(stage, "max_difference", lambda *_: {"1": difference, "2": difference})
    with pytest.raises(
        ResultError, match=r"student-lift-kept\.onnx differs from torch by .*more than export\.tolerance 0\.001"
    ):
        stage.run(config(), lift, context)
    assert not (context.run.root / "bundle").exists()


def test_a_tolerance_below_rounding_is_refused_by_the_real_comparison(lift: Inputs, context: Context) -> None:
    with pytest.raises(ResultError, match=r"differs from torch by .* in logits, more than export\.tolerance 1e-12"):
        stage.run(config(tolerance=1e-12), lift, context)


@pytest.mark.usefixtures("no_export")
def test_an_engine_nobody_could_build_is_unavailable_with_the_reason(lift: Inputs, context: Context) -> None:
    record = stage.run(config(engine_reason="neither GPU nor TensorRT-RTX here"), lift, context)
    assert (record.engine.status, record.engine.reason) == ("unavailable", "neither GPU nor TensorRT-RTX here")


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("by_name", [True, False])
def test_a_failed_engine_fails_the_run_only_when_asked_for_by_name(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ResultError("the builder gave up")

    monkeypatch.setattr(stage, "choose_flavour", lambda _: ("tensorrt-rtx", "it is here"))
    monkeypatch.setattr(stage, "engine_from_onnx", fail)
    settings = config(engine="tensorrt-rtx", engine_reason="" if by_name else "found here")
    if by_name:
        with pytest.raises(ResultError, match="the builder gave up"):
            stage.run(settings, lift, context)
    else:
        record = stage.run(settings, lift, context)
        assert (record.engine.status, record.engine.reason) == ("unavailable", "the builder gave up")


def test_an_engine_that_is_not_here_is_told_before_anything_is_exported(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(_: str) -> None:
        raise EnvironmentLacksError("no TensorRT")

    monkeypatch.setattr(stage, "choose_flavour", lacking)
    with pytest.raises(EnvironmentLacksError, match="no TensorRT"):
        stage.run(config(engine="tensorrt"), lift, context)
    assert not (context.run.root / "export").exists()


def test_batches_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="opt_batch 16 is larger than max_batch 8"):
        ExportConfig(max_batch=8, opt_batch=16)
