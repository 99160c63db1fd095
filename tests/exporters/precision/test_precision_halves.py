from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from reduced_models import export, reduce, with_huge_mlp

from vitcompress.exporters.precision.compare import logits_of
from vitcompress.exporters.precision.graph import SourceGraph, inferred, load_source, tensor_types
from vitcompress.exporters.precision.halves import fp16_from_fp32
from vitcompress.exporters.precision.simulate import simulated


@pytest.fixture(scope="module")
def source(onnx_file: Path) -> SourceGraph:
    return load_source(onnx_file)


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


def graph(nodes: list[onnx.NodeProto], shape: list[int | str], *tensors: onnx.TensorProto) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "g", [images], [logits], list(tensors))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_pixels_become_fp16_at_once(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((48, 10), dtype=np.float32) / 255
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    onnx.save(graph(nodes, ["N", 4, 4, 3], numpy_helper.from_array(weight, "weight")), tmp_path / "pixels.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    facts = reduce(tmp_path / "pixels.onnx", "fp16", pixels)
    assert facts.audit["Cast"] == {"fp16": 1, "fp32": 1}
    assert facts.how.difference is not None
    assert facts.how.difference < 2e-3
    assert reduce(tmp_path / "pixels.onnx", "int8", pixels).audit["MatMul"] == {"int8": 1}


def test_comparisons_read_numbers_of_one_type(tmp_path: Path) -> None:
    """``Greater`` gives no float, but reads two, which must be alike."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["pixels", "weight"], ["product"]),
        helper.make_node("Greater", ["product", "limit"], ["above"]),
        helper.make_node("Where", ["above", "product", "limit"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(np.eye(6, dtype=np.float32), "weight")]
    tensors.append(numpy_helper.from_array(np.float32(3), "limit"))
    onnx.save(graph(nodes, ["N", 6], *tensors), tmp_path / "where.onnx")
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    model = fp16_from_fp32(load_source(tmp_path / "where.onnx"))
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(logits_of(model, pixels, optimised=True), np.maximum(pixels, 3))
