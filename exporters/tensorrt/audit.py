"""The precision audit of an engine: the dtype that every layer really computes in, as TensorRT tells it.

A builder that was asked for fp16 may warn and build fp32; a file name says nothing. So what is counted here is the
finished engine, never the request. What each product of the graph became is in ``trace``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from vitcompress.core.artifact_records import OperatorDtypes, Precision
from vitcompress.core.errors import ResultError
from vitcompress.exporters.tensorrt.layers import UNKNOWN, Layer

DTYPES: dict[Precision, str] = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8": "int8",
    "fp8": "float8",
}
"""A precision's dtype in an audit."""


def layer_dtypes(layers: Iterable[Layer]) -> OperatorDtypes:
    """Return layers by TensorRT's own type and by the dtype they compute in, those without inputs left out."""
    counts: dict[str, Counter[str]] = {}
    for layer in layers:
        if layer.dtype is not None:
            counts.setdefault(layer.kind, Counter())[layer.dtype] += 1
    return {name: dict(counts[name]) for name in sorted(counts)}


def check_engine(audit: OperatorDtypes, precision: Precision, name: str) -> None:
    """Refuse an engine, by a ResultError, where TensorRT tells every layer's dtype and none is the one asked for."""
    found = {dtype for dtypes in audit.values() for dtype in dtypes}
    if found and UNKNOWN not in found and DTYPES[precision] not in found:
        raise ResultError(
            f"the engine of {name} was to be {precision} and is not: TensorRT chose {', '.join(sorted(found))} "
            "for its layers, and nothing else."
        )
