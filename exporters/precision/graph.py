"""An fp32 ONNX graph as the conversions read it: loaded whole, every node named, every tensor's type known."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import BundleError, ResultError, UsageError
from vitcompress.core.files import refused_write
from vitcompress.exporters.onnx import EXTERNAL_ABOVE

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Einsum", "ConvTranspose"})
"""The matrix products: nearly all the arithmetic of a ViT, and what a reduced precision is for."""
FP32_OPERATORS = frozenset({"LayerNormalization", "Softmax"})
"""Computed in fp32 in every precision: their sums over squares and exponentials leave fp16's range first."""


@dataclass(frozen=True)
class SourceGraph:
    """A checked fp32 graph. Its model is shared: convert copies of it."""

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


def load_source(path: Path) -> SourceGraph:
    """Read an fp32 graph of one input.

    Raises:
        BundleError: the file is missing or no ONNX graph.
        UsageError: its weights are too large to be converted in one message, or it is reduced already.
        ResultError: the types of its tensors cannot be inferred, or it has other than one input.
    """
    import onnx

    model = load_graph(path)
    types = tensor_types(model.graph)
    narrow = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT8E4M3FN}
    if narrow & set(types.values()) or any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise UsageError(f"{path.name} is in a reduced precision already; give the fp32 graph.")
    constants = frozenset(tensor.name for tensor in model.graph.initializer)
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ResultError(f"{path.name} has the inputs {', '.join(inputs)}; one, the images, is needed.")
    return SourceGraph(model, types, constants, inputs[0])


def load_graph(path: Path) -> Any:
    """Return a ``ModelProto`` with its weights, with a name for every node and the inferred type of every tensor.

    Raises:
        BundleError: the file is missing or no ONNX graph.
        UsageError: its weights are too large to be loaded into one message.
        ResultError: the types of its tensors cannot be inferred.
    """
    import onnx

    if not path.is_file():
        raise BundleError(f"{path} does not exist.")
    try:
        model = onnx.load(path, load_external_data=False)
        _refuse_large(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
    except UsageError:
        raise
    except Exception as error:  # protobuf's DecodeError, OSError and onnx's own share no base
        if (refused := refused_write(error)) is not None:
            raise refused from error
        raise BundleError(f"{path} is damaged or no ONNX file ({one_line(error)}); export it again.") from error
    _name_nodes(model.graph)
    return inferred(model, path.name)


def inferred(model: Any, name: str) -> Any:
    """Return a copy of a ``ModelProto`` with the type of every tensor.

    Raises:
        ResultError: they cannot be inferred; ``name`` says of what.
    """
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # InferenceError, or ValueError of a graph that is none
        raise ResultError(f"the types of the tensors in {name} cannot be inferred ({one_line(error)}).") from error


def _refuse_large(model: Any, path: Path) -> None:
    weights = sum(_bytes_of(tensor) for tensor in model.graph.initializer)
    if weights > EXTERNAL_ABOVE:
        raise UsageError(
            f"{path.name} holds {weights / 1e9:.1f} GB of weights; reduced precisions are made of graphs up to "
            f"{EXTERNAL_ABOVE / 1e9:.1f} GB (a protobuf message ends at 2 GB). Leave it at fp32."
        )


def _bytes_of(tensor: Any) -> int:
    import onnx

    return int(math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _name_nodes(graph: Any) -> None:
    """Give every node a name of its own: exclusions and reports go by names, which ONNX does not require."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)


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


_NUMBERED = re.compile(r"^(?:.*\.)?\d+(?=\.)")


def blocks_of(source: SourceGraph) -> dict[str, str]:
    """Return the transformer block each node belongs to, by node name, in topological order.

    A part begins at every LayerNormalization. Parts go together where parameters that they alone read are numbered
    alike (``blocks.3``, ``layers.1.blocks.0``). Without such parameters, those before the blocks are the ``stem``, the
    last one the ``head``, and others a group of their own, ``part 3``: parameters of equal values, such as the norms of
    a network that was not trained, are one tensor with one name after slimming, and tell nothing.
    """
    readers = Counter(name for node in source.nodes for name in node.input)
    parts: list[list[Any]] = [[]]
    for node in source.nodes:
        if node.op_type == "LayerNormalization":
            parts.append([])
        parts[-1].append(node)
    found: dict[str, str] = {}
    for index, part in enumerate(parts):
        own = [name for node in part for name in node.input if name in source.constants and readers[name] == 1]
        label = _label(index, index == len(parts) - 1, own)
        found.update((node.name, label) for node in part)
    return found


def _label(index: int, last: bool, parameters: Collection[str]) -> str:
    numbered = (_NUMBERED.match(name) for name in parameters)
    if block := next((match.group() for match in numbered if match), ""):
        return block
    if index == 0:
        return "stem"
    if any(name.endswith((".weight", ".bias")) for name in parameters):
        return "head" if last else "stem"
    return f"part {index}"
