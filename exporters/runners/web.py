"""An ONNX file in onnxruntime-web, the library of web pages, in Node: another process, spoken to through pipes."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.errors import BundleError, EnvironmentLacksError, ResultError
from vitcompress.exporters.bundled import graph_facts
from vitcompress.exporters.runners.base import Runner

WORKER = Path(__file__).parents[1] / "web" / "worker.mjs"
"""The program that Node runs; it says how requests and answers look."""
NO_NODE = "Node is not installed; install it (nodejs, 18 or later) and have node on the PATH"


class WebRunner(Runner):
    """An ONNX file in onnxruntime-web's WebAssembly, in one thread, as in a page that no server gives."""

    def __init__(self, path: Path, library: Path, wasm: Path) -> None:
        """Load the file with onnxruntime-web's module ``library`` and its ``wasm``.

        A BundleError is raised where the file is missing, damaged, or not one that onnxruntime-web loads; an
        EnvironmentLacksError where Node is not here.
        """
        self.path = path
        facts = graph_facts(path)
        self.input, self.size, self.channels, self.classes = facts.input, facts.size, facts.channels, facts.classes
        node = shutil.which("node")
        if node is None:
            raise EnvironmentLacksError(f"{NO_NODE}.")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process: Any = subprocess.Popen(
            [node, str(WORKER), str(library), str(wasm), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        try:
            self._answer()
        except BaseException as error:
            self.close()
            if isinstance(error, ResultError):
                raise BundleError(f"onnxruntime-web cannot load {path}: {error}") from error
            raise

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()  # closes the pipes, and waits
        self._said.close()
        self._process = None

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        try:
            self._process.stdin.write(struct.pack("=III", len(images), images.nbytes, images.dtype == np.uint8))
            self._process.stdin.write(np.ascontiguousarray(images).data)
            self._process.stdin.flush()
        except OSError as error:
            raise self._gone() from error
        return np.frombuffer(self._answer(), dtype=np.float32).reshape(len(images), -1)

    def _answer(self) -> bytes:
        """Return the bytes of the next answer; a ResultError is raised with its words where it is an error."""
        (size,) = struct.unpack("=i", self._read(4))
        content = self._read(abs(size))
        if size < 0:
            raise ResultError(f"onnxruntime-web failed on {self.path.name} ({content.decode()[:200].rstrip('.')}).")
        return content

    def _read(self, size: int) -> bytes:
        content: bytes = self._process.stdout.read(size)
        if len(content) < size:
            raise self._gone()
        return content

    def _gone(self) -> ResultError:
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        why = next((line for line in lines if "Error" in line[:200]), lines[-1] if lines else "it said nothing")
        return ResultError(f"Node ended while it ran {self.path.name} ({why[:200].rstrip('.')}).")
