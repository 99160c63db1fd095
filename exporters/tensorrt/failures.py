"""A failed build in one sentence that names the ONNX node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vitcompress.core.errors import BundleError, CompressError, ResultError
from vitcompress.exporters.tensorrt.log import TensorrtLog


def parse_failure(parser: Any, log: TensorrtLog, path: Path) -> CompressError:
    """Return why the parser did not take ``path``.

    Returns:
        A BundleError for a file that is no readable ONNX graph, else a ResultError with node and operator.
    """
    if not parser.num_errors:
        return ResultError(f"TensorRT cannot take {path.name} ({log.last_error()}).")
    error = parser.get_error(0)
    code = error.code().name
    if code == "MODEL_DESERIALIZE_FAILED":
        return BundleError(f"TensorRT cannot take {path.name}: it is damaged or no ONNX file; export it again.")
    # Exporters need not name their nodes; the position then finds it in a viewer.
    called = f"'{error.node_name()}'" if error.node_name() else str(error.node())
    return ResultError(
        f"TensorRT cannot take {path.name} at node {called} [{error.node_operator()}]: {one_line(error.desc())} "
        f"({code})."
    )


def build_failure(network: Any, log: TensorrtLog, *, path: Path, log_path: Path, flavour: str) -> ResultError:
    """Return why the builder made no engine of the parsed ``network``, with the node that its words name, if any."""
    said = log.last_error(length=5000)
    where = _named_node(network, said)
    at = f" at {where}" if where else ""
    return ResultError(f"{flavour} built no engine of {path.name}{at} ({one_line(said)}); see {log_path}.")


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


def one_line(text: str) -> str:
    """Return the first 300 characters of a text in one line, without a full stop."""
    return " ".join(text.split())[:300].rstrip(". ")
