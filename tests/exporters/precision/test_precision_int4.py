"""int4: weights of 4 bits that ONNX Runtime multiplies as this project packed them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.audit import check_audit, operator_dtypes
from vitcompress.exporters.precision.compare import Limits, logits_of
from vitcompress.exporters.precision.graph import load_source
from vitcompress.exporters.precision.nibbles import BLOCK, four_bit_products, four_bits, int4_from_fp32
from vitcompress.exporters.precision.reduce import reduced_from_onnx


def unpacked(weight_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the stored nibbles and scales stand for, by the operator's documentation."""
    packed, scales = four_bits(weight_NK)
    nibbles = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], BLOCK).astype(np.float32)
    return ((nibbles - 8) * scales.reshape(*packed.shape[:2], 1)).reshape(len(weight_NK), -1)[:, : weight_NK.shape[1]]


def test_onnx_runtime_multiplies_what_was_packed(onnx_file: Path, images: NDArray[np.float32]) -> None:
    """Rows of 48 weights, no multiple of a block: what is beyond the matrix must count for nothing."""
    source, wanted = load_source(onnx_file), onnx.load(onnx_file)
    tensors = {tensor.name: tensor for tensor in wanted.graph.initializer}
    products = [node for node in source.nodes if node.name in four_bit_products(source)]
    for node in products:
        weight = numpy_helper.to_array(tensors[node.input[1]])
        turned = any(one.name == "transB" and one.i for one in node.attribute)
        near = unpacked(weight) if turned else unpacked(weight.T).T
        assert np.abs(near - weight).max() < 0.31 * np.abs(weight).max()  # the smallest range tried leaves out 0.3
        assert np.sqrt(((near - weight) ** 2).mean()) < 0.1 * weight.std()
        tensors[node.input[1]].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(near), node.input[1]))
    assert {node.op_type for node in products} == {"MatMul", "Gemm"}
    expected = logits_of(wanted, images, optimised=False)
    for optimised in (False, True):
        found = logits_of(int4_from_fp32(source), images, optimised=optimised)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_network_is_audited_and_what_cannot_take_it_is_left(
    tmp_path: Path, onnx_file: Path, images: NDArray[np.float32]
) -> None:
    target, limits = tmp_path / "int4.onnx", Limits(difference=1.0, agreement=0.0)
    facts = reduced_from_onnx(onnx_file, target, "int4", calibration=images[:0], checked=images, limits=limits)
    audit = operator_dtypes(target)
    assert [audit[kind] for kind in ("MatMulNBits", "Conv", "MatMul")] == [{"int4": 9}, {"fp32": 1}, {"fp32": 4}]
    assert (facts.how.unreduced, facts.how.kept_fp32, facts.how.calibration) == (5, (), "")
    assert 2 * facts.bytes < onnx_file.stat().st_size
    with pytest.raises(ResultError, match="computes 9 of its 14 matrix products in int4, and 5 in fp32"):
        check_audit(audit, "int4", kept=4)
