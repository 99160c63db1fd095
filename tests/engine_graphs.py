"""Graphs for TensorRT: a tiny model in the precisions an exporter would give it, and graphs that cannot be built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vitcompress.core.artifact_records import Precision
from vitcompress.exporters.precision.graph import load_source
from vitcompress.exporters.precision.halves import fp16_from_fp32
from vitcompress.exporters.precision.integers import calibrated, int8_from_fp32, quantizable
from vitcompress.exporters.tensorrt import EngineFacts, engine_from_onnx


def fp16_file(source: Path, path: Path) -> Path:
    onnx.save(fp16_from_fp32(load_source(source)), path)
    return path


def int8_file(source: Path, path: Path, images: NDArray[np.float32]) -> Path:
    graph = load_source(source)
    operands = {node.input[0] for node in graph.nodes if node.name in quantizable(graph)}
    onnx.save(int8_from_fp32(graph, calibrated(graph, images, operands)[0]), path)
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


def save_graph(path: Path, nodes: Sequence[onnx.NodeProto], images: Any, tensors: Sequence[onnx.TensorProto]) -> Path:
    """Save a graph from the value info ``images`` to ``logits`` of the same type and unknown shape."""
    logits = helper.make_tensor_value_info("logits", images.type.tensor_type.elem_type, None)
    graph = helper.make_graph(nodes, "g", [images], [logits], tensors)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def linear_file(path: Path, *first: onnx.NodeProto) -> Path:
    """Logits that are a matrix product of the flattened images; ``first``: nodes from ``images`` to ``x`` before it."""
    nodes = [
        *first,
        helper.make_node("Flatten", ["x" if first else "images"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "W"], ["logits"], name="classify"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])
    return save_graph(path, nodes, images, [numpy_helper.from_array(np.ones((3 * 32 * 32, 10), np.float32), "W")])


def build(
    onnx_path: Path,
    folder: Path,
    capabilities: tuple[str, ...] = (),
    precision: Precision = "fp32",
) -> EngineFacts:
    """Build ``model.engine`` in a folder, for batches up to 6; the builder's log is ``logs/engine.log`` there."""
    return engine_from_onnx(
        onnx_path,
        folder / "model.engine",
        flavour="tensorrt-rtx",
        opt_batch=2,
        max_batch=6,
        compute_capabilities=capabilities,
        log_path=folder / "logs" / "engine.log",
        precision=precision,
    )
