"""A 16-bit graph as its format demands, on a machine that has no arithmetic of that format.

ONNX Runtime on a CPU computes most fp16 operators in fp32 and drops the casts in between, so that values beyond 65504
pass there which become infinite on a GPU (measured: docs/precision.md); bf16 products it does not run at all. The graph
made here computes every operator in fp32, with a wide accumulator as tensor cores have, and rounds its outputs to the
16-bit format by casts that are part of the graph and so are carried out.
"""

from __future__ import annotations

from typing import Any

from vitcompress.exporters.precision.graph import tensor_types


def simulated(model: Any) -> Any:
    """Return an fp32 graph that rounds wherever ``model``, a graph with fp16 or bf16 tensors, does."""
    import onnx

    proto = onnx.TensorProto
    types = tensor_types(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph)
    narrow = {name: kind for name, kind in types.items() if kind in (proto.FLOAT16, proto.BFLOAT16)}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.name in narrow:
            values = onnx.numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    nodes = list(graph.node)
    del graph.node[:]
    del graph.value_info[:]
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in (proto.FLOAT16, proto.BFLOAT16):
                attribute.i = proto.FLOAT
            elif attribute.HasField("t") and attribute.t.data_type in (proto.FLOAT16, proto.BFLOAT16):
                values = onnx.numpy_helper.to_array(attribute.t).astype("float32")
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(values, attribute.t.name))
        rounded = []
        for index, name in enumerate(node.output):
            if name in narrow:
                node.output[index] = f"{name}_wide"
                rounded.append(onnx.helper.make_node("Cast", [f"{name}_wide"], [f"{name}_narrow"], to=narrow[name]))
                rounded.append(onnx.helper.make_node("Cast", [f"{name}_narrow"], [name], to=proto.FLOAT))
        graph.node.append(node)
        graph.node.extend(rounded)
    return result
