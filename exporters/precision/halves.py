"""fp16 in an ONNX graph: weights and matrix products in half precision, LayerNormalization and Softmax in fp32.

Written here rather than taken from ``onnxruntime.transformers.float16``, whose result (measured, see docs/precision.md)
is not sorted topologically, which ONNX's checker refuses, casts the input of a ``Shape``, and casts there and back
between neighbours that both stay in fp32. Here a tensor is only ever cast from the type it was computed in.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from vitcompress.exporters.precision.graph import FP32_OPERATORS, MOVES, SourceGraph, replace_tensors

_TYPED = frozenset({"Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "Range", "Resize"})
"""Operators whose type is an attribute, or fixed: left as they are."""
_BLIND = frozenset({"Shape", "Size"})
"""Operators that read no values, and so any type."""


def fp16_from_fp32(source: SourceGraph, kept: Collection[str] = ()) -> Any:
    """Return an fp16 copy of the graph, a ``ModelProto`` with float32 input (if float) and output.

    ``kept`` names nodes to leave in fp32 beside LayerNormalization and Softmax.
    """
    return _Conversion(source, frozenset(kept)).model


class _Conversion:
    """One pass over the nodes in order. ``_home`` is the type each tensor is computed in."""

    def __init__(self, source: SourceGraph, kept: frozenset[str]) -> None:
        import onnx

        self._float, self._half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
        self._types, self._kept = source.types, kept
        self.model = onnx.ModelProto()
        self.model.CopyFrom(source.model)
        graph = self.model.graph
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._home = dict(source.types)
        self._cast: dict[tuple[str, int], str] = {}
        self._nodes: list[Any] = []
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._constants: list[Any] = []
        for node in graph.node:
            self._place(node)
        del graph.node[:]
        graph.node.extend(self._nodes)
        replace_tensors(graph, self._constants)

    def _is_float(self, name: str) -> bool:
        return bool(self._types.get(name) == self._float)

    def _fixed(self, node: Any) -> bool:
        """Return whether a node stays in fp32 whatever surrounds it."""
        return node.name in self._kept or node.op_type in FP32_OPERATORS or node.op_type in _TYPED

    def _halves(self, node: Any) -> bool:
        """Return whether a node computes in fp16."""
        if self._fixed(node) or not any(self._is_float(name) for name in node.output):
            return False
        if node.op_type not in MOVES:
            return True
        # Moving fp32 numbers from one fp32 operator to others: a cast there and back would only round them.
        moved = [name for name in node.input if self._is_float(name) and name not in self._initializers]
        readers = [reader for name in node.output for reader in self._readers.get(name, [])]
        ends = not self._outputs.isdisjoint(node.output)
        from_full = bool(moved) and all(self._home[name] == self._float for name in moved)
        return not (from_full and (readers or ends) and all(self._fixed(reader) for reader in readers))

    def _place(self, node: Any) -> None:
        """Append a node in its type, after the casts of its inputs; a graph's output is cast back to fp32."""
        wanted = self._half if self._halves(node) else self._float
        if node.op_type not in _BLIND:
            for index, name in enumerate(node.input):
                if self._is_float(name):
                    node.input[index] = self._as(name, wanted)
        if node.op_type == "Cast" and wanted == self._half:
            next(attribute for attribute in node.attribute if attribute.name == "to").i = self._half
        self._nodes.append(node)
        for index, name in enumerate(node.output):
            if self._is_float(name):
                self._home[name] = wanted
                if wanted == self._half and name in self._outputs:
                    node.output[index] = f"{name}_fp16"
                    self._home[name] = self._float
                    self._append_cast(f"{name}_fp16", name, self._float)

    def _as(self, name: str, wanted: int) -> str:
        """Return the name of ``name`` in the type ``wanted``, cast from its own type where it has another."""
        if self._home[name] == wanted:
            return name
        if (name, wanted) not in self._cast:
            new = f"{name}_{'fp16' if wanted == self._half else 'fp32'}"
            if name in self._initializers:
                self._constants.append(_rounded(self._initializers[name], new))
            else:
                self._append_cast(name, new, wanted)
            self._cast[name, wanted] = new
        return self._cast[name, wanted]

    def _append_cast(self, name: str, new: str, wanted: int) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node("Cast", [name], [new], name=f"cast_{new}", to=wanted))


def _rounded(tensor: Any, name: str) -> Any:
    """Return an initializer in fp16, under a new name."""
    from onnx import numpy_helper

    full = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):  # measured by what it does to the logits
        half = full.astype(np.float16)
    return numpy_helper.from_array(half, name)
