from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pretend_target import PretendTarget, installed
from small_run import data_record, distill_record, student_record, teacher_record
from torch import nn

from vitcompress.core.artifact_records import ExportRecord
from vitcompress.core.context import Context
from vitcompress.core.errors import CompressError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.core.files import is_intact, references_in
from vitcompress.exporters import targets
from vitcompress.exporters.onnx import OnnxFacts, max_difference, onnx_from_module
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import tensorrt, tensorrt_rtx
from vitcompress.stages.export import graphs, precisions, stage
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.export.stage import Inputs
from vitcompress.stages.fold import stage as fold_stage
from vitcompress.stages.fold.config import FoldConfig
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own


def make_inputs(context: Context, digits: Path, strategy: str) -> Inputs:
    data, student = data_record(str(digits), context), student_record(context, strategy)
    distill = distill_record(student)
    folded = fold_stage.run(FoldConfig(images=8), fold_stage.Inputs(data, student, distill), context)
    return Inputs(data, teacher_record(context), student, distill, folded)


@pytest.fixture
def lift(context: Context, digits_folder: Path) -> Inputs:
    return make_inputs(context, digits_folder, "lift")


@pytest.fixture(scope="module")
def exported(module_context: Context, digits_folder: Path) -> tuple[Context, Inputs, ExportRecord]:
    """A lift's graphs and the teacher's, really exported. Not to be changed."""
    inputs = make_inputs(module_context, digits_folder, "lift")
    return module_context, inputs, stage.run(config(), inputs, module_context)


