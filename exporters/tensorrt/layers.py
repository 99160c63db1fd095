"""The layers of a built engine, as TensorRT tells of them: in the builder's log, or by the inspector of a loaded one.

Both need detailed profiling verbosity; the log needs no GPU. A layer tells its tensors and the ONNX nodes it was built
of (``Metadata: [ONNX Layer: NAME]``), not the dtype it multiplies in: that is read from the tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

UNKNOWN = "unknown"
"""Stands for a dtype that TensorRT does not tell (dynamic shapes, kernels compiled later)."""
WIDTH = {"float32": 3, "float16": 2, "bfloat16": 2, "int8": 1, "float8": 1}
"""Dtypes of a product, wide ones with a larger number."""

# In this order: "bfloat16" contains "float16", which contains "float".
_IN_WORDS = (
    ("bf16", "bfloat16"),
    ("bfloat16", "bfloat16"),
    ("fp8", "float8"),
    ("int8", "int8"),
    ("half", "float16"),
    ("fp16", "float16"),
    ("float16", "float16"),
    ("fp32", "float32"),
    ("float", "float32"),
)
_SHAPES = re.compile(r"\b(?:int64|int32|bool)\b", re.I)
_PIXELS = re.compile(r"\buint8\b", re.I)
_LAYER = re.compile(
    r"^Name: (?P<Name>.*?), LayerType: (?P<LayerType>\w+), Inputs: \[(?P<Inputs>.*?)\], "
    r"(?:Constants: \[(?P<Constants>.*?)\], )?Outputs: \[(?P<Outputs>.*?)\]"
    r"(?:, TacticName: (?P<TacticName>.*?))?(?:, StreamId: \d+)?, Metadata: (?P<Metadata>.*)$",
    re.M,
)
_TENSORS = ("Inputs", "Constants", "Outputs")
_TENSOR = re.compile(r"\{ Name: .*?, Dimensions: \[(.*?)\].*?Datatype: ([^,}]+)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\[|[\x1e\x1f\s]|$)")
_PRODUCT_TYPE = re.compile(r"gemm|conv|correlation|matrixmultiply|matmul|fullyconnected|attention|mha", re.I)
# Layers that TensorRT generates code for are named after its steps: __myl_FcAdd, _gemm_mha_v2.
_GENERATED = re.compile(r"kgen|fusion", re.I)
_PRODUCT_STEP = re.compile(r"^_gemm|^__myl_\w*?(?:Fc|Conv)(?![a-z])")
_CAST_FIRST = re.compile(r"^__myl_\w*?Cast\w*?(?:Fc|Conv)(?![a-z])")
# The rounding before a next product's int8 is no conversion of what is multiplied here.
_CAST = re.compile(r"(?<!Roun)Cast")
_TACTIC = re.compile(r"(?:gemm|fprop)\w*?_(bf16|f16|f32|i8|e4m3)\1_")
_IN_TACTICS = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "i8": "int8", "e4m3": "float8"}


@dataclass(frozen=True)
class Layer:
    """One layer of a built engine."""

    name: str
    kind: str
    """TensorRT's own type, such as ``gemm``."""
    nodes: tuple[str, ...]
    """Names of the ONNX nodes that it was built of."""
    inputs: tuple[str, ...]
    """Dtypes of its inputs, without constants, shapes and pixels."""
    operands: tuple[str, ...]
    """Dtypes of what it may multiply: of the matrices among its inputs and constants."""
    tactic: str
    shapes_only: bool
    """Whether it computes only shapes."""

    @property
    def is_product(self) -> bool:
        """Return whether it multiplies matrices, as its type or the name of the generated code says."""
        if _GENERATED.search(self.kind):
            return bool(_PRODUCT_STEP.search(self.name))
        return bool(_PRODUCT_TYPE.search(self.kind))

    @property
    def multiplies_in(self) -> str:
        """Return the dtype that its product multiplies in, or ``unknown`` where neither tactic nor tensors tell.

        Two matrices that are multiplied have the same dtype. So where operands have several dtypes, the product is in
        the narrowest dtype that two operands share. Where no two share one, it is in the widest, to which the others
        are converted (dequantized weights).

        Where the layer converts before it multiplies, or multiplies element by element, several dtypes do not tell that
        of the product. One case is known: TensorRT multiplies an int8 or fp8 operand beside a wider one in the wider.
        """
        tactic = _TACTIC.search(self.tactic)
        if tactic:
            return _IN_TACTICS[tactic[1]]
        told = set(self.operands)
        if not told or UNKNOWN in told:
            return UNKNOWN
        widest = max(told, key=WIDTH.__getitem__)
        converts = _CAST_FIRST if self.is_product else _CAST
        if _GENERATED.search(self.kind) and converts.search(self.name):
            quantized = min(map(WIDTH.__getitem__, told)) == 1
            return widest if self.is_product and quantized and len(told) > 1 else UNKNOWN
        if len(told) > 1 and not self.is_product:
            return UNKNOWN
        pairs = [dtype for dtype in told if self.operands.count(dtype) > 1]
        return min(pairs, key=WIDTH.__getitem__) if pairs else widest

    @property
    def dtype(self) -> str | None:
        """Return the dtype it computes in: a product's, else the widest of its inputs; None without inputs."""
        if self.is_product and self.inputs:
            return self.multiplies_in
        unknown_first = max(WIDTH.values()) + 1
        return max(self.inputs, key=lambda dtype: WIDTH.get(dtype, unknown_first), default=None)


