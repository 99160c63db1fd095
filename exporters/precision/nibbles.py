"""int4 weights: ONNX Runtime's ``com.microsoft.MatMulNBits`` in place of the products with a weight.

Each block of 32 weights along the rows of a matrix has a scale of its own: 5 bits a weight in all. Activations and
arithmetic are float32; the patch embedding (a convolution) and attention's own products have no such operator. Not by
ONNX Runtime's quantizer (1.32): it takes no Gemm, which classifiers are, and its scale is that of the largest weight.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.exporters.precision.graph import SourceGraph, attributes_of, is_plain, replace_tensors, with_bias
from vitcompress.exporters.precision.integers import quantizable

BLOCK = 32
_ZERO = 8
"""The operator's zero point where none is given: weights are (0 to 15, minus 8) times the scale."""
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Of the largest weight of a block: what is represented exactly, the least squared error deciding."""


def four_bit_products(source: SourceGraph) -> tuple[str, ...]:
    """Return names of the products that ``MatMulNBits`` can compute: an activation times a constant matrix."""
    can = set(quantizable(source))
    return tuple(node.name for node in source.nodes if node.name in can and node.op_type != "Conv" and is_plain(node))


def int4_from_fp32(source: SourceGraph, kept: Collection[str] = ()) -> Any:
    """Return a copy of the graph with weights of 4 bits, a ``ModelProto``; ``kept`` names products left in fp32."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    known = {value.name: value for value in (*source.model.graph.value_info, *source.model.graph.output)}
    chosen = set(four_bit_products(source)) - set(kept)
    added: list[Any] = []
    nodes: list[Any] = []
    told = []
    for node in graph.node:
        if node.name not in chosen:
            nodes.append(node)
            continue
        result = node.output[0]
        nodes += _four_bit_nodes(node, onnx.numpy_helper.to_array(weights[node.input[1]]), added)
        # ONNX's inference knows no type that the operator gives.
        value = onnx.ValueInfoProto()
        value.CopyFrom(known[result])
        value.name = nodes[-1].output[0] if nodes[-1].op_type == "MatMulNBits" else nodes[-1].input[0]
        told += [value] if value.name not in {one.name for one in graph.output} else []
    del graph.node[:]
    graph.node.extend(nodes)
    replace_tensors(graph, added)
    graph.value_info.extend(told)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def _four_bit_nodes(node: Any, weight: NDArray[np.float32], added: list[Any]) -> list[Any]:
    """Return what computes a product: the operator, and a sum where a Gemm has a bias."""
    from onnx import helper, numpy_helper

    weight_NK = weight if attributes_of(node).get("transB") else weight.T
    packed, scales = four_bits(weight_NK)
    names = [f"{node.name}_int4", f"{node.name}_scales"]
    added += [numpy_helper.from_array(array, name) for array, name in zip((packed, scales), names, strict=True)]
    (rows, columns), settings = weight_NK.shape, {"bits": 4, "block_size": BLOCK, "accuracy_level": 1}  # 1: float32
    sizes = {"N": rows, "K": columns, "domain": "com.microsoft", **settings}
    read = [node.input[0], *names]
    return with_bias(node, lambda product: helper.make_node("MatMulNBits", read, [product], node.name, **sizes))


def four_bits(weight_NK: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a matrix as the operator stores it: uint8 ``[N, blocks, 16]``, low half first; scales ``[N * blocks]``.

    The scale is negative where the largest weight of a block is positive: only -8 reaches beyond 7.
    """
    rows, columns = weight_NK.shape
    blocks = -(-columns // BLOCK)
    values = np.zeros((rows, blocks * BLOCK), np.float32)
    values[:, :columns] = weight_NK
    values = values.reshape(rows, blocks, BLOCK)
    largest = np.take_along_axis(values, np.abs(values).argmax(-1, keepdims=True), -1) / -_ZERO
    largest[largest == 0] = 1.0
    found = np.full(largest.shape, np.inf, np.float32)
    scales, integers = largest, np.zeros(values.shape, np.uint8)
    for share in _SHARES:
        scale = largest * np.float32(share)
        tried = np.clip(np.rint(values / scale), -_ZERO, _ZERO - 1)
        error = ((tried * scale - values) ** 2).sum(-1, keepdims=True)
        better = error < found
        found, scales = np.where(better, error, found), np.where(better, scale, scales)
        integers = np.where(better, tried + _ZERO, integers).astype(np.uint8)
    packed = (integers[..., 0::2] | integers[..., 1::2] << 4).astype(np.uint8)
    return packed, scales.astype(np.float32).reshape(-1)
