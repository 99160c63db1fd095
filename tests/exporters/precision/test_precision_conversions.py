from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from engine_graphs import int8_file, save_graph
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from reduced_models import export, with_huge_mlp

from vitcompress.exporters.precision.compare import logits_of
from vitcompress.exporters.precision.graph import SourceGraph, inferred, load_source, tensor_types
from vitcompress.exporters.precision.halves import fp16_from_fp32
from vitcompress.exporters.precision.integers import calibrated, int8_from_fp32, quantizable
from vitcompress.exporters.precision.trial import simulated


@pytest.fixture(scope="module")
def source(onnx_file: Path) -> SourceGraph:
    return load_source(onnx_file)


def test_the_graph_is_what_tensorrt_takes(onnx_file: Path, tmp_path: Path, images: NDArray[np.float32]) -> None:
    model = onnx.load(int8_file(onnx_file, tmp_path / "int8.onnx", images))
    onnx.checker.check_model(model, full_check=True)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantized = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(tensors[node.input[2]].dtype == np.int8 and not tensors[node.input[2]].any() for node in quantized)
    readers = Counter(name for node in model.graph.node for name in node.input)
    assert all(readers[node.output[0]] == 1 for node in quantized)  # no pair is shared
    weights = [array for array in tensors.values() if array.dtype == np.int8 and array.ndim > 1]
    assert len(weights) == len(quantizable(load_source(onnx_file))) == 10
    assert all(array.min() >= -127 for array in weights)
    assert all(np.abs(array).max() == 127 for array in weights)


def operators_run(model: Any, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a graph."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def test_onnx_runtime_multiplies_in_int8_what_reads_one_tensor(tmp_path: Path) -> None:
    """As query, key and value do. It merges pairs that are equal, and multiplies by fp32 where one pair is shared."""
    tokens = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 5, 8])
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((8, 8), np.float32), name) for name in "qkv"]
    nodes = [helper.make_node("MatMul", ["images", name], [f"{name}_out"], f"to_{name}") for name in "qkv"]
    nodes.append(helper.make_node("Concat", ["q_out", "k_out", "v_out"], ["logits"], "concat", axis=2))
    source = load_source(save_graph(tmp_path / "three.onnx", nodes, tokens, weights))
    images = rng.standard_normal((4, 5, 8), np.float32)
    model = int8_from_fp32(source, calibrated(source, images, ["images"])[0])
    made = operators_run(model, tmp_path)
    assert made["MatMulIntegerToFloat"] == 3
    expected = logits_of(source.model, images, optimised=True)
    assert np.abs(logits_of(model, images, optimised=True) - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("batch", ["N", 4])
@pytest.mark.parametrize("shape", [(8,), (1, 8)])
def test_onnx_runtime_multiplies_in_int8_before_a_bias(batch: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    """It makes one fp32 Gemm of a product and the sum with its bias, whether these come as one node or as two."""
    rows = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 8])
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((8, 8), np.float32) for name in ("first", "second")}
    arrays |= {name: rng.standard_normal(shape, np.float32) for name in ("first_bias", "second_bias")}
    nodes = [
        helper.make_node("Gemm", ["images", "first", "first_bias"], ["hidden"], "to_hidden"),
        helper.make_node("MatMul", ["hidden", "second"], ["product"], "to_product"),
        helper.make_node("Add", ["second_bias", "product"], ["sum"], "to_sum"),
        helper.make_node("Add", ["sum", "second_bias"], ["logits"], "again"),
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    source = load_source(save_graph(tmp_path / "biased.onnx", nodes, rows, weights))
    images = rng.standard_normal((4, 8), np.float32)
    model = int8_from_fp32(source, calibrated(source, images, ["images", "hidden"])[0])
    assert Counter(node.op_type for node in model.graph.node)["Sub"] == 2
    made = operators_run(model, tmp_path)
    assert (made["MatMulIntegerToFloat"], made["Gemm"]) == (2, 0)
    expected = logits_of(source.model, images, optimised=False)
    assert np.abs(logits_of(model, images, optimised=False) - expected).max() < 0.03 * np.abs(expected).max()


def test_what_is_always_zero_stays_zero(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 4])
    weight = np.array([[0, 1, 2], [0, 3, -1], [0, 0.5, 0], [0, 2, 2]], np.float32)  # and a channel of zeros
    nodes = [helper.make_node("MatMul", ["images", "weight"], ["logits"])]
    source = load_source(save_graph(tmp_path / "zero.onnx", nodes, images, [numpy_helper.from_array(weight, "weight")]))
    zeros = np.zeros((2, 4), np.float32)
    for ranges in calibrated(source, zeros, ["images"]):
        assert not logits_of(int8_from_fp32(source, ranges), zeros, optimised=True).any()


def test_no_cast_but_at_a_border(source: SourceGraph) -> None:
    model = fp16_from_fp32(source)
    onnx.checker.check_model(model, full_check=True)
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    assert len(casts) == 16  # in and out, and of each norm and softmax
    assert not set(casts.values()) & set(casts)  # none of a cast
    read = Counter(name for node in model.graph.node for name in node.input)
    assert all(read[name] or name == "logits" for name in casts)
    types = tensor_types(inferred(model, "fp16").graph)
    assert all(types[before] != types[after] for after, before in casts.items())


def test_everything_kept_is_fp32_bit_by_bit(source: SourceGraph, images: NDArray[np.float32]) -> None:
    model = fp16_from_fp32(source, [node.name for node in source.nodes])
    assert "Cast" not in {node.op_type for node in model.graph.node}
    expected = logits_of(source.model, images, optimised=False)
    np.testing.assert_array_equal(logits_of(model, images, optimised=False), expected)


def test_overflow_shows_in_the_simulation_alone(tmp_path: Path, images: NDArray[np.float32]) -> None:
    """ONNX Runtime on a CPU computes fp16 operators in fp32: that it is content says nothing about a GPU."""
    source = load_source(export(with_huge_mlp(1, depth=2), tmp_path / "huge.onnx"))
    model = fp16_from_fp32(source)
    assert np.isfinite(logits_of(model, images, optimised=True)).all()
    assert not np.isfinite(logits_of(simulated(model), images, optimised=False)).all()
