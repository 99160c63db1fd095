"""The ranges of activations over real images, by three ways of choosing them, in two passes over the images.

Not by ONNX Runtime's calibrators (1.32): these take a pass for each method, keep what goes in and out of every product
in memory, and print their progress; and the range of least squared error, nearer to fp32 than their entropy, they lack.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitcompress.exporters.precision.compare import session_of
from vitcompress.exporters.precision.graph import SourceGraph

Method = Literal["minmax", "percentile", "squares"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "squares")
"""The largest magnitude; the 99.99th percentile of magnitudes; the range of least squared error."""
LEVELS = 127
"""Largest int8 magnitude used: symmetric ranges leave -128 out."""
_PERCENTILE = 0.9999
_BINS = 2048
_CHUNK = 8
"""Images a run, whose activations are in memory together."""


@dataclass(frozen=True)
class Ranges:
    """What calibration found by one method."""

    method: Method
    of: Mapping[str, float]
    """Largest magnitude to represent, by tensor name."""


def calibrated(source: SourceGraph, images: NDArray[Any], tensors: Collection[str]) -> tuple[Ranges, ...]:
    """Return ranges of ``tensors`` (float32 activations) over ``images``, as the graph takes them, by every method."""
    largest = dict.fromkeys(tensors, 0.0)
    for name, values in _activations(source, images, tensors):
        largest[name] = max(largest[name], float(np.abs(values).max()))
    counts = {name: np.zeros(_BINS, np.int64) for name in largest}
    for name, values in _activations(source, images, tensors):
        if largest[name] > 0:
            counts[name] += np.histogram(np.abs(values), _BINS, (0, largest[name]))[0]
    ways = {"minmax": lambda _: 1.0, "percentile": _percentile, "squares": _least_squares}
    return tuple(
        Ranges(method, {name: top * ways[method](counts[name]) for name, top in largest.items()}) for method in METHODS
    )


def _activations(
    source: SourceGraph, images: NDArray[Any], tensors: Collection[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    import onnx

    inner = [name for name in dict.fromkeys(tensors) if name != source.input]
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    existing = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, source.types[name], None) for name in inner if name not in existing
    )
    session = session_of(model, optimised=False)
    for start in range(0, len(images), _CHUNK):
        part = np.ascontiguousarray(images[start : start + _CHUNK])
        if source.input in tensors:
            yield source.input, part
        if inner:
            yield from zip(inner, session.run(inner, {source.input: part}), strict=True)


def _percentile(counts: NDArray[np.int64]) -> float:
    """Return the share of the largest magnitude below which 99.99 % of the magnitudes lie."""
    return float(np.searchsorted(counts.cumsum(), _PERCENTILE * counts.sum()) + 1) / _BINS


def _least_squares(counts: NDArray[np.int64]) -> float:
    """Return share of the largest magnitude whose rounding below and clipping above have the least squared error."""
    centres = (np.arange(_BINS) + 0.5) / _BINS
    tops = np.arange(8, 129) / 128
    steps = tops[:, None] / LEVELS
    rounded = np.clip(np.rint(centres / steps), 0, LEVELS) * steps
    errors = ((centres - rounded) ** 2 * counts).sum(axis=1)
    return float(tops[errors.argmin()])
