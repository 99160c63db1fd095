"""An OpenVINO IR on the CPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.exporters.latency import physical_cores
from vitcompress.exporters.runners.base import Runner, input_of

INSTALL = "pip install 'vitcompress[openvino]'"
_DTYPES = {"f32": "float32", "u8": "uint8"}


class OpenvinoRunner(Runner):
    """An IR, ``.xml`` with its weights in ``.bin`` beside it, compiled for the CPU and for single requests."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load the files, to run with ``threads`` (None: one a physical core).

        A BundleError is raised where a file is missing, damaged, or not a classifier of images; an
        EnvironmentLacksError where OpenVINO is not installed.
        """
        self.path = path
        core = core_of(import_openvino())
        weights = path.with_suffix(".bin")
        for file in (path, weights):
            if not file.is_file():
                raise BundleError(f"{file} does not exist; an OpenVINO model is an .xml and the .bin beside it.")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or physical_cores(),
            # On CPUs with bf16 instructions OpenVINO would compute in bf16 what the file has in fp32, norms too: other
            # logits on each kind of machine, and not those that were judged.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            compiled = core.compile_model(str(path), "CPU", settings)
        except Exception as error:  # RuntimeError, of whatever the file makes its reader do
            raise BundleError(
                f"{path} or {weights.name} is damaged or no OpenVINO IR ({_sentence(error)}); build it again."
            ) from error
        images, logits = compiled.input(0), compiled.output(0)
        shape = [one.get_length() if one.is_static else -1 for one in images.partial_shape]
        kind = images.element_type.get_type_name()
        self.input, self.size, self.channels = input_of(_DTYPES.get(kind, kind), shape, path)
        self.classes = logits.partial_shape[1].get_length()
        self._request: Any = compiled.create_infer_request()

    def close(self) -> None:
        """Drop the compiled model."""
        self._request = None

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        try:
            self._request.infer([images], share_inputs=True)
        except Exception as error:  # RuntimeError, of whatever failed
            raise ResultError(f"OpenVINO failed on {self.path.name} ({_sentence(error)}).") from error
        return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)  # the next request writes over it


def import_openvino() -> Any:
    """Import OpenVINO; an EnvironmentLacksError is raised where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise EnvironmentLacksError(f"OpenVINO is not installed; run {INSTALL}.") from error
    return openvino


@cache
def core_of(openvino: Any) -> Any:
    """Return the only core of this process, which lives as long.

    Each one's CPU plugin brings a signal stack and, at its end, restores the one that it found: with two cores that end
    in the order they came, the first one's, which is freed by then. The next signal would end the process.
    """
    return openvino.Core()


def _sentence(error: Exception) -> str:
    """Return what happened, in one line: the last one, after those of where in OpenVINO's sources it was found."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200].rstrip(".") if lines else type(error).__name__
