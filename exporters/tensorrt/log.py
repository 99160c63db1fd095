"""The builder's messages: kept in a file, and a failed build in one sentence that names the ONNX node."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vitcompress.core.errors import BundleError, CompressError, ResultError
from vitcompress.exporters.latency import no_garbage_collection

_ENGINE = ("Layers:", "Engine Layer Information")
"""How the builder begins to tell of the engine it built: with detailed profiling verbosity, and without."""


class TensorrtLog:
    """TensorRT's messages: errors remembered, and everything worth keeping written to ``file``."""

    def __init__(self, trt: Any, file: IO[str] | None = None) -> None:
        self._errors: list[str] = []
        self.layers = ""
        """The builder's account of the layers of the engine it built last; empty before."""
        outer = self

        class Logger(trt.ILogger):  # type: ignore[misc]  # the base is known only once a flavour is chosen
            def __init__(self) -> None:
                trt.ILogger.__init__(self)  # required: pybind11 does not accept super().__init__() alone

            def log(self, severity: Any, message: str) -> None:
                outer._write(severity.name, message, file)

        self.logger = Logger()

    def _write(self, severity: str, message: str, file: IO[str] | None) -> None:
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self._errors.append(message)
        # VERBOSE has thousands of lines a build, of which one says what the engine's layers and dtypes became.
        if severity == "VERBOSE" and message.startswith(_ENGINE):
            self.layers = message
        if file is not None and (severity != "VERBOSE" or message.startswith(_ENGINE)):
            # TensorRT calls this from C++, also after the build is over: an exception here would end the process.
            with contextlib.suppress(OSError, ValueError):
                file.write(f"[{severity}] {message}\n")

    def last_error(self, length: int = 300) -> str:
        """Return the last error in one line of at most ``length`` characters; ``no error was logged`` without one."""
        return " ".join(self._errors[-1].split())[:length] if self._errors else "no error was logged"


@contextlib.contextmanager
def logging_to(trt: Any, path: Path) -> Iterator[TensorrtLog]:
    """Messages of one build, in a file of their own that is begun anew.

    The collector is off meanwhile. TensorRT logs with a lock of its own held; if that call into Python set off a
    collection, and the collection freed a builder of before (which a failed build's traceback kept), that builder
    would wait for the same lock for ever.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written by line: a crash in C++ keeps what was said before.
    with no_garbage_collection(), path.open("w", buffering=1, encoding="utf-8") as file:
        yield TensorrtLog(trt, file)


def parse_failure(parser: Any, log: TensorrtLog, path: Path) -> CompressError:
    """Return why the parser did not take ``path``: of a graph that can be read, with node and operator."""
    if not parser.num_errors:
        return ResultError(f"TensorRT cannot take {path.name} ({log.last_error()}).")
    error = parser.get_error(0)
    code = error.code().name
    if code == "MODEL_DESERIALIZE_FAILED":
        return BundleError(f"TensorRT cannot take {path.name}: it is damaged or no ONNX file; export it again.")
    # Exporters need not name their nodes; the position then finds it in a viewer.
    called = f"'{error.node_name()}'" if error.node_name() else str(error.node())
    said = " ".join(error.desc().split())
    return ResultError(f"TensorRT cannot take {path.name} at node {called} [{error.node_operator()}]: {said} ({code}).")


def build_failure(network: Any, log: TensorrtLog, *, path: Path, log_path: Path, flavour: str) -> ResultError:
    """Return why the builder made no engine of the parsed ``network``, with the node that its words name, if any."""
    said = log.last_error(length=5000)
    where = _named_node(network, said)
    at = f" at {where}" if where else ""
    return ResultError(f"{flavour} built no engine of {path.name}{at} ({said[:300]}); see {log_path}.")


def _named_node(network: Any, said: str) -> str:
    """Return ``node 'name' [TYPE]`` for the layer with the longest name that occurs in ``said``; empty without one."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    named = [layer for layer in layers if layer.name and re.search(rf"(?<!\w){re.escape(layer.name)}(?!\w)", said)]
    if not named:
        return ""
    layer = max(named, key=lambda one: len(one.name))
    # One node may become several layers; their metadata, where this version has it, says which node it was.
    origin = re.search(r"\[ONNX Layer: ([^\]]+)\]", getattr(layer, "metadata", "") or "")
    return f"node '{origin[1] if origin else layer.name}' [{layer.type.name}]"
