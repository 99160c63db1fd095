from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import torch
from pretend_target import PretendTarget, installed
from small_run import folded_run, said

from vitcompress.core.artifact_records import EngineArtifact, ExportRecord, OnnxArtifact, Precision
from vitcompress.core.context import Context
from vitcompress.core.errors import CompressError, EnvironmentLacksError, ResultError, UsageError
from vitcompress.core.files import is_intact, references_in
from vitcompress.core.records import Graph, TeacherRecord
from vitcompress.exporters import targets
from vitcompress.exporters.runners import OnnxRunner
from vitcompress.exporters.targets import tensorrt, tensorrt_rtx
from vitcompress.stages.export import graphs, precisions, projector, stage
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.export.engines import Network, build_engines
from vitcompress.stages.export.stage import Inputs
from vitcompress.stages.export.teacher import reduce_teacher, teacher_engines
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own


@pytest.fixture
def lift(context: Context, digits_folder: Path) -> Inputs:
    return Inputs(*folded_run(context, digits_folder, "lift"))


@pytest.fixture(scope="module")
def exported(module_context: Context, digits_folder: Path) -> tuple[Context, Inputs, ExportRecord]:
    """A lift's graphs for pixels and the teacher's, really exported. Not to be changed."""
    inputs = Inputs(*folded_run(module_context, digits_folder, "lift"))
    settings = config(precision=("fp16", "int8"), input="uint8")
    return module_context, inputs, stage.run(settings, inputs, module_context)


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
    monkeypatch.setattr(graphs, "OnnxRunner", MagicMock())
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
    assert (record.preprocess.input, lift.student.preprocess.input) == ("uint8", "float")
    held_out = recorded_images(lift.data)[1].val
    images = sample(held_out, lift.student.preprocess, 5)
    pixels = sample(held_out, record.preprocess, 5).numpy()
    fold, teacher = lift.fold, lift.teacher
    networks = [(fold.models[graph], fold.graphs[graph], record.student[graph]) for graph in record.student]
    networks.append((teacher.model, teacher.weights, record.teacher))
    for spec, weights, artifact in networks:
        with torch.no_grad():
            wanted = load_own(build_model(spec), weights, root).eval()(images).numpy()
        with OnnxRunner(root / artifact.file.path) as runner:
            np.testing.assert_allclose(runner.infer(pixels), wanted, atol=1e-4)
        assert set(artifact.max_logit_difference) == {"1", "2", "7"}
        assert max(artifact.max_logit_difference.values()) < 1e-4
        assert artifact.operators["LayerNormalization"].keys() == {"fp32"}
    assert (record.engines, record.engines_why) == ((), "no engine was asked for")
    assert (record.missing, record.not_made) == ({}, ())


def test_reduced_precisions_are_made_of_the_deployed_graph_alone(
    exported: tuple[Context, Inputs, ExportRecord],
) -> None:
    _, _, record = exported
    assert list(record.reduced) == ["fp16", "int8"]
    for precision, artifact in record.reduced.items():
        assert (artifact.name, artifact.input) == (f"student-lift-folded.{precision}", "uint8")
        assert artifact.file.bytes < record.student["lift-folded"].file.bytes
        assert sum(artifact.operators.get(kind, {}).get(precision, 0) for kind in ("MatMul", "Gemm", "Conv")) > 0
    assert record.reduced["int8"].reduced.calibration == "80 training images, evenly spread"  # type: ignore[union-attr]


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_an_inexact_fold_is_refused_unless_the_projector_is_kept(
    lift: Inputs, context: Context, difference: float
) -> None:
    inexact = replace(lift, fold=lift.fold.model_copy(update={"max_logit_difference": difference}))
    with pytest.raises(ResultError, match=rf"folding changes logits by {difference:.3g}, .* with --projector keep"):
        stage.run(config(), inexact, context)
    for asked, why in (("keep", "asked for with projector: keep"), ("auto", "folding changes logits by")):
        record = stage.run(config(projector=asked), inexact, context)
        assert record.deployed == "lift-kept"
        assert why in record.deployed_why


