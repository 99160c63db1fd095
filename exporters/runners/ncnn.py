"""A network in ncnn: ``NAME.param`` with its weights beside it in ``NAME.bin``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.exporters.latency import physical_cores
from vitcompress.exporters.runners.base import Runner, input_of

IMAGES, PIXELS, LOGITS = "images", "pixels", "logits"
"""Names of the input, normalised images or planes of pixels from 0 to 255, and of the output."""
HINT = "-23330"
"""Parameter of a layer with the shape of what it gives: number of values, rank, width, height, channels."""
_WAITING = "OMP_WAIT_POLICY"
MISSING = "ncnn is not installed; run pip install 'vitcompress[ncnn]'"


class NcnnRunner(Runner):
    """A network in ncnn, on the CPU, one image at a time, in float32 whatever its weights are stored in."""

    max_batch = 1

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load a network, to run on ``threads`` (None: one a physical core).

        A BundleError is raised where a file is missing or damaged, an EnvironmentLacksError where ncnn is not here.
        """
        self.path = path
        weights = path.with_suffix(".bin")
        for file in (path, weights):
            if not file.is_file():
                raise BundleError(f"{file} does not exist.")
        self._ncnn = import_ncnn()
        self._name, self.input, self.size, self.channels, self.classes = _interface(path)
        self._net: Any = self._ncnn.Net()
        options = self._net.opt
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "vulkan_compute"):
            setattr(options, f"use_{name}", False)
        options.num_threads = threads or physical_cores()
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise BundleError(f"{path.name} or {weights.name} of {path.parent} is damaged, or needs a newer ncnn.")

    def close(self) -> None:
        """Drop the network."""
        self._net = None

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        given = images[0].transpose(2, 0, 1) if self.input == "uint8" else images[0]
        planes = np.ascontiguousarray(given, dtype=np.float32)  # named, so that it lives until it is copied
        mat = self._ncnn.Mat(planes).clone()
        extractor = self._net.create_extractor()
        extractor.input(self._name, mat)
        failed, logits = extractor.extract(LOGITS)
        found = np.empty(0, np.float32) if failed else np.array(logits, dtype=np.float32).ravel()
        if len(found) != self.classes:
            raise ResultError(f"ncnn failed on {self.path.name}.")
        return found[None]


def import_ncnn() -> Any:
    """Import ncnn, with threads that sleep while they wait; an EnvironmentLacksError is raised where it is missing."""
    before = os.environ.get(_WAITING)
    os.environ[_WAITING] = before or "passive"  # its own copy of OpenMP reads this when it is loaded
    try:
        import ncnn
    except ImportError as error:
        raise EnvironmentLacksError(f"{MISSING}.") from error
    finally:
        if before is None:
            del os.environ[_WAITING]
    return ncnn


def _interface(path: Path) -> tuple[str, Any, int, int, int]:
    """Return name and kind of the input, its side and channels, and the number of logits, as ``build`` wrote them.

    A BundleError is raised where the file does not say.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        name = lines[2][4]
        width, height, channels = (int(word.split("=")[1]) for word in lines[2][5:8])
        (hint,) = (word.partition("=")[2] for word in lines[-1] if word.startswith(HINT))
        classes = int(hint.split(",")[2])
    except (OSError, ValueError, IndexError) as error:
        raise BundleError(f"{path} is damaged, or no network that compress built for ncnn.") from error
    if name == PIXELS:
        return name, *input_of("uint8", [1, height, width, channels], path), classes
    return name, *input_of("float32", [1, channels, height, width], path), classes
