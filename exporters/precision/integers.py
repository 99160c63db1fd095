"""int8 by quantize-dequantize pairs that both ONNX Runtime and TensorRT take, calibrated on real images.

Weights per output channel, activations per tensor, both symmetric (zero point 0): what TensorRT accepts. Only products
with a constant operand are quantized; those of attention (activation times activation) and all else stay in fp32.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from vitcompress.exporters.precision.calibrate import LEVELS, Ranges
from vitcompress.exporters.precision.graph import SourceGraph, replace_tensors

_ZERO = "int8_zero"
_QUANTIZED = ("Conv", "Gemm", "MatMul")


def int8_from_fp32(source: SourceGraph, ranges: Ranges, kept: Collection[str] = ()) -> Any:
    """Return an int8 copy of the graph; ``kept`` names products to leave in fp32.

    ONNX Runtime's own quantizer is not used: calibration goes with it, which a search should not repeat, and it lets
    operators that need no pixels, such as a ``Shape``, read quantized ones (measured; docs/precision.md).
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    quantized = set(quantizable(source)) - set(kept)
    added: dict[str, Any] = {}
    nodes = []
    for node in graph.node:
        if node.name in quantized:
            nodes += _activation_pair(node, ranges.of[node.input[0]] / LEVELS, added)
            nodes.append(_weight_scaled(node, weights[node.input[1]], added))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    replace_tensors(graph, added.values())
    return model


def quantizable(source: SourceGraph) -> tuple[str, ...]:
    """Return names of the products of an activation with a constant weight, in that order.

    A stack of matrices, one a head, is left out: ONNX Runtime's kernel takes the scales of one matrix alone, and fails.
    """
    stacks = {tensor.name for tensor in source.model.graph.initializer if len(tensor.dims) > 2}
    return tuple(
        node.name
        for node in source.nodes
        if node.op_type in _QUANTIZED
        and node.input[0] not in source.constants
        and node.input[1] in source.constants
        and (node.op_type == "Conv" or node.input[1] not in stacks)
    )


def _activation_pair(node: Any, scale: float, added: dict[str, Any]) -> list[Any]:
    """Return a pair for the activation that a product reads; TensorRT takes none that products share."""
    from onnx import helper, numpy_helper

    name = f"{node.name}_input"
    # An activation that was 0 all over (a dead channel's) has no scale; any positive one represents it exactly.
    added[f"{name}_scale"] = numpy_helper.from_array(np.float32(scale or 1.0), f"{name}_scale")
    added[_ZERO] = numpy_helper.from_array(np.int8(0), _ZERO)
    parameters = [f"{name}_scale", _ZERO]
    quantize = helper.make_node(
        "QuantizeLinear", [node.input[0], *parameters], [f"{name}_int8"], name=f"quantize_{name}"
    )
    dequantize = helper.make_node(
        "DequantizeLinear", [f"{name}_int8", *parameters], [f"{name}_dequantized"], name=f"dequantize_{name}"
    )
    node.input[0] = f"{name}_dequantized"
    return [quantize, dequantize]


def _weight_scaled(node: Any, weight: Any, added: dict[str, Any]) -> Any:
    """Return the product's weight as int8 with a scale for each output channel, and the node that multiplies them."""
    from onnx import helper, numpy_helper

    values = numpy_helper.to_array(weight)
    axis = _output_axis(node, values.ndim)
    others = tuple(index for index in range(values.ndim) if index != axis)
    scales = np.abs(values).max(axis=others).astype(np.float32) / np.float32(LEVELS)
    scales[scales == 0] = 1.0
    shape = [1] * values.ndim
    shape[axis] = -1
    integers = np.clip(np.rint(values / scales.reshape(shape)), -LEVELS, LEVELS).astype(np.int8)
    name = f"{node.name}_weight"
    for suffix, array in (("int8", integers), ("scale", scales), ("zero", np.zeros(len(scales), np.int8))):
        added[f"{name}_{suffix}"] = numpy_helper.from_array(array, f"{name}_{suffix}")
    node.input[1] = f"{name}_dequantized"
    return helper.make_node(
        "DequantizeLinear",
        [f"{name}_int8", f"{name}_scale", f"{name}_zero"],
        [node.input[1]],
        name=f"dequantize_{name}",
        axis=axis,
    )


def _output_axis(node: Any, rank: int) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else rank - 1
