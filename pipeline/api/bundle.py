"""A bundle from Python: open it and classify images with it, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import DataError, UsageError
from vitcompress.core.pillow import hushed
from vitcompress.exporters.bundle import Bundle as OpenBundle
from vitcompress.exporters.bundle import ModelFile, open_bundle
from vitcompress.exporters.predict import Prediction
from vitcompress.exporters.predict import predict as predict_images
from vitcompress.pipeline.api.arguments import PathLike


class Bundle:
    """The folder that is deployed: graphs, engines, labels and preprocessing, each file verified by its checksum.

    Args:
        folder: of the bundle.

    Raises:
        BundleError: it is missing, incomplete or damaged.

    Example:
        >>> vc.Bundle("runs/cait_s24-deit_tiny-lift-digits/bundle").labels[:3]
        ('0', '1', '2')
    """

    def __init__(self, folder: PathLike) -> None:
        self._open: OpenBundle = open_bundle(Path(folder))

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._open.root

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits; none where it gives embeddings."""
        return self._open.labels

    @property
    def models(self) -> tuple[ModelFile, ...]:
        """The graphs and engines: name, file, runtime and precision of each."""
        return self._open.models

    def predict(self, images: PathLike | Sequence[PathLike], *, top: int = 5, model: str = "onnx") -> list[Prediction]:
        """Classify images (files or folders) in order; needs no torch.

        Args:
            images: one path, or several.
            top: labels an image; of several, all above their thresholds are given.
            model: name or file of a model of the bundle, or ``onnx`` or ``engine`` for the recommended one.

        Returns:
            One prediction an image, with its labels and probabilities (of 1), or with ``error`` where the image cannot
            be read.

        Raises:
            UsageError: there is no such model, or ``top`` is less than 1.
            DataError: a path does not exist, or there is no image.
            EnvironmentLacksError: what runs the model is not on this machine.
        """
        with hushed():
            return list(self.each(images, top=top, model=model))

    def embed(self, images: PathLike | Sequence[PathLike], *, model: str = "onnx") -> NDArray[np.float32]:
        """Return the embeddings of images (files or folders) in order, float32 ``[N, E]``, each of length 1.

        Raises:
            UsageError: the bundle gives no embeddings, or there is no such model.
            DataError: a path does not exist, there is no image, or one cannot be read.
            EnvironmentLacksError: what runs the model is not on this machine.
        """
        if self._open.task != "embedding":
            raise UsageError(f"bundle '{self.folder}' is of task {self._open.task}; use predict.")
        found = self.predict(images, model=model)
        if unread := [one.error for one in found if one.error]:
            raise DataError("\n".join(unread))
        return np.stack([one.embedding for one in found if one.embedding is not None])

    def each(self, images: PathLike | Sequence[PathLike], *, top: int = 5, model: str = "onnx") -> Iterator[Prediction]:
        """Yield what :meth:`predict` returns, each as soon as it is known."""
        given = [images] if isinstance(images, str | os.PathLike) else images
        return predict_images(self._open, [Path(path) for path in given], top=top, model=model)

    def __repr__(self) -> str:
        return f"Bundle({os.fspath(self.folder)!r}): {', '.join(model.name for model in self.models)}"
