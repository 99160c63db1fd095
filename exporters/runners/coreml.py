"""A Core ML package in Core ML, which macOS alone has."""

from __future__ import annotations

import logging
import platform
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.exporters.runners.base import Runner, input_of

PACKAGE = "model.mlpackage"
"""Folder in the archive: what Xcode and Core ML open."""
MISSING = "coremltools is not installed; run pip install 'vitcompress[coreml]'"


@contextmanager
def quiet_coremltools() -> Iterator[Any]:
    """Import coremltools for the block, without its progress bars and its warnings about other versions of torch.

    An EnvironmentLacksError is raised where it is not installed.
    """
    logging.getLogger("coremltools").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            import coremltools
        except ImportError as error:
            raise EnvironmentLacksError(f"{MISSING}.") from error
        yield coremltools


class CoremlRunner(Runner):
    """A zipped ``.mlpackage`` in Core ML, on whatever the device has: CPU, GPU, neural engine."""

    max_batch = 1

    def __init__(self, path: Path) -> None:
        """Unpack and load it; Core ML chooses its threads itself.

        An EnvironmentLacksError is raised on anything but macOS; a BundleError where the file is missing or damaged.
        """
        if platform.system() != "Darwin":
            raise EnvironmentLacksError(f"Core ML runs on macOS alone; this is {platform.system()}.")
        self.path = path
        self._folder = tempfile.TemporaryDirectory(prefix="compress-coreml-")
        try:
            with quiet_coremltools() as coremltools:
                # Where Core ML refuses a package, coremltools only warns, and fails at the first image.
                warnings.simplefilter("error", RuntimeWarning)
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(self._folder.name)
                self._model: Any = coremltools.models.MLModel(str(Path(self._folder.name) / PACKAGE))
            description = self._model.get_spec().description
            (images,), (logits,) = description.input, description.output
            given, dtype = images.type.multiArrayType.shape, "float32"
            if images.type.WhichOneof("Type") == "imageType":
                image, dtype = images.type.imageType, "uint8"
                given = [1, image.height, image.width, 1 if image.colorSpace == image.GRAYSCALE else 3]
            self.input, self.size, self.channels = input_of(dtype, list(given), path)
            self.classes = logits.type.multiArrayType.shape[-1]
        except Exception as error:  # Core ML's, coremltools' and zipfile's errors share no base but this
            self.close()
            if isinstance(error, EnvironmentLacksError):
                raise
            raise BundleError(f"{path} is missing, damaged or no Core ML package ({_sentence(error)}).") from error
        self._names = images.name, logits.name

    def close(self) -> None:
        """Drop the model and its unpacked files."""
        self._model = None
        self._folder.cleanup()

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        given: Any = Image.fromarray(images[0].squeeze()) if self.input == "uint8" else images
        try:
            found = self._model.predict({self._names[0]: given})[self._names[1]]
        except Exception as error:  # coremltools raises RuntimeError, ValueError and plain Exception
            raise ResultError(f"Core ML failed on {self.path.name} ({_sentence(error)}).") from error
        return np.asarray(found, dtype=np.float32).reshape(1, self.classes)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
