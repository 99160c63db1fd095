"""The precision audit of an engine: the dtype that every layer really computes in, read from TensorRT's own objects.

A builder that was asked for fp16 may warn and build fp32; a file name says nothing. So what is counted here is the
parsed network and the finished engine, never the request. The two differ: the builder may compute in float32 what the
graph quantises.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, get_args

from vitcompress.core.artifact_records import OperatorDtypes, Precision
from vitcompress.core.errors import ResultError

PRODUCTS = frozenset({"MatMul", "Conv", "ConvTranspose", "Einsum"})
"""The layers whose dtype is an engine's precision: nearly all the arithmetic of a ViT."""
DTYPES: dict[Precision, str] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8": "int8",
    "fp8": "float8",
}
"""A precision's dtype in an audit."""
UNKNOWN = "unknown"
"""Stands for a dtype that the inspector does not tell (dynamic shapes, kernels compiled later)."""

_OF_TENSORRT = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "FP8": "float8"}
_ONNX_NAMES = {
    "CONVOLUTION": "Conv",
    "DECONVOLUTION": "ConvTranspose",
    "MATRIX_MULTIPLY": "MatMul",
    "QUANTIZE": "QuantizeLinear",
    "DEQUANTIZE": "DequantizeLinear",
    "TOPK": "TopK",
    "NMS": "NonMaxSuppression",
}
_SAME_VALUES = frozenset({"SHUFFLE", "SQUEEZE", "UNSQUEEZE", "IDENTITY"})
"""Layers that move values only, so a quantised product may have them between itself and its DequantizeLinear."""
_NARROW = {"float32": 0, "float16": 1, "bfloat16": 1, "int8": 2, "float8": 2}
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


def network_audit(network: Any) -> OperatorDtypes:
    """Layers of a parsed ``INetworkDefinition`` by type (ONNX's name where there is one) and by dtype.

    A layer counts with the dtype of its output. The exceptions are those of explicit quantisation: QuantizeLinear and
    DequantizeLinear count with the narrow side, and so does a matrix product all of whose operands come out of
    DequantizeLinear, because TensorRT fuses the three. Constants and the integer arithmetic on shapes are left out.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made_by = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    counts: dict[str, Counter[str]] = {}
    for layer in layers:
        dtype = _compute_dtype(layer, made_by)
        if dtype is not None:
            counts.setdefault(_type_name(layer), Counter())[dtype] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


def _type_name(layer: Any) -> str:
    name: str = layer.type.name
    return _ONNX_NAMES.get(name, "".join(part.capitalize() for part in name.split("_")))


def _compute_dtype(layer: Any, made_by: dict[str, Any]) -> str | None:
    """The dtype a layer counts with; None for one that computes nothing of the model."""
    kind = layer.type.name
    if kind in ("CONSTANT", "SHAPE") or layer.num_outputs == 0:
        return None
    if kind == "DEQUANTIZE":
        return _OF_TENSORRT.get(layer.get_input(0).dtype.name)
    if _type_name(layer) in PRODUCTS:
        operands = [layer.get_input(index) for index in range(layer.num_inputs)]
        quantised = {_quantised_as(tensor, made_by) for tensor in operands if tensor is not None}
        if len(quantised) == 1 and (narrow := quantised.pop()):
            return narrow
    return _OF_TENSORRT.get(layer.get_output(0).dtype.name)


def _quantised_as(tensor: Any, made_by: dict[str, Any]) -> str | None:
    """The narrow dtype that a tensor was dequantised from; None when it was not."""
    while (layer := made_by.get(tensor.name)) is not None:
        if layer.type.name == "DEQUANTIZE":
            return _OF_TENSORRT.get(layer.get_input(0).dtype.name)
        if layer.type.name not in _SAME_VALUES:
            return None
        tensor = layer.get_input(0)
    return None


def information_of(trt: Any, engine: Any) -> str:
    """What the inspector tells of a loaded ``ICudaEngine``, JSON."""
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def engine_audit(information: str) -> OperatorDtypes:
    """Layers of a built engine by TensorRT's own type and by dtype, from the inspector's JSON.

    A layer counts with the dtype of its first input: that of a fused product is what it multiplies, while its output
    may be converted already. ``unknown`` where the inspector does not tell.

    Args:
        information: :func:`information_of` the engine. One built without detailed profiling verbosity gives layer
            names only, and an empty audit.
    """
    counts: dict[str, Counter[str]] = {}
    for layer in json.loads(information).get("Layers", []):
        if isinstance(layer, dict) and layer.get("LayerType") != "Constant":
            tensors = [*layer.get("Inputs", []), *layer.get("Outputs", [])]
            words = str(tensors[0].get("Format/Datatype", tensors[0].get("Datatype", ""))) if tensors else ""
            counts.setdefault(str(layer.get("LayerType", UNKNOWN)), Counter())[_dtype_in(words)] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


def builder_audit(layers: str) -> OperatorDtypes:
    """Layers of a built engine by TensorRT's own type and by dtype, from what the builder logs: needs no GPU.

    A layer counts with the widest dtype of its inputs, constants aside: a product of int8 activations and weights
    that were dequantised before computes in float32, whatever the graph says. Layers on shapes alone are left out.

    Args:
        layers: the builder's message, logged with detailed profiling verbosity; any other gives an empty audit.
    """
    counts: dict[str, Counter[str]] = {}
    for kind, inputs in re.findall(r"^Name: .*?, LayerType: (\w+), Inputs: \[(.*?)\], Constants: \[", layers, re.M):
        dtypes = [_dtype_in(word) for word in re.findall(r"Datatype: (\w+)", inputs) if not word.startswith("Int64")]
        if dtypes:
            counts.setdefault(kind, Counter())[min(dtypes, key=lambda dtype: _NARROW.get(dtype, -1))] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


def _dtype_in(words: str) -> str:
    """The dtype that the inspector's words name, such as ``Row major linear FP16 format``."""
    return next((dtype for word, dtype in _IN_WORDS if word in words.lower()), UNKNOWN)


