"""Graphs for TensorRT: a tiny model in the precisions an exporter would give it, and graphs that cannot be built."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_QUANTISED = ["Conv", "Gemm", "MatMul"]


def fp16_file(source: Path, path: Path) -> Path:
    """Half precision but for LayerNormalization and Softmax; float32 input and output."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # values that fp16 rounds to zero
        kept = ["LayerNormalization", "Softmax"]
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=kept), path)
    return path


def int8_file(source: Path, path: Path, images: NDArray[np.float32]) -> Path:
    """Static QDQ, symmetric, per channel, without quantised biases: what TensorRT accepts."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{"images": images}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    logging.disable(logging.WARNING)  # it advises a preprocessing that slimmed graphs do not need
    try:
        quantize_static(
            source,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=_QUANTISED,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "MatMulConstBOnly": True,
                "DedicatedQDQPair": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": _QUANTISED,
            },
        )
    finally:
        logging.disable(logging.NOTSET)
    return path


def pixels_file(source: Path, path: Path) -> Path:
    """The same network for uint8 ``[batch, S, S, 3]``: a Cast and a Transpose before it."""
    model = onnx.load(source)
    graph = model.graph
    size = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    for node in graph.node:
        node.input[:] = ["planes" if name == "images" else name for name in node.input]
    graph.node.insert(0, helper.make_node("Transpose", ["cast"], ["planes"], name="to_planes", perm=[0, 3, 1, 2]))
    graph.node.insert(0, helper.make_node("Cast", ["images"], ["cast"], name="to_float", to=TensorProto.FLOAT))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3]))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def linear_file(
    path: Path,
    *first: onnx.NodeProto,
    batch: str | int = "batch",
    constants: dict[str, NDArray[Any]] | None = None,
    dtype: int = TensorProto.FLOAT,
    shape: tuple[str | int, ...] = (3, 32, 32),
) -> Path:
    """Logits that are a matrix product of the flattened images; ``first``: nodes from ``images`` to ``x`` before it."""
    start = "x" if first else "images"
    nodes = [
        *first,
        helper.make_node("Flatten", [start], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "W"], ["logits"], name="classify"),
    ]
    weights = np.ones((3 * 32 * 32, 10), helper.tensor_dtype_to_np_dtype(dtype))
    values = [numpy_helper.from_array(value, name) for name, value in {"W": weights, **(constants or {})}.items()]
    images = helper.make_tensor_value_info("images", dtype, [batch, *shape])
    graph = helper.make_graph(nodes, "g", [images], [helper.make_tensor_value_info("logits", dtype, None)], values)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path
