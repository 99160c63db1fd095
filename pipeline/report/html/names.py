"""What an artifact is called in a figure, where the table's full label is too long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_RUNTIMES = {"torch": "torch", "onnx": "ONNX", "tensorrt": "TensorRT", "tensorrt-rtx": "RTX"}


def short_names(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], str]:
    """Names by (model, runtime, precision): the runtime only where there are several."""
    keys = list(dict.fromkeys(key_of(row) for row in rows))
    several = len({runtime for _, runtime, _ in keys}) > 1
    names = {}
    for model, runtime, precision in keys:
        words = [model] + ([precision] if precision != "fp32" else [])
        words += [_RUNTIMES.get(runtime, runtime)] if several else []
        names[model, runtime, precision] = " ".join(words)
    return names


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
    """(model, runtime, precision) of any row of the report that has them."""
    return row["model"], row["runtime"], row["precision"]


def deployed_key(report: dict[str, Any]) -> tuple[str, str, str]:
    """That of the deployed ONNX file."""
    return next(key_of(row) for row in report["models"] if row["deployed"])


def look_of(row: dict[str, Any], deployed: tuple[str, str, str]) -> str:
    """The style class of its marks: teacher, deployed or other."""
    return "teacher" if row["model"] == "teacher" else "deployed" if key_of(row) == deployed else "other"
