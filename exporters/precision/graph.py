"""An fp32 ONNX graph as the conversions read it: every node named, every tensor's type known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import ResultError, UsageError

EXTERNAL_ABOVE = 1_500_000_000
"""Bytes of weights above which they go to a file of their own: a protobuf message ends at 2 GB."""
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Einsum", "ConvTranspose", "MatMulNBits"})
"""The matrix products: nearly all the arithmetic of a ViT, and what a reduced precision is for."""
FP32_OPERATORS = frozenset({"LayerNormalization", "Softmax"})
"""Computed in fp32 in every precision: their sums over squares and exponentials leave fp16's range first."""

MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice"}
    | {"Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""Operators that move numbers without computing any."""


@dataclass(frozen=True)
class SourceGraph:
    """An fp32 graph. Its model is shared: convert copies of it."""

    model: Any
    """The ``ModelProto``, with its weights and the inferred type of every tensor; every node has a name."""
    types: Mapping[str, int]
    """ONNX element type of every tensor, initializers included."""
    constants: frozenset[str]
    """Names of the initializers."""
    input: str

    @property
    def nodes(self) -> Any:
        """The nodes, in topological order."""
        return self.model.graph.node

    def products(self, *, weighted: bool) -> tuple[str, ...]:
        """Return names of the matrix products; ``weighted``: only those with a constant operand."""
        found = (node for node in self.nodes if node.op_type in PRODUCTS)
        return tuple(node.name for node in found if not weighted or self.constants.intersection(node.input))

    def parts(self) -> tuple[frozenset[str], ...]:
        """Return names of the nodes in groups, in order; one begins at each LayerNormalization."""
        found: list[set[str]] = [set()]
        for node in self.nodes:
            if node.op_type == "LayerNormalization":
                found.append(set())
            found[-1].add(node.name)
        return tuple(frozenset(part) for part in found)


def load_source(path: Path) -> SourceGraph:
    """Read an fp32 graph of one input.

    A UsageError is raised where its weights are in a second file; other errors are those of ``load_graph``.
    """
    model = load_graph(path)
    graph = model.graph
    if any(tensor.external_data for tensor in graph.initializer):
        raise UsageError(
            f"{path.name} has its weights in a second file, as graphs of more than {EXTERNAL_ABOVE / 1e9:.1f} GB do (a "
            "protobuf message ends at 2 GB); reduced precisions are made of smaller ones. Leave it at fp32."
        )
    constants = frozenset(tensor.name for tensor in graph.initializer)
    return SourceGraph(model, tensor_types(graph), constants, graph.input[0].name)


def load_graph(path: Path) -> Any:
    """Return a ``ModelProto`` with a name for every node and the inferred type of every tensor.

    Weights in a second file are left there. A ResultError is raised where the types cannot be inferred.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    # Exclusions and reports go by names, which ONNX does not require.
    counts = Counter(node.name for node in model.graph.node)
    for index, node in enumerate(model.graph.node):
        if not node.name or counts[node.name] > 1:
            node.name = f"{node.op_type}_{index}"
    return inferred(model, path.name)


def inferred(model: Any, name: str) -> Any:
    """Return a copy with the type of every tensor; a ResultError, which says ``name``, is raised where that fails."""
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # InferenceError, or ValueError of a graph that is none
        raise ResultError(f"the types of the tensors in {name} cannot be inferred ({one_line(error)}).") from error


_PLAIN = {"transA": 0, "alpha": 1.0, "beta": 1.0}


def attributes_of(node: Any) -> dict[str, Any]:
    """Return a node's attributes by name."""
    import onnx

    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


def is_plain(product: Any) -> bool:
    """Return whether a MatMul or Gemm does no more than a product, of a weight that may be transposed, and a sum."""
    return all(_PLAIN.get(name, value) == value for name, value in attributes_of(product).items())


def with_bias(product: Any, made: Callable[[str], Any]) -> list[Any]:
    """Return what computes a plain product: the node that ``made`` gives for an output's name, and a Gemm's sum."""
    from onnx import helper

    if len(product.input) < 3 or product.input[2] == "":
        return [made(product.output[0])]
    name = f"{product.name}_product"
    return [made(name), helper.make_node("Add", [name, product.input[2]], product.output, f"{product.name}_bias")]


def replace_tensors(graph: Any, added: Iterable[Any]) -> None:
    """Give a graph whose nodes were changed the tensors that they read, of its own and ``added`` ones."""
    import onnx

    read = {name for node in graph.node for name in node.input}
    tensors = onnx.GraphProto()  # copies, so that those read still can take the place of all
    tensors.initializer.extend(tensor for tensor in (*graph.initializer, *added) if tensor.name in read)
    graph.ClearField("initializer")
    graph.initializer.extend(tensors.initializer)
    graph.ClearField("value_info")  # of the types before; whoever needs them infers them anew


def tensor_types(graph: Any) -> dict[str, int]:
    """Return ONNX element type by tensor name, from inferred value infos and initializers."""
    types = {tensor.name: int(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types[value.name] = int(value.type.tensor_type.elem_type)
    return types


def one_line(error: BaseException) -> str:
    """Return another library's error message in one line of at most 200 characters, without a full stop."""
    return " ".join(str(error).split())[:200].rstrip(".")
