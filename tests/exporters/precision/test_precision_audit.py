from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_graphs import save_graph
from onnx import TensorProto, helper, numpy_helper

from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.audit import check_audit, operator_dtypes


def graph_file(path: Path, nodes: Sequence[onnx.NodeProto], *tensors: onnx.TensorProto) -> Path:
    return save_graph(path, nodes, helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4]), tensors)


def constant(name: str, values: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def test_fp32_is_fp32(onnx_file: Path) -> None:
    audit = operator_dtypes(onnx_file)
    assert audit["MatMul"] == {"fp32": 12}
    assert audit["LayerNormalization"] == {"fp32": 5}
    assert audit["Shape"] == {"int64": 1}
    check_audit(audit, "fp32")
    with pytest.raises(ResultError, match="computes 0 of its 14 matrix products in fp16, and 14 in fp32"):
        check_audit(audit, "fp16")


def test_weights_stored_small_are_not_computed_small(tmp_path: Path) -> None:
    """fp16 weights that are cast to fp32 before the product: the file is small, the arithmetic is not fp16."""
    nodes = [
        helper.make_node("Cast", ["weight"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["images", "wide"], ["logits"]),
    ]
    audit = operator_dtypes(graph_file(tmp_path / "m.onnx", nodes, constant("weight", np.eye(4, dtype=np.float16))))
    assert audit == {"Cast": {"fp32": 1}, "MatMul": {"fp32": 1}}
    with pytest.raises(ResultError, match="0 of its 1 matrix products in fp16"):
        check_audit(audit, "fp16")


@pytest.mark.parametrize(("operand", "dtype"), [("x", "int8"), ("images", "fp32")])
def test_a_product_is_int8_when_both_operands_are(tmp_path: Path, operand: str, dtype: str) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["w"]),
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        helper.make_node("MatMul", [operand, "w"], ["logits"]),
    ]
    weight, zero = constant("weight", np.eye(4, dtype=np.int8)), constant("zero", np.int8(0))
    audit = operator_dtypes(graph_file(tmp_path / "m.onnx", nodes, weight, zero, constant("scale", np.float32(0.1))))
    assert (audit["MatMul"], audit["QuantizeLinear"]) == ({dtype: 1}, {"int8": 1})


def test_norms_and_softmax_must_be_in_fp32() -> None:
    with pytest.raises(ResultError, match=r"computes Softmax in \{'fp16': 1\}"):
        check_audit({"MatMul": {"fp16": 2}, "Softmax": {"fp16": 1, "fp32": 4}}, "fp16")
