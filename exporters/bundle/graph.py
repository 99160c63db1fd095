"""What a bundle needs to know about an ONNX graph: its input and output, and where its weights are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.errors import BundleError
from vitcompress.core.preprocess import Input

_DTYPES = {1: "float32", 2: "uint8"}
"""ONNX element types that an image classifier of ours takes, by number."""


@dataclass(frozen=True)
class Tensor:
    """One input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """Without the batch dimension."""

    def described(self) -> dict[str, Any]:
        """JSON values for the manifest; the batch is named, not counted."""
        return {"name": self.name, "dtype": self.dtype, "shape": ["batch", *self.shape]}


@dataclass(frozen=True)
class GraphFacts:
    """The interface of an image classifier, as its graph states it."""

    images: Tensor
    logits: Tensor
    fixed_batch: int | None
    """The only batch size it takes; None when any can be run."""
    outside: tuple[str, ...]
    """Names of the files with external weights."""

    @property
    def input(self) -> Input:
        """Normalised float32 ``[3, S, S]``, or pixels, uint8 ``[S, S, 3]``."""
        return "uint8" if self.images.dtype == "uint8" else "float"

    @property
    def size(self) -> int:
        """Side of the input, pixels."""
        return self.images.shape[0 if self.input == "uint8" else 2]

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.logits.shape[0]


def graph_facts(path: Path) -> GraphFacts:
    """Read them from an ONNX file, its weights left on the disk.

    Raises:
        BundleError: the file is missing or no image classifier.
    """
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
        images, logits = _tensor(graph.input[0]), _tensor(graph.output[0])
        batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value
        right = (len(images.shape), len(logits.shape)) == (3, 1)
    except FileNotFoundError as error:
        raise BundleError(f"{path} does not exist.") from error
    except Exception as error:  # whatever protobuf makes of the bytes, or a graph without inputs
        raise BundleError(f"{path} is damaged or no ONNX image classifier.") from error
    if not right:
        raise BundleError(f"{path} is no ONNX image classifier: it takes {images} and gives {logits}.")
    outside = {entry.value for value in graph.initializer for entry in value.external_data if entry.key == "location"}
    return GraphFacts(images, logits, batch or None, tuple(sorted(outside)))


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(int(dim.dim_value) for dim in kind.shape.dim[1:])
    return Tensor(str(value.name), _DTYPES[kind.elem_type], shape)


def name_external(path: Path, name: str) -> None:
    """Let the graph at ``path`` look for its external weights in the file ``name`` beside it."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    for value in model.graph.initializer:
        for entry in value.external_data:
            if entry.key == "location":
                entry.value = name
    onnx.save(model, path)
