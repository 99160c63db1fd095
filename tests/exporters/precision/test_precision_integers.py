from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vitcompress.exporters.precision.compare import logits_of
from vitcompress.exporters.precision.graph import SourceGraph, load_source
from vitcompress.exporters.precision.integers import Ranges, calibrated, int8_from_fp32, quantizable


@pytest.fixture(scope="module")
def source(onnx_file: Path) -> SourceGraph:
    return load_source(onnx_file)


def operands(source: SourceGraph) -> set[str]:
    names = set(quantizable(source))
    return {node.input[0] for node in source.nodes if node.name in names}


@pytest.fixture(scope="module")
def ranges(source: SourceGraph, images: NDArray[np.float32]) -> tuple[Ranges, ...]:
    return calibrated(source, images, operands(source))


def test_the_graph_is_what_tensorrt_takes(source: SourceGraph, ranges: tuple[Ranges, ...]) -> None:
    model = int8_from_fp32(source, ranges[0])
    onnx.checker.check_model(model, full_check=True)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantized = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(tensors[node.input[2]].dtype == np.int8 and not tensors[node.input[2]].any() for node in quantized)
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    assert all(readers[node.output[0]] == 1 for node in quantized)  # no pair is shared
    weights = [array for array in tensors.values() if array.dtype == np.int8 and array.ndim > 1]
    assert len(weights) == len(quantizable(source)) == 10
    assert all(array.min() >= -127 for array in weights)
    assert all(np.abs(array).max() == 127 for array in weights)


def test_what_is_always_zero_stays_zero(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    weight = np.array([[0, 1, 2], [0, 3, -1], [0, 0.5, 0], [0, 2, 2]], np.float32)  # and a channel of zeros
    nodes = [helper.make_node("MatMul", ["images", "weight"], ["logits"])]
    made = helper.make_graph(nodes, "g", [images], [logits], [numpy_helper.from_array(weight, "weight")])
    onnx.save(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "zero.onnx"
    )
    source = load_source(tmp_path / "zero.onnx")
    zeros = np.zeros((2, 4), np.float32)
    for ranges in calibrated(source, zeros, ["images"]):
        assert not logits_of(int8_from_fp32(source, ranges), zeros, optimised=True).any()
