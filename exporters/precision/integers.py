"""int8 by quantize-dequantize pairs that both ONNX Runtime and TensorRT take, calibrated on real images.

Weights per output channel, activations per tensor, both symmetric (zero point 0): what TensorRT accepts. Only products
with a constant operand are quantized; those of attention (activation times activation) and all else stay in fp32.

Ranges of activations are read from real images, by three ways of choosing them, in two passes over the images. Not by
ONNX Runtime's calibrators (1.32): these take a pass for each method, keep what goes in and out of every product in
memory, and print their progress; and the range of least squared error, nearer to fp32 than their entropy, they lack.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitcompress.exporters.precision.compare import session_of
from vitcompress.exporters.precision.graph import SourceGraph, is_plain, replace_tensors, with_bias

Method = Literal["minmax", "percentile", "squares"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "squares")
"""The largest magnitude; the 99.99th percentile of magnitudes; the range of least squared error."""
LEVELS = 127
"""Largest int8 magnitude used: symmetric ranges leave -128 out."""
_PERCENTILE = 0.9999
BINS = 2048
"""Of the histogram of magnitudes that a range is read from."""
_CHUNK = 8
"""Images a run, whose activations are in memory together."""
_ZERO = "int8_zero"
_QUANTIZED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Ranges:
    """What calibration found by one method."""

    method: Method
    of: Mapping[str, float]
    """Largest magnitude to represent, by tensor name."""


def calibrated(source: SourceGraph, images: NDArray[Any], tensors: Collection[str]) -> tuple[Ranges, ...]:
    """Return ranges of ``tensors`` (float32 activations) over ``images``, as the graph takes them, by every method."""
    largest = dict.fromkeys(tensors, 0.0)
    for name, values in _activations(source, images, tensors):
        largest[name] = max(largest[name], float(np.abs(values).max()))
    counts = {name: np.zeros(BINS, np.int64) for name in largest}
    for name, values in _activations(source, images, tensors):
        if largest[name] > 0:
            counts[name] += np.histogram(np.abs(values), BINS, (0, largest[name]))[0]
    ways = {"minmax": lambda _: 1.0, "percentile": _percentile, "squares": least_squares}
    return tuple(
        Ranges(method, {name: top * ways[method](counts[name]) for name, top in largest.items()}) for method in METHODS
    )


def _activations(
    source: SourceGraph, images: NDArray[Any], tensors: Collection[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    import onnx

    inner = [name for name in dict.fromkeys(tensors) if name != source.input]
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    existing = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, source.types[name], None) for name in inner if name not in existing
    )
    session = session_of(model, optimised=False)
    for start in range(0, len(images), _CHUNK):
        part = np.ascontiguousarray(images[start : start + _CHUNK])
        if source.input in tensors:
            yield source.input, part
        if inner:
            yield from zip(inner, session.run(inner, {source.input: part}), strict=True)


def _percentile(counts: NDArray[np.int64]) -> float:
    """Return the share of the largest magnitude below which 99.99 % of the magnitudes lie."""
    return float(np.searchsorted(counts.cumsum(), _PERCENTILE * counts.sum()) + 1) / BINS


def least_squares(counts: NDArray[np.int64]) -> float:
    """Return share of the largest magnitude whose rounding below and clipping above have the least squared error."""
    centres = (np.arange(BINS) + 0.5) / BINS
    tops = np.arange(8, 129) / 128
    steps = tops[:, None] / LEVELS
    rounded = np.clip(np.rint(centres / steps), 0, LEVELS) * steps
    errors = ((centres - rounded) ** 2 * counts).sum(axis=1)
    return float(tops[errors.argmin()])


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
    # An activation that was 0 all over (a dead channel's) has no scale; any positive one represents it exactly.
    # ONNX Runtime (1.32) merges equal pairs, and multiplies int8 only where one product alone reads a pair. So a second
    # reader of a tensor, such as k beside q, gets the next scale that float32 has.
    scales = {name: np.float32(top / LEVELS or 1.0) for name, top in ranges.of.items()}
    for node in graph.node:
        if node.name in quantized:
            name = node.input[0]
            nodes += _activation_pair(node, scales[name], added)
            scales[name] = np.nextafter(scales[name], np.float32(np.inf))
            nodes.append(_weight_scaled(node, weights[node.input[1]], added))
            nodes += _as_matmul(node) if _is_plain_gemm(node) else [node]
        else:
            nodes.append(node)
    _subtract_biases(nodes, quantized, weights, added)
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


def _activation_pair(node: Any, scale: np.float32, added: dict[str, Any]) -> list[Any]:
    """Return a pair for the activation that a product reads; TensorRT takes none that products share."""
    from onnx import helper, numpy_helper

    name = f"{node.name}_input"
    added[f"{name}_scale"] = numpy_helper.from_array(np.asarray(scale), f"{name}_scale")
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
    if _is_plain_gemm(node) and _output_axis(node, values.ndim) == 0:
        values = np.ascontiguousarray(values.T)  # as the MatMul reads it that is made of this Gemm
    axis = values.ndim - 1 if _is_plain_gemm(node) else _output_axis(node, values.ndim)
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


def _subtract_biases(
    nodes: Collection[Any], quantized: Collection[str], weights: Mapping[str, Any], added: dict[str, Any]
) -> None:
    """Make a difference with ``-bias`` of each quantized MatMul's sum with its bias, which is the same to the bit.

    ONNX Runtime (1.32) makes one fp32 Gemm of a product and such a sum (MatMulAddFusion) before it looks for int8.
    """
    from onnx import numpy_helper

    products = {node.output[0] for node in nodes if node.op_type == "MatMul" and node.name in quantized}
    for node in nodes:
        if node.op_type != "Add" or len(read := [name for name in node.input if name in products]) != 1:
            continue
        [bias] = [name for name in node.input if name not in products]
        if bias not in weights or sum(size > 1 for size in weights[bias].dims) > 1:
            continue
        added[f"{bias}_negative"] = numpy_helper.from_array(-numpy_helper.to_array(weights[bias]), f"{bias}_negative")
        node.op_type = "Sub"
        node.input[:] = [read[0], f"{bias}_negative"]


def _is_plain_gemm(node: Any) -> bool:
    return node.op_type == "Gemm" and is_plain(node)


def _as_matmul(gemm: Any) -> list[Any]:
    """Return a Gemm as MatMul and Add: ONNX Runtime (1.32) multiplies int8 of a Gemm only where its bias is int32.

    TensorRT takes no int32 bias.
    """
    from onnx import helper

    return with_bias(gemm, lambda product: helper.make_node("MatMul", list(gemm.input[:2]), [product], gemm.name))


def _output_axis(node: Any, rank: int) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else rank - 1