@pytest.mark.parametrize(
    ("ratio", "deployed"),
    [((2.0, 1.9, 2.1), "lift-folded"), ((0.98, 0.95, 1.01), "lift-folded"), ((0.5, 0.4, 0.6), "lift-kept")],
)
def test_auto_folds_unless_kept_is_faster_beyond_noise(
    exported: tuple[Context, Inputs, ExportRecord],
    monkeypatch: pytest.MonkeyPatch,
    ratio: tuple[float, float, float],
    deployed: Graph,
) -> None:
    context, lift, record = exported
    monkeypatch.setattr(projector, "_SECONDS", 0.2)
    real = projector.speedup_interval
    measured = []
    monkeypatch.setattr(
        projector, "speedup_interval", lambda *given, **more: measured.append(real(*given, **more)) or ratio
    )
    image = np.zeros((1, 32, 32, 3), np.uint8)
    graph, why = projector.choose_graph(config(projector="auto"), lift.fold, record.student, image, context)
    assert (graph, f"{ratio[0]:.3f}x [{ratio[1]:.3f}, {ratio[2]:.3f}]" in why) == (deployed, True)
    assert measured[0][1] <= measured[0][0] <= measured[0][2], "both were timed"


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("difference", [2e-3, float("nan")])
def test_a_graph_that_disagrees_with_torch_is_refused(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    monkeypatch.setattr(graphs, "max_difference", lambda *_: {"1": difference, "2": difference})
    with pytest.raises(
        ResultError, match=r"student-lift-kept\.onnx differs from torch by .*more than export\.tolerance 0\.001"
    ):
        stage.run(config(), lift, context)


REASON = "node 'blocks.0.attn' [Odd] is not supported"


def failing_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "choose_flavour", lambda _: ("tensorrt-rtx", "it is here"))
    monkeypatch.setattr(tensorrt, "engine_from_onnx", Mock(side_effect=ResultError(REASON)))


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("by_name", [True, False])
def test_a_failed_engine_leaves_the_rest_and_fails_the_run_only_when_asked_for_by_name(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    failing_engines(monkeypatch)
    settings = config(target=("onnx", "tensorrt-rtx"), target_reason="" if by_name else "found here")
    record = stage.run(settings, lift, context)
    (engine,) = record.engines
    assert (engine.status, engine.reason) == ("unavailable", REASON)
    assert (context.run.root / record.student["lift-folded"].file.path).is_file()
    assert record.not_made == ((f"tensorrt-rtx fp32: {engine.reason}",) if by_name else ())


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
    failing_engines(monkeypatch)
    monkeypatch.setattr(precisions, "reduced_from_onnx", Mock(side_effect=error(REASON)))
    settings = config(precision=precision, target=("onnx", "tensorrt-rtx"), target_reason="found here")
    record = stage.run(settings, lift, context)
    assert set(record.missing) == set(precision) - {"fp32"}
    reasons = {one.precision: one.reason for one in record.engines}
    assert reasons["fp16"] == f"there is no fp16 graph to build it of: {REASON}"
    default = len(precision) == 3
    assert record.not_made == (() if default else (f"fp16 ONNX: {REASON}",))


def network_of(inputs: Inputs, record: ExportRecord) -> Network:
    made: dict[Precision, OnnxArtifact] = {"fp32": record.student["lift-folded"], **record.reduced}
    images = graphs.held_out(inputs.data, inputs.student.preprocess, config(input="uint8"))
    spec, weights = inputs.fold.models["lift-folded"], inputs.fold.graphs["lift-folded"]
    return Network(made, {}, spec, weights, inputs.data, images)


def test_another_packages_target_builds_what_it_can(exported: tuple[Context, Inputs, ExportRecord]) -> None:
    context, inputs, record = exported
    network = network_of(inputs, record)
    with installed(PretendTarget):
        settings = config(target=("onnx", "pretend"), engine_precision=("fp32", "int8"))
        fp32, int8 = build_engines(settings, network, context)
        (usual,) = build_engines(config(target=("onnx", "pretend")), network, context)
        assert (usual.precision, max(usual.max_logit_difference.values()) < 1e-4) == ("fp32", True)
        assert is_intact(fp32.files[0], context.run.root)
        assert int8.reason.startswith("Pretend Runtime does not run int8")
        assert not int8.files
    with pytest.raises(ValueError, match="target 'pretend' is not known; choose from onnx, tensorrt"):
        config(target=("onnx", "pretend"))


def test_the_teachers_engine_is_built_once_for_what_it_is_made_of(
    exported: tuple[Context, Inputs, ExportRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, inputs, record = exported
    built = PretendTarget.built
    student = EngineArtifact(status="built", flavour="pretend", precision="fp32", file=record.teacher.file)
    nothing = student.model_copy(update={"precision": "fp16", "status": "unavailable", "file": None})

    def made(teacher: TeacherRecord = inputs.teacher, **changes: Any) -> tuple[EngineArtifact, ...]:
        built.clear()
        with installed(PretendTarget):
            settings = config(target=("onnx", "pretend"), **changes)
            own = {"spec": inputs.teacher.model, "weights": inputs.teacher.weights, "of": "teacher"}
            network = replace(network_of(inputs, record), graphs={"fp32": record.teacher}, **own)
            return teacher_engines(settings, network, teacher, (student, nothing), context)

    (first,) = made()
    assert (built, first.status) == (["teacher"], "built")
    assert (made(tolerance=0.5), built) == ((first,), [])
    path = context.run.root / first.files[0].path
    path.write_bytes(b"damaged")
    assert (made(), built) == ((first,), ["teacher"])
    note = context.run.root / "export" / "teacher.pretend.json"
    note.write_text("{")
    assert (made(), built) == ((first,), ["teacher"])
    other = inputs.teacher.model_copy(update={"weights": record.teacher.file})
    for changes in ({"max_batch": 9}, {"opt_batch": 4}, {"compute_capabilities": ("8.6",)}, {"teacher": other}):
        made(**changes)
        assert built == ["teacher"], changes
    monkeypatch.setattr("vitcompress.exporters.targets.target.importlib.metadata.version", lambda _: "99")
    made(teacher=other)
    assert built == ["teacher"]
    monkeypatch.setattr(PretendTarget, "build", Mock(side_effect=ResultError(REASON)))
    (refused,) = made(max_batch=32)
    assert (refused.status, refused.reason) == ("unavailable", REASON)
    assert "no fp32 Pretend Runtime of the teacher: node 'blocks.0.attn'" in said(context)


def test_the_teacher_is_reduced_to_what_the_students_engines_are_in_and_once(
    exported: tuple[Context, Inputs, ExportRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, inputs, record = exported
    images = graphs.held_out(inputs.data, inputs.teacher.preprocess, config(input="uint8"))
    settings = config(precision=("fp16", "int8"), input="uint8")
    given = (settings, record.teacher, inputs.teacher, {"fp16", "fp32"}, inputs.data, images, context)
    made, missing = reduce_teacher(*given)
    assert (list(made), missing, made["fp16"].name) == (["fp16"], {}, "teacher.fp16")
    monkeypatch.setattr(precisions, "reduced_from_onnx", Mock(side_effect=ResultError(REASON)))
    assert reduce_teacher(*given) == (made, {})
    (context.run.root / made["fp16"].file.path).unlink()
    assert reduce_teacher(*given) == ({}, {"fp16": REASON})
    assert record.teacher_reduced == {}, "no engine was asked for, and there is no GPU"


@pytest.mark.parametrize(
    ("asked", "precision", "aimed"), [((), "fp32", ()), ((), "fp8", ("8.9", "12.0")), (("8.6",), "fp8", ("8.6",))]
)
def test_fp8_engines_are_built_for_gpus_that_have_it(
    asked: tuple[str, ...], precision: Any, aimed: tuple[str, ...]
) -> None:
    options = targets.BuildOptions(Path("run"), compute_capabilities=asked)
    assert tensorrt_rtx.TensorrtRtxTarget().capabilities(precision, options) == aimed
    assert tensorrt.TensorrtTarget().capabilities(precision, options) == ()


def test_an_engine_that_is_not_here_is_told_before_anything_is_exported(
    lift: Inputs, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "choose_flavour", Mock(side_effect=EnvironmentLacksError("no TensorRT")))
    with pytest.raises(EnvironmentLacksError, match="no TensorRT"):
        stage.run(config(target=("onnx", "tensorrt")), lift, context)
    assert not (context.run.root / "export").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"precision": ("fp16", "fp16")}, "precision is fp16, fp16; give each at most once"),
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
