"""int4: weights of 4 bits that ONNX Runtime multiplies as this project packed them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.audit import audit_of, check_audit, operator_dtypes
from vitcompress.exporters.precision.compare import Limits, logits_of
from vitcompress.exporters.precision.graph import inferred, load_source
from vitcompress.exporters.precision.nibbles import BLOCK, four_bit_products, four_bits, int4_from_fp32
from vitcompress.exporters.precision.reduce import reduced_from_onnx

K, N = 40, 6
"""No multiple of a block: what is beyond the matrix must count for nothing."""


def graph_file(folder: Path, gemm: dict[str, float]) -> Path:
    """A MatMul ``[B, K]`` by ``[K, K]``, then a Gemm with a bias to ``[B, N]``."""
    rng = np.random.default_rng(0)
    shape = (N, K) if gemm.get("transB") else (K, N)
    arrays = {"W": rng.normal(size=(K, K)), "V": rng.normal(size=shape), "b": rng.normal(size=N)}
    nodes = [
        helper.make_node("MatMul", ["images", "W"], ["x"], "first"),
        helper.make_node("Gemm", ["x", "V", "b"], ["logits"], "classify", **gemm),
    ]
    ends = [helper.make_tensor_value_info(*one) for one in (
        ("images", TensorProto.FLOAT, ["batch", K]), ("logits", TensorProto.FLOAT, ["batch", N]),
    )]  # fmt: skip
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "m.onnx")
    return folder / "m.onnx"


def unpacked(weight_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the stored nibbles and scales stand for, by the operator's documentation."""
    packed, scales = four_bits(weight_NK)
    nibbles = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], BLOCK).astype(np.float32)
    return ((nibbles - 8) * scales.reshape(*packed.shape[:2], 1)).reshape(len(weight_NK), -1)[:, : weight_NK.shape[1]]


@pytest.mark.parametrize("gemm", [{"transB": 1}, {}])
def test_onnx_runtime_multiplies_what_was_packed(tmp_path: Path, gemm: dict[str, float]) -> None:
    source = load_source(graph_file(tmp_path, gemm))
    model = int4_from_fp32(source)
    onnx.checker.check_model(inferred(model, "int4"), full_check=True)
    assert audit_of(inferred(model, "int4")) == {"Add": {"fp32": 1}, "MatMulNBits": {"int4": 2}}
    images = np.random.default_rng(1).normal(size=(3, K)).astype(np.float32)
    first, second, bias = (numpy_helper.to_array(tensor) for tensor in source.model.graph.initializer)
    second = second if gemm else second.T
    expected = images @ unpacked(first.T).T @ unpacked(second).T + bias
    for optimised in (False, True):
        np.testing.assert_allclose(logits_of(model, images, optimised=optimised), expected, rtol=1e-4, atol=1e-4)


def test_a_weight_is_off_by_less_than_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(N, 2 * BLOCK)).astype(np.float32)
    weight[0] = 0
    error = np.abs(unpacked(weight) - weight).reshape(N, 2, BLOCK)
    largest = np.abs(weight).reshape(N, 2, BLOCK).max(-1)
    assert not error[0].any()
    assert (error.max(-1) <= 0.31 * largest).all()  # a clipped one, of the smallest range tried
    assert np.median(error[1:]) < 0.06 * largest.max()


def test_a_network_is_audited_and_what_cannot_take_it_is_left(onnx_file: Path, images: NDArray[np.float32]) -> None:
    target = onnx_file.with_name("int4.onnx")
    facts = reduced_from_onnx(
        onnx_file, target, "int4", calibration=images[:0], checked=images, limits=Limits(difference=1.0, agreement=0.0)
    )
    audit = operator_dtypes(target)
    assert audit["MatMulNBits"] == {"int4": 9}
    assert (audit["Conv"], audit["MatMul"]) == ({"fp32": 1}, {"fp32": 4})
    assert (facts.how.unreduced, facts.how.kept_fp32, facts.how.calibration) == (5, (), "")
    assert 2 * facts.bytes < onnx_file.stat().st_size
    check_audit(audit, "int4", kept=5)
    with pytest.raises(ResultError, match="computes 9 of its 14 matrix products in int4, and 5 in fp32"):
        check_audit(audit, "int4", kept=4)


def test_products_that_the_operator_does_not_have_stay(tmp_path: Path) -> None:
    assert four_bit_products(load_source(graph_file(tmp_path, {"alpha": 0.5}))) == ("first",)
