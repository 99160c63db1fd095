"""Conversions measured, and the search for what must stay in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.compare import Deviation, Limits, deviation, logits_of
from vitcompress.exporters.precision.graph import SourceGraph, tensor_types
from vitcompress.exporters.precision.recipes import ROUNDED, RUN_HERE, Recipe


@dataclass(frozen=True)
class Trial:
    """A reduced graph, and how far it is from fp32."""

    kept: frozenset[str]
    """Nodes left in fp32."""
    model: Any
    """The ``ModelProto``."""
    deviation: Deviation | None
    """None when it could not be measured."""
    measured: str
    """How it was measured, or why not."""

    def within(self, limits: Limits) -> bool:
        """Return whether the limits are met; a graph that cannot be measured here meets them."""
        found = self.deviation
        return found is None or (found.relative <= limits.difference and found.agreement >= limits.agreement)

    def __str__(self) -> str:
        if self.deviation is None:
            return self.measured
        return (
            f"{self.deviation.relative:.2g} of the logits' spread from fp32, "
            f"{self.deviation.agreement:.1%} the same top-1"
        )


def tried(recipe: Recipe, kept: frozenset[str], checked: NDArray[Any], expected: NDArray[np.float32]) -> Trial:
    """Make the graph with ``kept`` in fp32, and compare its logits of ``checked`` with ``expected``, those of fp32.

    A ResultError is raised where a graph that ONNX Runtime must run does not run.
    """
    converted, precision = recipe.convert(kept), recipe.precision
    rounded = f"each operator in fp32 and its result rounded to {precision}, in ONNX Runtime"
    how = rounded if precision in ROUNDED else "in ONNX Runtime, operator by operator"
    try:
        model = simulated(converted) if precision in ROUNDED else converted
        logits = logits_of(model, checked, optimised=False)
    except ResultError as error:
        if precision in RUN_HERE:
            raise
        return Trial(kept, converted, None, f"not measured: {error}")
    return Trial(kept, converted, deviation(logits, expected, converted), how)


def simulated(model: Any) -> Any:
    """Return an fp32 graph that rounds wherever ``model``, a graph with fp16 or bf16 tensors, does.

    ONNX Runtime on a CPU computes most fp16 operators in fp32 and drops the casts in between, so that values beyond
    65504 pass there which become infinite on a GPU (measured: docs/precision.md); bf16 products it does not run at all.
    The graph made here computes every operator in fp32, with a wide accumulator as tensor cores have, and rounds its
    outputs to the 16-bit format by casts that are part of the graph and so are carried out.
    """
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


def search(
    source: SourceGraph,
    recipe: Recipe,
    checked: NDArray[Any],
    expected: NDArray[np.float32],
    limits: Limits,
    say: Callable[[str], None],
) -> tuple[Trial, int]:
    """Return a graph within the limits, and how many were made.

    Nothing stays in fp32 where the limits are met without. Else every part of the network (``SourceGraph.parts``)
    begins in fp32, and each in turn is reduced, and stays so if the limits are still met. A ResultError is raised where
    no part can be reduced.
    """
    first = tried(recipe, frozenset(), checked, expected)
    say(f"{recipe.precision}: {first}")
    if first.within(limits):
        return first, 1
    say(f"{recipe.precision} misses its limits; looking for the parts to leave in fp32")
    best, kept, count = None, frozenset(recipe.candidates), 1
    for part in source.parts():
        if not kept & part:
            continue
        trial, count = tried(recipe, kept - part, checked, expected), count + 1
        if trial.within(limits):
            best, kept = trial, trial.kept
    if best is None:
        raise ResultError(
            f"{recipe.precision} cannot be made of this network: {first}, where {limits.difference:g} and "
            f"{limits.agreement:.1%} are the limits, and no part of it takes this precision. Leave it out."
        )
    say(f"{recipe.precision}: {len(kept)} of {len(recipe.candidates)} nodes left in fp32: {best}")
    return best, count
