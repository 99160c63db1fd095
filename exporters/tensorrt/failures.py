"""A failed build in one sentence that names the ONNX node, its operator, and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vitcompress.core.errors import BundleError, CompressError, ResultError, UsageError
from vitcompress.exporters.tensorrt.log import TensorrtLog

_LENGTH = 300


def parse_failure(parser: Any, log: TensorrtLog, path: Path) -> CompressError:
    """Return why the parser did not take ``path``.

    Returns:
        A BundleError for a file that is no readable ONNX graph, else a ResultError with node and operator.
    """
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        return ResultError(f"TensorRT cannot take {path.name} ({log.last_error()}).")
    error, code = errors[0], errors[0].code().name
    if code == "MODEL_DESERIALIZE_FAILED":
        return BundleError(f"TensorRT cannot take {path.name}: it is damaged or no ONNX file; export it again.")
    reason = _reason(error.desc())
    where = f" at {_node(error)}" if error.node_operator() else ""
    more = f"; {len(errors) - 1} more" if len(errors) > 1 else ""
    return ResultError(f"TensorRT cannot take {path.name}{where}: {reason} ({code}{more}).")


def _reason(description: str) -> str:
    """Return the words in a failed condition of the parser, such as ``creator && "Plugin not found"``.

    A bare operator without an importer is described by the condition alone, ``false``.
    """
    words = re.search(r'&& "(.+)"$', description) or re.search(r"^Assertion failed: .*?[^:]: (.+)$", description)
    text = words[1] if words else description
    return _one_line(text).rstrip(".") if len(text) > len("false") else "operator not supported"


def _node(error: Any) -> str:
    # Exporters need not name their nodes; the position then finds it in a viewer.
    called = f"node '{error.node_name()}'" if error.node_name() else f"node {error.node()}"
    return f"{called} [{error.node_operator()}]"


def build_failure(
    network: Any,
    log: TensorrtLog,
    *,
    path: Path,
    log_path: Path,
    flavour: str,
    batches: tuple[int, int, int],
    capabilities: tuple[str, ...],
) -> CompressError:
    """Return why the builder made no engine of the parsed ``network``.

    Returns:
        A UsageError when the graph cannot run every batch of the profile, else a ResultError; both with the node that
        the builder's words name, if they name one.
    """
    said = log.last_error(length=5000)
    where = _named_node(network, said, path)
    at = f" at {where}" if where else ""
    if "violate shape constraints" in said:  # the profile's own shapes were tried on the graph
        low, best, high = batches
        return UsageError(
            f"{path.name} cannot run every batch of min {low}, opt {best}, max {high}: it fails{at} ({_core(said)}); "
            "give batch sizes that the graph takes, or export it with a dynamic batch."
        )
    advice = ""
    if "7.5" in capabilities and ("Turing" in said or "SM75" in said):
        advice = "; compute capability 7.5 has no fp32 matrix product here: leave it out, or build fp16"
    return ResultError(f"{flavour} built no engine of {path.name}{at} ({_core(said)}){advice}; see {log_path}.")


def _named_node(network: Any, said: str, path: Path) -> str:
    """``node 'name' [Operator]`` for the layer with the longest name that occurs in ``said``; empty without one."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    named = [layer for layer in layers if layer.name and re.search(rf"(?<!\w){re.escape(layer.name)}(?!\w)", said)]
    if not named:
        return ""
    layer = max(named, key=lambda one: len(one.name))
    # One node may become several layers; their metadata, where this version has it, says which node it was.
    origin = re.search(r"\[ONNX Layer: ([^\]]+)\]", getattr(layer, "metadata", "") or "")
    name = origin[1] if origin else layer.name
    return f"node '{name}' [{_operators(path).get(name, layer.type.name)}]"


def _operators(path: Path) -> dict[str, str]:
    """Return the operator of each named node of an ONNX file that has been parsed before."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return {node.name: node.op_type for node in graph.node if node.name}


def _core(said: str) -> str:
    """Return the builder's words without the functions and source files of the builder."""
    said = re.sub(r"^\w+::\w+: Error Code \d+: [\w ]+ \((.*)\)$", r"\1", said)
    said = re.sub(r"\s*In \S+ at \S+:\d+\b", "", said)
    return _one_line(re.sub(r"^\[\w+\.cpp:\d+: \w+\] ", "", said)).rstrip(". ")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LENGTH]
