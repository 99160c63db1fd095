"""Label images with a bundle: Pillow, numpy and ONNX Runtime, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError, ResultError, UsageError
from core.preprocess import IMAGE_SUFFIXES, open_image
from exporters.bundle import Bundle
from exporters.runners import OnnxRunner


@dataclass(frozen=True)
class Prediction:
    """What the model sees in one image."""

    path: Path
    classes: tuple[tuple[str, float], ...]
    """Labels with their probabilities (of 1), the likeliest first."""


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files to read: each path itself, or for a folder every image under it that is not hidden, sorted.

    Raises:
        DataError: a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
            )
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"image {path} does not exist; check the path.")
    if not found:
        places = ", ".join(map(str, paths)) or "no path"
        raise DataError(
            f"no image found in {places}; give image files, or folders with {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return found


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities ``[B, K]``, float64, of logits ``[B, K]``."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponents = np.exp(shifted)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def predict(bundle: Bundle, paths: Sequence[Path], top: int = 5, batch: int = 8) -> list[Prediction]:
    """The ``top`` likeliest classes (all, when there are fewer) of every image, in order of :func:`image_files`.

    Args:
        batch: images in memory and in the model at a time.

    Raises:
        UsageError: ``top`` or ``batch`` is less than 1.
        DataError: an image is missing or unreadable, or there is none.
        ResultError: the model gave something other than numbers.
    """
    if top < 1 or batch < 1:
        raise UsageError(f"top {top} and batch {batch} must both be at least 1.")
    files = image_files(paths)
    predictions: list[Prediction] = []
    with OnnxRunner(bundle.onnx) as runner:
        for start in range(0, len(files), batch):
            part = files[start : start + batch]
            images = np.stack([bundle.preprocess.apply(open_image(file)) for file in part])
            logits = runner.infer(images)
            if not np.isfinite(logits).all():
                raise ResultError(f"{bundle.onnx} gave logits that are not numbers; do not deploy this bundle.")
            for file, row in zip(part, softmax(logits), strict=True):
                best = np.argsort(-row, kind="stable")[:top]
                predictions.append(Prediction(file, tuple((bundle.labels[i], float(row[i])) for i in best)))
    return predictions
