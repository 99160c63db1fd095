"""The precision audit of an engine: the dtype that every layer really computes in, as TensorRT tells it.

A builder that was asked for fp16 may warn and build fp32; a file name says nothing. So what is counted here is the
finished engine, never the request. It differs from the graph (``precision.audit``) too: the builder may compute in
float32 what the graph quantises.
"""

from __future__ import annotations

import json
import re
from collections import Counter

from vitcompress.core.artifact_records import OperatorDtypes, Precision
from vitcompress.core.errors import ResultError

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


def engine_audit(information: str) -> OperatorDtypes:
    """Return layers of a built engine by TensorRT's own type and by dtype, from the inspector's JSON.

    A layer counts with the dtype of its first input (that of a fused product is what it multiplies, while its output
    may be converted already), or as ``unknown``. Without detailed profiling verbosity the audit is empty.
    """
    counts: dict[str, Counter[str]] = {}
    for layer in json.loads(information).get("Layers", []):
        if isinstance(layer, dict) and layer.get("LayerType") != "Constant":
            tensors = [*layer.get("Inputs", []), *layer.get("Outputs", [])]
            words = str(tensors[0].get("Format/Datatype", tensors[0].get("Datatype", ""))) if tensors else ""
            counts.setdefault(str(layer.get("LayerType", UNKNOWN)), Counter())[_dtype_in(words)] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


def builder_audit(layers: str) -> OperatorDtypes:
    """Return layers of a built engine by TensorRT's own type and by dtype, from what the builder logs: needs no GPU.

    A layer counts with the widest dtype of its inputs, constants aside: a product of int8 activations and weights
    that were dequantised before computes in float32, whatever the graph says. Layers on shapes alone are left out.

    ``layers`` is the builder's message, logged with detailed profiling verbosity; any other gives an empty audit.
    """
    counts: dict[str, Counter[str]] = {}
    for kind, inputs in re.findall(r"^Name: .*?, LayerType: (\w+), Inputs: \[(.*?)\], Constants: \[", layers, re.M):
        dtypes = [_dtype_in(word) for word in re.findall(r"Datatype: (\w+)", inputs) if not word.startswith("Int64")]
        if dtypes:
            counts.setdefault(kind, Counter())[min(dtypes, key=lambda dtype: _NARROW.get(dtype, -1))] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


def _dtype_in(words: str) -> str:
    """Return the dtype that the inspector's words name, such as ``Row major linear FP16 format``."""
    return next((dtype for word, dtype in _IN_WORDS if word in words.lower()), UNKNOWN)


def check_engine(audit: OperatorDtypes, precision: Precision, name: str) -> None:
    """Refuse an engine, by a ResultError, where TensorRT tells every layer's dtype and none is the one asked for."""
    found = {dtype for dtypes in audit.values() for dtype in dtypes}
    if found and UNKNOWN not in found and DTYPES[precision] not in found:
        raise ResultError(
            f"the engine of {name} was to be {precision} and is not: TensorRT chose {', '.join(sorted(found))} "
            "for its layers, and nothing else."
        )