def products(audit: OperatorDtypes) -> Counter[str]:
    """How many matrix products a network audit has in each dtype."""
    total: Counter[str] = Counter()
    for name in PRODUCTS & set(audit):
        total.update(audit[name])
    return total


def precision_seen(audit: OperatorDtypes) -> Precision | None:
    """The precision most matrix products of a network compute in, the narrower of two equals; None without any."""
    counted = products(audit)
    seen: list[Precision] = [name for name in get_args(Precision) if counted[DTYPES[name]]]
    return max(seen, key=lambda name: (counted[DTYPES[name]], _NARROW[DTYPES[name]]), default=None)


def check_precision(audit: OperatorDtypes, precision: Precision, name: str) -> None:
    """Refuse a network that is not of the precision its engine is to be called.

    Some of its products may stay wider than asked (a fallback keeps the fragile ones in fp32), but one at least must
    be of it, and none may be narrower.

    Args:
        audit: :func:`network_audit` of it.
        precision: what was asked for.
        name: of the ONNX file, for the message.

    Raises:
        ResultError: with what its matrix products compute in.
    """
    asked, counted = DTYPES[precision], products(audit)
    found = ", ".join(f"{count} in {dtype}" for dtype, count in counted.most_common()) or "none at all"
    if counted and max(_NARROW[dtype] for dtype in counted) > _NARROW[asked]:
        raise ResultError(
            f"{name} was to be {precision}, but has matrix products narrower than that ({found}); "
            "give the graph of that precision."
        )
    if not counted[asked] and (counted or precision != "fp32"):
        raise ResultError(
            f"{name} was to be {precision} and is not: none of its matrix products computes in {asked} ({found}); "
            "convert the graph before an engine is built of it."
        )


def check_engine(audit: OperatorDtypes, precision: Precision, name: str) -> None:
    """The same of the built engine, as far as the inspector tells: refused when no layer at all has the dtype.

    Raises:
        ResultError: every layer's dtype is known, and none is the one asked for.
    """
    found = {dtype for dtypes in audit.values() for dtype in dtypes}
    if found and UNKNOWN not in found and DTYPES[precision] not in found:
        raise ResultError(
            f"the engine of {name} was to be {precision} and is not: TensorRT chose {', '.join(sorted(found))} "
            "for its layers, and nothing else."
        )
