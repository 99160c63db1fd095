"""Triton's model repository, held to Triton's own schema of a model's configuration."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from made_bundles import RTX, fp32, make
from tiny_models import LABELS, SIZE

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import BundledModel
from vitcompress.exporters.bundled import Tensor
from vitcompress.exporters.targets.triton import model_config

LOGITS = Tensor("logits", "float32", (10,))


@pytest.fixture(scope="module")
def schema() -> Any:
    """Triton's ``model_config_pb2``, loaded by its path: the package around it would want grpc."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tritonclient, of the extra dev, is not installed: its schema is missing")
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_repository_of_a_bundle_passes_the_schema(
    tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, schema: Any
) -> None:
    (tmp_path / "plan").write_bytes(b"an engine")
    models = [fp32(onnx_file), BundledModel("trt", tmp_path / "plan", "tensorrt", "fp16", facts=RTX)]
    folder = tmp_path / "bundle"
    written = make(
        folder, onnx_file, spec, models=models, default={"onnx": "student", "engine": "trt"}, add=("triton",)
    )
    repository = folder / "triton"
    for name, platform, file, top, preferred in (
        ("student_onnx", "onnxruntime_onnx", "model.onnx", 8, [4, 8]),
        ("student_tensorrt", "tensorrt_plan", "model.plan", 6, [2, 6]),
    ):
        config = text_format.Parse((repository / name / "config.pbtxt").read_text(), schema.ModelConfig())
        assert (config.name, config.platform, config.max_batch_size) == (name, platform, top)
        assert list(config.dynamic_batching.preferred_batch_size) == preferred
        (images,), (logits,) = config.input, config.output
        assert (images.name, images.data_type, list(images.dims)) == ("images", schema.TYPE_FP32, [3, SIZE, SIZE])
        assert (logits.name, logits.data_type, list(logits.dims)) == ("logits", schema.TYPE_FP32, [10])
        assert (repository / name / logits.label_filename).read_text().splitlines() == list(LABELS)
        assert repository / name / "1" / file in written
    assert (repository / "student_onnx" / "1" / "model.onnx").samefile(folder / "model.onnx")
    assert "tritonserver --model-repository" in (folder / "README.md").read_text()


def test_pixels_are_uint8_and_a_single_image_needs_no_batching(schema: Any) -> None:
    text = model_config("m", "tensorrt_plan", Tensor("images", "uint8", (48, 48, 3)), LOGITS, 1, 1)
    config = text_format.Parse(text, schema.ModelConfig())
    assert config.input[0].data_type == schema.TYPE_UINT8
    assert list(config.input[0].dims) == [48, 48, 3]
    assert not config.HasField("dynamic_batching")
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU


def test_an_engine_of_rtx_is_left_out(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    (tmp_path / "e").write_bytes(b"an engine")
    models = [fp32(onnx_file), BundledModel("rtx", tmp_path / "e", "tensorrt-rtx", "fp32", facts=RTX)]
    make(tmp_path / "b", onnx_file, spec, models=models, default={"onnx": "student", "engine": "rtx"}, add=("triton",))
    assert [entry.name for entry in (tmp_path / "b" / "triton").iterdir()] == ["student_onnx"]


def test_without_hard_links_there_is_a_second_copy(
    tmp_path: Path, onnx_file: Path, spec: PreprocessSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    make(tmp_path / "b", onnx_file, spec, add=("triton",))
    copy = tmp_path / "b" / "triton" / "student_onnx" / "1" / "model.onnx"
    assert copy.read_bytes() == onnx_file.read_bytes()
