"""How each precision is made: the tool, its settings, and which nodes it can leave in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vitcompress.core.artifact_records import Precision
from vitcompress.core.errors import UsageError
from vitcompress.exporters.precision.compare import deviation, logits_of
from vitcompress.exporters.precision.graph import FP32_OPERATORS, SourceGraph
from vitcompress.exporters.precision.halves import fp16_from_fp32
from vitcompress.exporters.precision.integers import Ranges, calibrated, int8_from_fp32, quantizable
from vitcompress.exporters.precision.modelopt import bf16_from_fp32, fp8_from_fp32, modelopt_version
from vitcompress.exporters.precision.nibbles import BLOCK, four_bit_products, int4_from_fp32

ROUNDED: tuple[Precision, ...] = ("fp16", "bf16")
"""Measured by rounding in fp32, having no arithmetic of their own on a CPU."""
RUN_HERE: tuple[Precision, ...] = ("fp16", "int8", "int4")
"""Those whose file ONNX Runtime on a CPU must be able to run."""
CALIBRATED: tuple[Precision, ...] = ("int8", "fp8")
"""Those whose ranges of values are read from the calibration images."""


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
    spared: int = 0
    """Matrix products the method leaves in fp32 by itself: in int8, fp8 and int4 those of two activations."""


def recipe_for(
    source: SourceGraph, precision: Precision, calibration: NDArray[Any], say: Callable[[str], None]
) -> Recipe:
    """Return how to make ``precision`` of ``source``; int8 is calibrated here, once for all conversions.

    A UsageError is raised for a precision unknown here, an EnvironmentLacksError where what it needs is not installed.
    """
    products = source.products(weighted=False)
    if precision == "fp16":
        method = "own cast insertion; LayerNormalization, Softmax, input and output in fp32"
        return Recipe(precision, method, lambda kept: fp16_from_fp32(source, kept), _floating(source))
    if precision == "bf16":
        method = f"NVIDIA ModelOpt {modelopt_version()} AutoCast, keep_io_types; LayerNormalization and Softmax in fp32"
        return Recipe(precision, method, lambda kept: bf16_from_fp32(source, kept), _floating(source))
    if precision == "int8":
        ranges, quantized = best_ranges(source, calibration, say), quantizable(source)
        method = (
            f"own static QDQ: weights per channel, activations per tensor, symmetric, ranges by {ranges.method}; "
            "attention products in fp32"
        )
        spared = len(products) - len(quantized)
        return Recipe(precision, method, lambda kept: int8_from_fp32(source, ranges, kept), quantized, spared)
    if precision == "fp8":
        weighted = source.products(weighted=True)
        method = (
            f"NVIDIA ModelOpt {modelopt_version()}, QDQ of E4M3, calibrated by the maximum; attention products in fp32"
        )
        spared = len(products) - len(weighted)
        return Recipe(precision, method, lambda kept: fp8_from_fp32(source, calibration, kept), weighted, spared)
    if precision == "int4":
        fours = four_bit_products(source)
        method = f"own 4-bit weights, a scale for each {BLOCK}, symmetric; ONNX Runtime's MatMulNBits; all else in fp32"
        return Recipe(precision, method, lambda kept: int4_from_fp32(source, kept), fours, len(products) - len(fours))
    raise UsageError(f"precision '{precision}' is none to reduce to; choose from fp16, bf16, int8, fp8, int4.")


def _floating(source: SourceGraph) -> tuple[str, ...]:
    """Return nodes that give float32 numbers, but for those that always do."""
    import onnx

    return tuple(
        node.name
        for node in source.nodes
        if node.op_type not in FP32_OPERATORS
        and any(source.types.get(name) == onnx.TensorProto.FLOAT for name in node.output)
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
        measured = deviation(logits, expected, source.model)
        share = f"{measured.agreement:.2%} the same top-1"
        say(f"int8 by {ranges.method}: rms {measured.rms:.2g} of the logits' spread, {share}")
        found.append((measured.rms, ranges))
    return min(found, key=lambda entry: entry[0])[1]
