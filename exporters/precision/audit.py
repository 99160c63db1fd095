"""What an ONNX graph really computes in, operator by operator: asked of the graph, not of whoever converted it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import OperatorDtypes, Precision
from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.graph import FP32_OPERATORS, PRODUCTS, load_graph, tensor_types

_NAMES = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "FLOAT8E4M3FN": "fp8",
    "DOUBLE": "fp64",
}
"""ONNX's names of number formats to ours; others go by their own in small letters."""
_INT4 = 22
"""ONNX's number of it."""
CONVERTERS = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear", "Shape"})
"""Operators that compute in no type of their own."""


def operator_dtypes(path: Path) -> OperatorDtypes:
    """Return operators by type and by the dtype they compute in.

    That is the type of the first tensor they compute with, by ONNX's own inference; and for a matrix product that reads
    dequantized operands only, the quantized type, since that is what a runtime multiplies; for a MatMulNBits of 4 bits,
    int4. Operators that only convert (Cast, QuantizeLinear, DequantizeLinear, Shape) count by what they give. Errors
    are those of ``load_graph``.
    """
    return audit_of(load_graph(path))


def audit_of(model: Any) -> OperatorDtypes:
    """``operator_dtypes`` of a ``ModelProto`` with inferred types."""
    found: OperatorDtypes = {}
    for node, dtype in node_dtypes(model):
        counts = found.setdefault(node.op_type, {})
        counts[dtype] = counts.get(dtype, 0) + 1
    return {kind: found[kind] for kind in sorted(found)}


def unreduced_products(model: Any, precision: Precision) -> tuple[str, ...]:
    """Return names of the matrix products of a typed ``ModelProto`` that do not compute in ``precision``."""
    return tuple(node.name for node, dtype in node_dtypes(model) if node.op_type in PRODUCTS and dtype != precision)


def node_dtypes(model: Any) -> list[tuple[Any, str]]:
    """Return every node of a typed ``ModelProto`` with the dtype it computes in (``operator_dtypes``)."""
    types = tensor_types(model.graph)
    dequantized = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [(node, _name(_computed_in(node, types, dequantized))) for node in model.graph.node]


def _computed_in(node: Any, types: dict[str, int], dequantized: dict[str, str]) -> int:
    if node.op_type == "MatMulNBits" and any(one.name == "bits" and one.i == 4 for one in node.attribute):
        return _INT4
    if node.op_type in PRODUCTS:
        operands = node.input[:2]
        stored = {types.get(dequantized[name], 0) for name in operands if name in dequantized}
        if len(stored) == 1 and all(name in dequantized for name in operands):
            return stored.pop()
    names = node.output if node.op_type in CONVERTERS else node.input
    return next((types[name] for name in (*names, *node.output) if types.get(name)), 0)


def _name(kind: int) -> str:
    import onnx

    name: str = onnx.TensorProto.DataType.Name(kind)
    return _NAMES.get(name, name.lower())


def check_audit(audit: OperatorDtypes, precision: Precision, kept: int = 0) -> None:
    """Raise a ResultError for a graph that is not of the precision it goes by.

    ``kept`` is how many matrix products may be in fp32: those a fallback left there, and those of attention in int8.
    LayerNormalization and Softmax must be.
    """
    counts = [audit[kind] for kind in PRODUCTS if kind in audit]
    total = sum(sum(of.values()) for of in counts)
    reduced = sum(of.get(precision, 0) for of in counts)
    if precision != "fp32" and (not reduced or total - reduced > kept):
        others = sorted({dtype for of in counts for dtype in of} - {precision})
        raise ResultError(
            f"this {precision} graph computes {reduced} of its {total} matrix products in {precision}, and "
            f"{total - reduced} in {' and '.join(others) or 'none'}; {kept} were to stay in fp32."
        )
    for kind in sorted(FP32_OPERATORS & audit.keys()):
        if other := {dtype: count for dtype, count in audit[kind].items() if dtype != "fp32"}:
            raise ResultError(f"this {precision} graph computes {kind} in {other}; it must be in fp32.")
