"""A model in a bundle: its kind, the name of its file, its input and output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vitcompress.core.artifact_records import Precision, Runtime
from vitcompress.core.errors import BundleError
from vitcompress.core.preprocess import Input

Kind = Literal["onnx", "engine"]
KINDS: tuple[Kind, ...] = ("onnx", "engine")
"""What a bundle recommends one model of each: the graph that ONNX Runtime runs, and what another target built of it."""
EMBEDDING = "embedding"
"""Name of the output of a graph that gives embeddings of length 1; of any other it is ``logits``."""
_DTYPES = {1: "float32", 2: "uint8"}
"""ONNX element types that an image classifier of ours takes, by number."""


def file_name(runtime: Runtime, precision: Precision, suffix: str = ".engine") -> str:
    """Return a model's file name in a bundle: ``model.onnx``, ``model.int8.onnx``, ``model.fp16.tensorrt.engine``.

    ``suffix`` is that of a built file (``Target.suffix``).
    """
    infix = "" if precision == "fp32" else f".{precision}"
    return f"model{infix}.onnx" if runtime == "onnx" else f"model{infix}.{runtime}{suffix}"


@dataclass(frozen=True)
class Tensor:
    """One input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """Without the batch dimension."""

    def described(self) -> dict[str, Any]:
        """Return JSON values for the manifest; the batch is named, not counted."""
        return {"name": self.name, "dtype": self.dtype, "shape": ["batch", *self.shape]}


@dataclass(frozen=True)
class GraphFacts:
    """The interface of an image classifier, as its graph states it."""

    images: Tensor
    logits: Tensor
    fixed_batch: int | None
    """The only batch size it takes; None when any can be run."""
    external: bool
    """Whether its weights are in another file."""

    @property
    def input(self) -> Input:
        """Normalised float32 ``[C, S, S]``, or pixels, uint8 ``[S, S, C]``."""
        return "uint8" if self.images.dtype == "uint8" else "float"

    @property
    def size(self) -> int:
        """Side of the input, pixels."""
        return self.images.shape[0 if self.input == "uint8" else 2]

    @property
    def channels(self) -> int:
        """C of the input."""
        return self.images.shape[2 if self.input == "uint8" else 0]

    @property
    def embeds(self) -> bool:
        """Whether it gives embeddings instead of logits."""
        return self.logits.name == EMBEDDING

    @property
    def classes(self) -> int:
        """Number of logits, or an embedding's width."""
        return self.logits.shape[0]


@dataclass(frozen=True)
class BundledModel:
    """A model to be put into a bundle."""

    name: str
    """What it is called in the manifest, the card and ``default``; unique."""
    source: Path
    runtime: Runtime
    """Name of its target; with ``precision`` it makes the file's name."""
    precision: Precision
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the manifest. The card shows ``top1``, ``top1_low``, ``top1_high`` (percent), ``drop``,
    ``drop_low``, ``drop_high`` (points), ``p50_ms``, ``p50_low``, ``p50_high`` (milliseconds at batch ``batch``),
    ``measured_on`` (machine, runtime and provider in words), ``unmeasured`` (why there are none of these),
    ``max_difference`` (of logits, from torch), ``agreement`` (share of images with the top-1 of fp32), and of an engine
    ``hardware``, ``version``. ``opt_batch`` and ``max_batch`` are what Triton is told."""
    suffix: str = ".engine"
    """Of the file's name, where it is built: the target's."""
    beside: tuple[Path, ...] = ()
    """Further files that the target loads with it: their names are that of ``source`` but for the suffix."""

    @property
    def file(self) -> str:
        """Its file's name in the bundle."""
        return file_name(self.runtime, self.precision, self.suffix)

    @property
    def sources(self) -> dict[str, Path]:
        """All its files, by their names in the bundle."""
        stem, own = self.file.removesuffix(self.suffix), self.source.name.removesuffix(self.suffix)
        more = {f"{stem}{path.name.removeprefix(own)}": path for path in self.beside}
        return {self.file: self.source, **more}

    @property
    def is_built(self) -> bool:
        """Whether it is no ONNX graph but was built of one."""
        return self.runtime != "onnx"


@dataclass(frozen=True)
class Part:
    """A model that fits into the bundle."""

    model: BundledModel
    interface: GraphFacts
    """An engine's is that of the recommended graph: it was built of one like it."""

    def described(self) -> dict[str, Any]:
        """Return JSON values for the manifest."""
        return {
            "name": self.model.name,
            "file": self.model.file,
            "runtime": self.model.runtime,
            "precision": self.model.precision,
            "input": self.interface.images.described(),
            "output": self.interface.logits.described(),
            "facts": dict(self.model.facts),
        }


def graph_facts(path: Path) -> GraphFacts:
    """Return an ONNX file's interface, its weights unread; a BundleError is raised if it is no image classifier."""
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
    external = any(value.external_data for value in graph.initializer)
    return GraphFacts(images, logits, batch or None, external)


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(int(dim.dim_value) for dim in kind.shape.dim[1:])
    return Tensor(str(value.name), _DTYPES[kind.elem_type], shape)
