"""How each precision is made: the tool, its settings, and which nodes it can leave in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import DataError, UsageError
from vitcompress.exporters.precision.calibrate import Ranges, calibrated
from vitcompress.exporters.precision.compare import deviation, logits_of
from vitcompress.exporters.precision.graph import FP32_OPERATORS, SourceGraph
from vitcompress.exporters.precision.halves import fp16_from_fp32
from vitcompress.exporters.precision.integers import int8_from_fp32, quantizable
from vitcompress.exporters.precision.modelopt import bf16_from_fp32, fp8_from_fp32, modelopt_version


@dataclass(frozen=True)
class Recipe:
    """One precision of one graph."""

    precision: Precision
    method: str
    """Which tool, with which settings."""
    convert: Callable[[frozenset[str]], Any]
    """Makes the reduced graph, a ``ModelProto``, with the given nodes left in fp32."""
    candidates: tuple[str, ...]
    """Nodes that can be left in fp32."""
    simulate: bool
    """Whether the result is measured by rounding in fp32, having no arithmetic of its own on a CPU."""
    must_run: bool
    """Whether ONNX Runtime on a CPU must be able to run the file."""
    spared: int
    """Matrix products the method leaves in fp32 by itself: in int8 and fp8 those of two activations."""
    tool_decides: bool = False
    """Whether the tool may leave out more, up to half of the products with weights, by rules of its own."""
    calibrated: bool = False
    """Whether ranges of values were read from the calibration images."""


def recipe_for(
    source: SourceGraph, precision: Precision, calibration: NDArray[Any], say: Callable[[str], None]
) -> Recipe:
    """Return how to make ``precision`` of ``source``; int8 is calibrated here, once for all conversions.

    Raises:
        UsageError: there is no such precision to reduce to.
        DataError: it needs calibration images and there are none.
        EnvironmentLacksError: what it needs is not installed.
    """
    if precision not in _RECIPES:
        raise UsageError(f"precision '{precision}' is none to reduce to; choose from {', '.join(_RECIPES)}.")
    if precision in ("int8", "fp8") and len(calibration) == 0:
        raise DataError(f"{precision} needs training images to calibrate with, none was given.")
    return _RECIPES[precision](source, calibration, say)


def _floating(source: SourceGraph) -> tuple[str, ...]:
    """Return nodes that give float32 numbers, but for those that always do."""
    import onnx

    return tuple(
        node.name
        for node in source.nodes
        if node.op_type not in FP32_OPERATORS
        and any(source.types.get(name) == onnx.TensorProto.FLOAT for name in node.output)
    )


def _attention(source: SourceGraph) -> int:
    return len(source.products(weighted=False)) - len(source.products(weighted=True))


def _fp16(source: SourceGraph, calibration: NDArray[Any], say: Callable[[str], None]) -> Recipe:
    return Recipe(
        precision="fp16",
        method="own cast insertion; LayerNormalization, Softmax, input and output in fp32",
        convert=lambda kept: fp16_from_fp32(source, kept),
        candidates=_floating(source),
        simulate=True,
        must_run=True,
        spared=0,
    )


def _bf16(source: SourceGraph, calibration: NDArray[Any], say: Callable[[str], None]) -> Recipe:
    return Recipe(
        precision="bf16",
        method=f"NVIDIA ModelOpt {modelopt_version()} AutoCast, keep_io_types; LayerNormalization and Softmax in fp32",
        convert=lambda kept: bf16_from_fp32(source, kept),
        candidates=_floating(source),
        simulate=True,
        must_run=False,
        spared=0,
    )


def _fp8(source: SourceGraph, calibration: NDArray[Any], say: Callable[[str], None]) -> Recipe:
    return Recipe(
        precision="fp8",
        method=f"NVIDIA ModelOpt {modelopt_version()}, QDQ of E4M3, calibrated by the maximum; attention products "
        "in fp32",
        convert=lambda kept: fp8_from_fp32(source, calibration, kept),
        candidates=source.products(weighted=True),
        simulate=False,
        must_run=False,
        spared=_attention(source),
        tool_decides=True,
        calibrated=True,
    )


def _int8(source: SourceGraph, calibration: NDArray[Any], say: Callable[[str], None]) -> Recipe:
    ranges = best_ranges(source, calibration, say)
    return Recipe(
        precision="int8",
        method=f"own static QDQ: weights per channel, activations per tensor, symmetric, ranges by "
        f"{ranges.method}; attention products in fp32",
        convert=lambda kept: int8_from_fp32(source, ranges, kept),
        candidates=quantizable(source),
        simulate=False,
        must_run=True,
        spared=len(source.products(weighted=False)) - len(quantizable(source)),
        calibrated=True,
    )


def best_ranges(source: SourceGraph, images: NDArray[Any], say: Callable[[str], None]) -> Ranges:
    """Calibrate by every method, and take the one whose int8 logits are nearest to fp32's on the same images.

    Nearest by root mean square: top-1 agreement on a few hundred images differs between methods by an image or two,
    which is chance (measured, docs/precision.md).
    """
    expected = logits_of(source.model, images, optimised=True)
    found: list[tuple[float, Ranges]] = []
    operands = {node.name: node.input[0] for node in source.nodes}
    for ranges in calibrated(source, images, {operands[name] for name in quantizable(source)}):
        logits = logits_of(int8_from_fp32(source, ranges), images, optimised=False)
        measured = deviation(logits, expected)
        share = f"{measured.agreement:.2%} the same top-1"
        say(f"int8 by {ranges.method}: rms {measured.rms:.2g} of the logits' spread, {share}")
        found.append((measured.rms, ranges))
    return min(found, key=lambda entry: entry[0])[1]


_RECIPES: dict[str, Callable[[SourceGraph, NDArray[Any], Callable[[str], None]], Recipe]] = {
    "fp16": _fp16,
    "bf16": _bf16,
    "int8": _int8,
    "fp8": _fp8,
}