def layers_from_log(message: str) -> tuple[Layer, ...]:
    """Return the layers in the builder's message, without constants; none where this version words it in another way.

    The message with the layers is logged with detailed profiling verbosity; other messages have none.
    """
    found = [
        {
            **match.groupdict(""),
            **{key: _TENSOR.findall(match[key] or "") for key in _TENSORS},
        }
        for match in _LAYER.finditer(message)
    ]
    lines = len(re.findall(r"^Name: ", message, re.M))
    return _layers(found) if len(found) == lines else ()


def layers_from_inspector(information: str) -> tuple[Layer, ...]:
    """Return the layers in the JSON of an engine's inspector, without constants; none without detailed verbosity."""

    def tensors(layer: dict[str, Any], key: str) -> list[tuple[Any, str]]:
        return [
            (one.get("Dimensions", ()), str(one.get("Format/Datatype", one.get("Datatype", ""))))
            for one in layer.get(key, [])
        ]

    found = []
    for layer in json.loads(information).get("Layers", []):
        if isinstance(layer, dict):  # else its name alone
            made = {**layer, **{key: tensors(layer, key) for key in _TENSORS}}
            weights = layer.get("Weights")
            if isinstance(weights, dict) and weights.get("Type"):
                made["Constants"].append(((2, 2), str(weights["Type"])))  # any matrix: only the number of them is told
            found.append(made)
    return _layers(found)


def _layers(found: Iterable[dict[str, Any]]) -> tuple[Layer, ...]:
    return tuple(_layer(one) for one in found if one.get("LayerType") != "Constant")


def _layer(told: dict[str, Any]) -> Layer:
    """Return a layer from TensorRT's words, its tensors as ``(dimensions, words for the dtype)``."""
    inputs, constants = told["Inputs"], told["Constants"]
    every = [words for _, words in (*inputs, *constants, *told["Outputs"])]
    used = [_dtype_in(words) for _, words in inputs if _is_number(words)]
    matrices = [_dtype_in(words) for size, words in (*inputs, *constants) if _is_number(words) and _is_matrix(size)]
    return Layer(
        name=str(told.get("Name", "")),
        kind=str(told.get("LayerType", UNKNOWN)),
        nodes=tuple(dict.fromkeys(_NODE.findall(str(told.get("Metadata", ""))))),
        inputs=tuple(used),
        operands=tuple(matrices or used),
        tactic=str(told.get("TacticName", "")),
        shapes_only=all(_SHAPES.search(words) for words in every),
    )


def _is_number(words: str) -> bool:
    """Return whether a tensor is of numbers that a network computes with: no shape, no pixels."""
    return not _SHAPES.search(words) and not _PIXELS.search(words)


def _is_matrix(size: str | Sequence[int]) -> bool:
    """Return whether a tensor has more than one number along two axes at least, a dynamic axis (-1) counted."""
    axes = size.split(",") if isinstance(size, str) else size
    return sum(str(axis).strip() != "1" for axis in axes) > 1


def _dtype_in(words: str) -> str:
    """Return the dtype that TensorRT's words name, such as ``Row major linear FP16 format``."""
    return next((dtype for word, dtype in _IN_WORDS if word in words.lower()), UNKNOWN)
