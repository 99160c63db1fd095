from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from engine_graphs import build
from numpy.typing import NDArray
from reduced_models import digits, reduce

from vitcompress.core.errors import EnvironmentLacksError, ResultError
from vitcompress.exporters.precision.compare import Limits
from vitcompress.exporters.precision.graph import load_source
from vitcompress.exporters.precision.halves import fp16_from_fp32
from vitcompress.exporters.tensorrt import installed_flavours

needs_modelopt = pytest.mark.skipif(importlib.util.find_spec("modelopt") is None, reason="ModelOpt is not installed")


@pytest.fixture(scope="module")
def digit_images() -> NDArray[np.float32]:
    return digits()[0][:96]


@pytest.fixture
def source(tmp_path: Path, onnx_file: Path) -> Path:
    return Path(shutil.copy(onnx_file, tmp_path / "fp32.onnx"))


class FakeModelOpt:
    """ModelOpt's two functions, as far as they are used, over this project's own conversions."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def convert_to_mixed_precision(self, **given: Any) -> onnx.ModelProto:
        self.calls.append(given)
        if self.error:
            raise self.error
        source = load_source(Path(given["onnx_path"]))
        patterns = given["nodes_to_exclude"]
        kept = [node.name for node in source.nodes if any(re.match(pattern, node.name) for pattern in patterns)]
        model: onnx.ModelProto = fp16_from_fp32(source, kept)
        return self.in_bf16(model)

    @staticmethod
    def in_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
        half, brain = onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
        for tensor in model.graph.initializer:
            if tensor.data_type == half:
                values = onnx.numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.i == half:
                    attribute.i = brain
        model.opset_import[0].version = 22
        return model


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeModelOpt:
    """ModelOpt replaced."""
    made = FakeModelOpt()
    modules = {"modelopt": {"__version__": "0.0"}, "modelopt.onnx": {}}
    modules["modelopt.onnx.autocast"] = {"convert_to_mixed_precision": made.convert_to_mixed_precision}
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_without_modelopt_the_install_is_named(
    monkeypatch: pytest.MonkeyPatch, source: Path, precision: Any, digit_images: NDArray[np.float32]
) -> None:
    for name in ("modelopt", "modelopt.onnx", "modelopt.onnx.autocast", "modelopt.onnx.quantization"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentLacksError, match="run pip install nvidia-modelopt onnx-graphsurgeon lief"):
        reduce(source, precision, digit_images)
    assert [entry.name for entry in source.parent.iterdir()] == ["fp32.onnx"]


def test_bf16_is_measured_by_rounding_and_not_run(
    fake: FakeModelOpt, source: Path, digit_images: NDArray[np.float32]
) -> None:
    facts = reduce(source, "bf16", digit_images)
    assert facts.audit["MatMul"] == {"bf16": 12}
    assert facts.audit["LayerNormalization"] == {"fp32": 5}
    assert facts.how.difference is not None
    assert 1e-3 < facts.how.difference < 0.1
    assert "rounded to bf16" in facts.how.measured
    assert facts.how.as_run is None
    assert "ModelOpt 0.0 AutoCast" in facts.how.method
    (given,) = fake.calls
    assert given["low_precision_type"] == "bf16"
    assert given["op_types_to_exclude"] == ["LayerNormalization", "Softmax"]
    assert given["nodes_to_exclude"] == []
    assert given["keep_io_types"] is True


def test_its_errors_are_ours(fake: FakeModelOpt, source: Path, digit_images: NDArray[np.float32]) -> None:
    fake.error = AssertionError("no\nsuch thing")
    with pytest.raises(ResultError, match=r"ModelOpt's AutoCast failed \(AssertionError: no such thing\)"):
        reduce(source, "bf16", digit_images)


@needs_modelopt
@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_modelopt_itself(
    source: Path, precision: Any, digit_images: NDArray[np.float32], capfd: pytest.CaptureFixture[str]
) -> None:
    facts = reduce(source, precision, digit_images, Limits(difference=0.5, agreement=0.5))
    assert facts.audit["MatMul"] == ({"bf16": 12} if precision == "bf16" else {"fp8": 8, "fp32": 4})
    assert facts.how.difference is not None
    assert 1e-3 < facts.how.difference < 0.5
    assert capfd.readouterr().out == ""
    if "tensorrt-rtx" in installed_flavours():
        build(source.with_name(f"{precision}.onnx"), source.parent, ("8.9",), precision=precision)  # fp8 came with Ada
