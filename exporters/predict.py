"""Label images, or embed them, with a bundle: Pillow, numpy and what its target runs with, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import DataError, ResultError
from vitcompress.core.images import IMAGE_SUFFIXES, open_image
from vitcompress.exporters import targets
from vitcompress.exporters.bundle import Bundle
from vitcompress.exporters.runners import Runner


@dataclass(frozen=True)
class Prediction:
    """What the model sees in one image."""

    path: Path
    classes: tuple[tuple[str, float], ...]
    """Labels with their probabilities (of 1), the likeliest first; of several an image those above their
    thresholds. None when the image could not be read."""
    error: str = ""
    """Why it could not be read."""
    embedding: NDArray[np.float32] | None = None
    """Of a bundle that gives embeddings, instead of labels: float32 ``[E]``, of length 1."""


def image_files(paths: Sequence[Path], suffixes: Set[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files to read: each path itself, or for a folder every image under it that is not hidden, sorted.

    A DataError is raised where a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
            )
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"image {path} does not exist; check the path.")
    if not found:
        places = ", ".join(map(str, paths)) or "no path"
        raise DataError(f"no image found in {places}; give image files, or folders with images.")
    return found


def predict(
    bundle: Bundle, paths: Sequence[Path], top: int = 5, batch: int = 8, model: str = "onnx"
) -> Iterator[Prediction]:
    """Yield the ``top`` likeliest classes (of several labels all) of every image, in order of :func:`image_files`.

    Of a bundle of task ``embedding`` the embedding is given instead. An image that cannot be read is given with its
    ``error``; the others are not held up by it. ``batch`` images are in memory and in the model at a time, where it
    takes as many. ``model`` is as for ``Bundle.model``.

    Raises:
        UsageError: there is no such model.
        DataError: a path does not exist, or there is no image.
        EnvironmentLacksError: what runs the model is not here.
        ResultError: the model gave something other than numbers.
    """
    chosen, files = bundle.model(model), image_files(paths, bundle.preprocess.pixel.suffixes)
    with targets.get(chosen.runtime).open(chosen.path) as runner:
        step = min(batch, runner.max_batch or batch)
        for start in range(0, len(files), step):
            part = files[start : start + step]
            read = [_read(bundle, file) for file in part]
            images = [image for image in read if not isinstance(image, str)]
            rows = iter(_answers(runner, images, bundle.task) if images else np.empty((0, 0)))
            for file, image in zip(part, read, strict=True):
                if isinstance(image, str):
                    yield Prediction(file, (), image)
                    continue
                row = next(rows)
                if bundle.task == "embedding":
                    yield Prediction(file, (), embedding=row.astype(np.float32))
                    continue
                best = np.argsort(-row, kind="stable")
                best = best[row[best] > np.take(bundle.thresholds, best)] if bundle.thresholds else best[:top]
                yield Prediction(file, tuple((bundle.labels[i], float(row[i])) for i in best))


def _read(bundle: Bundle, file: Path) -> NDArray[Any] | str:
    """Return the model's input for one file, or why there is none."""
    try:
        return bundle.preprocess.apply(open_image(file, bundle.preprocess.pixel))
    except DataError as error:
        return str(error)


def _answers(runner: Runner, images: Sequence[NDArray[Any]], task: str) -> NDArray[np.float64]:
    """Return probabilities ``[B, K]`` or embeddings; a ResultError is raised where the model gave no numbers."""
    logits = runner.infer(np.stack(images)).astype(np.float64)
    if not np.isfinite(logits).all():
        raise ResultError(f"{runner.path} gave logits that are not numbers; do not deploy this bundle.")
    if task == "embedding":
        return logits
    if task == "multilabel":
        return np.asarray(np.exp(-np.logaddexp(0, -logits)))
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))