def copied(exported: tuple[Context, Inputs, ExportRecord], path: Path) -> OnnxFacts:
    """The graph of that name as it was exported, written to ``path``."""
    context, _, record = exported
    (artifact,) = (one for one in (record.teacher, *record.student.values()) if f"{one.name}.onnx" == path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(context.run.root / artifact.file.path, path)
    return OnnxFacts(artifact.nodes, artifact.opset, artifact.seconds, artifact.bytes, data=None)


@pytest.fixture
def copies(exported: tuple[Context, Inputs, ExportRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs of ``exported`` instead of exporting the same networks again; comparing and timing stay real."""
    monkeypatch.setattr(graphs, "onnx_from_module", lambda _, path, **__: copied(exported, path))


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for exporting, for tests of what is decided around it."""

    def write(module: object, path: Path, **_: object) -> object:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"onnx")
        data = path.with_name(f"{path.name}.data")
        data.write_bytes(bytes(2000))
        return SimpleNamespace(nodes=1, opset=20, seconds=0.1, data=data)

    monkeypatch.setattr(graphs, "onnx_from_module", write)
    monkeypatch.setattr(graphs, "max_difference", lambda *_: {"1": 1e-7})
    monkeypatch.setattr(graphs, "operator_dtypes", lambda *_: {})


def config(**changes) -> ExportConfig:
    """fp32 alone, no engine."""
    return ExportConfig(**{"target": ("onnx",), "precision": ("fp32",), "max_batch": 8, "images": 4, **changes})


def test_every_graph_and_the_teacher_are_exported(exported: tuple[Context, Inputs, ExportRecord]) -> None:
    context, lift, record = exported
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
        assert artifact.operators["LayerNormalization"].keys() == {"fp32"}
    assert (record.engines, record.engines_why) == ((), "no engine was asked for")
    assert (record.reduced, record.missing, record.not_made) == ({}, {}, ())


@pytest.mark.usefixtures("no_export")
def test_a_strategy_with_one_graph_deploys_it(context: Context, digits_folder: Path) -> None:
    record = stage.run(config(), make_inputs(context, digits_folder, "plain"), context)
    assert (record.deployed, record.deployed_why) == ("plain", "the strategy has one graph")


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_an_inexact_fold_is_refused_unless_the_projector_is_kept(
    lift: Inputs, context: Context, difference: float
) -> None:
    inexact = replace(lift, fold=lift.fold.model_copy(update={"max_logit_difference": difference}))
    with pytest.raises(ResultError, match=rf"folding changes logits by {difference:.3g}, .* with --projector keep"):
        stage.run(config(), inexact, context)
    record = stage.run(config(projector="keep"), inexact, context)
    assert (record.deployed, record.deployed_why) == ("lift-kept", "asked for with projector: keep")


@pytest.mark.usefixtures("no_export")
def test_weights_in_a_file_of_their_own_are_recorded_and_counted(lift: Inputs, context: Context) -> None:
    record = stage.run(config(), lift, context)
    root = context.run.root
    for artifact in (record.teacher, *record.student.values()):
        assert artifact.data is not None
        on_disk = [path for path in (root / "export").iterdir() if path.name.startswith(f"{artifact.name}.onnx")]
        assert {path.relative_to(root).as_posix() for path in on_disk} == {artifact.file.path, artifact.data.path}
        assert artifact.bytes == sum(path.stat().st_size for path in on_disk) > artifact.data.bytes > 1000
    (root / record.student["lift-kept"].data.path).unlink()  # type: ignore[union-attr]
    assert not all(is_intact(ref, root) for ref in references_in(record))


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("difference", [2e-3, float("inf"), float("nan")])
def test_a_graph_that_disagrees_with_torch_is_refused(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    monkeypatch.setattr(graphs, "max_difference", lambda *_: {"1": difference, "2": difference})
    with pytest.raises(
        ResultError, match=r"student-lift-kept\.onnx differs from torch by .*more than export\.tolerance 0\.001"
    ):
        stage.run(config(), lift, context)


def failing(*_: object, **__: object) -> None:
    raise ResultError("node 'blocks.0.attn' [Odd] is not supported")


def failing_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "choose_flavour", lambda _: ("tensorrt-rtx", "it is here"))
    monkeypatch.setattr(tensorrt, "engine_from_onnx", failing)


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("by_name", [True, False])
def test_a_failed_engine_leaves_the_rest_and_fails_the_run_only_when_asked_for_by_name(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    failing_engines(monkeypatch)
    settings = config(target=("onnx", "tensorrt-rtx"), target_reason="" if by_name else "found here")
    record = stage.run(settings, lift, context)
    (engine,) = record.engines
    assert (engine.status, engine.reason) == ("unavailable", "node 'blocks.0.attn' [Odd] is not supported")
    assert (context.run.root / record.student["lift-folded"].file.path).is_file()
    assert record.not_made == ((f"tensorrt-rtx fp32 engine: {engine.reason}",) if by_name else ())


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("error", [ResultError, UsageError])
@pytest.mark.parametrize("precision", [("fp32", "fp16"), ("fp32", "fp16", "int8")])
def test_a_precision_that_cannot_be_made_is_missing_with_its_reason(
    lift: Inputs,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    precision: tuple[str, ...],
    error: type[CompressError],
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error("node 'blocks.0.attn' [Odd] is not supported")

    failing_engines(monkeypatch)
    monkeypatch.setattr(precisions, "reduced_from_onnx", failing)
    settings = config(precision=precision, target=("onnx", "tensorrt-rtx"), target_reason="found here")
    record = stage.run(settings, lift, context)
    assert set(record.missing) == set(precision) - {"fp32"}
    reasons = {one.precision: one.reason for one in record.engines}
    assert reasons["fp16"] == "there is no fp16 graph to build it of: node 'blocks.0.attn' [Odd] is not supported"
    default = len(precision) == 3
    assert record.not_made == (() if default else ("fp16 ONNX: node 'blocks.0.attn' [Odd] is not supported",))


@pytest.mark.usefixtures("copies")
def test_another_packages_target_builds_what_it_can(lift: Inputs, context: Context) -> None:
    with installed(PretendTarget):
        settings = config(target=("onnx", "pretend"), precision=("fp32", "int8"))
        record = stage.run(settings, lift, context)
        fp32, int8 = record.engines
        assert is_intact(fp32.files[0], context.run.root)
        assert (int8.reason, int8.files) == ("Pretend Runtime does not run int8", ())
        assert record.not_made == ("pretend int8 engine: Pretend Runtime does not run int8",)
    with pytest.raises(ValueError, match="target 'pretend' is not known; choose from onnx, tensorrt"):
        config(target=("onnx", "pretend"))


@pytest.mark.parametrize(
    ("asked", "precision", "aimed"), [((), "fp32", ()), ((), "fp8", ("8.9", "12.0")), (("8.6",), "fp8", ("8.6",))]
)
def test_fp8_engines_are_built_for_gpus_that_have_it(
    asked: tuple[str, ...], precision: Any, aimed: tuple[str, ...]
) -> None:
    options = targets.BuildOptions(Path("run"), compute_capabilities=asked)
    assert tensorrt_rtx.TensorrtRtxTarget().capabilities(precision, options) == aimed
    assert tensorrt.TensorrtTarget().capabilities(precision, options) == ()


@pytest.mark.parametrize("kind", [pytest.param("float", marks=pytest.mark.sweep), "uint8"])
def test_reduced_precisions_are_made_of_the_deployed_graph_alone(
    lift: Inputs,
    context: Context,
    exported: tuple[Context, Inputs, ExportRecord],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    deployed = "student-lift-folded.onnx"

    def write(module: nn.Module, path: Path, **given: Any) -> OnnxFacts:
        return onnx_from_module(module, path, **given) if path.name == deployed else copied(exported, path)

    def difference(
        path: Path, module: nn.Module, images: NDArray[Any], batches: tuple[int, ...], given: NDArray[Any]
    ) -> dict[str, float]:
        return max_difference(path, module, images, batches, given if path.name == deployed else images)

    monkeypatch.setattr(graphs, "onnx_from_module", write)
    monkeypatch.setattr(graphs, "max_difference", difference)  # the copies take floats
    record = stage.run(config(precision=("fp16", "int8"), input=kind), lift, context)
    assert set(record.reduced) == {"fp16", "int8"}
    assert (record.preprocess.input, lift.student.preprocess.input) == (kind, "float")
    root = context.run.root
    for precision, artifact in record.reduced.items():
        assert artifact.name == f"student-lift-folded.{precision}"
        assert (artifact.precision, artifact.input) == (precision, kind)
        assert is_intact(artifact.file, root)
        assert artifact.file.bytes < record.student["lift-folded"].file.bytes
        assert artifact.reduced is not None
        assert artifact.reduced.agreement is not None
        products = [artifact.operators.get(kind, {}).get(precision, 0) for kind in ("MatMul", "Gemm", "Conv")]
        assert sum(products) > 0
    assert record.reduced["int8"].reduced is not None
    assert record.reduced["int8"].reduced.calibration == "80 training images, evenly spread"
    assert set(record.student) == {"lift-kept", "lift-folded"}


def test_an_engine_that_is_not_here_is_told_before_anything_is_exported(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(_: str) -> None:
        raise EnvironmentLacksError("no TensorRT")

    monkeypatch.setattr(tensorrt, "choose_flavour", lacking)
    with pytest.raises(EnvironmentLacksError, match="no TensorRT"):
        stage.run(config(target=("onnx", "tensorrt")), lift, context)
    assert not (context.run.root / "export").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"precision": ("fp16", "fp16")}, "precision is fp16, fp16; give each at most once"),
        ({"target": ("onnx", "onnx")}, "target is onnx, onnx; give each at most once"),
        ({"precision": ()}, "precision is empty; give at least one"),
        ({"max_batch": 8, "opt_batch": 16}, "opt_batch 16 is larger than max_batch 8"),
        ({"precision": ("fp16",), "deploy": "int8"}, "deploy is int8, which is not among precision, fp16"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExportConfig(**given)


def test_lists_can_be_given_as_on_the_command_line() -> None:
    settings = ExportConfig.model_validate({"target": "onnx, tensorrt-rtx", "precision": "int8,fp16"}, strict=False)
    assert settings.engines == ("tensorrt-rtx",)
    assert settings.precisions == ("fp32", "int8", "fp16")
