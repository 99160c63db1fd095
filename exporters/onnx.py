"""A torch module as an ONNX file that ONNX Runtime and both TensorRT flavours accept."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitcompress.core.artifact_records import Input
from vitcompress.core.errors import ResultError
from vitcompress.core.files import refused_write
from vitcompress.exporters.bundled import graph_facts
from vitcompress.exporters.precision.graph import EXTERNAL_ABOVE

if TYPE_CHECKING:
    from torch import nn

INPUT = "images"
"""Name of the graph's input, float32 ``[batch, C, size, size]`` or uint8 ``[batch, size, size, C]``."""
OUTPUT = "logits"
"""Usual name of the graph's output, float32 ``[batch, classes]``."""


@dataclass(frozen=True)
class OnnxFacts:
    """What was written."""

    nodes: int
    opset: int
    seconds: float
    """Wall time of export, slimming and checking."""
    bytes: int
    """Size of the file, with its external weights if it has any."""
    data: Path | None
    """The file with the external weights; None when the graph holds them itself."""


def onnx_from_module(
    module: nn.Module,
    path: Path,
    *,
    size: int,
    max_batch: int,
    opset: int = 20,
    input: Input = "float",
    chans: int = 3,
    output: str = OUTPUT,
) -> OnnxFacts:
    """Export ``module`` to ``path``, slimmed and checked; ``path`` is either replaced whole or left as it was.

    The graph is that of the module in eval mode with attention as separate MatMul and Softmax (fewer nodes and a
    smaller engine than the fused operator's decomposition). ``module`` itself is not touched.

    ``module`` maps float32 ``[B, C, size, size]`` (or, with ``input`` uint8, pixels uint8 ``[B, size, size, C]``) to
    float32 logits ``[B, K]``, on any device, in any mode. Weights over ``EXTERNAL_ABOVE`` bytes go to ``path`` +
    ``.data``. The batch dimension is dynamic from 1; ``max_batch`` is the largest that the graph is meant for. Operator
    set 20 keeps LayerNormalization and Gelu single operators, which TensorRT parses natively.

    Raises:
        ResultError: the module cannot be exported, or the graph is not the one promised above.
    """
    started = time.perf_counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder, not a file: a graph names its external weights by their file name, which a rename would break.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft = Path(folder) / path.name
        try:
            _export(module, draft, (size, size, chans), max_batch, opset, input, output)
            nodes, written = _finish(draft, (size, size, chans), input)
        except OSError as error:  # that of a write names no file
            error.filename = error.filename or str(path)
            raise
        files = sorted(Path(folder).iterdir())
        total = sum(file.stat().st_size for file in files)
        beside = path.with_name(f"{path.name}.data")
        for file in reversed(files):  # the graph last
            file.replace(path.with_name(file.name))
    data = beside if len(files) > 1 else None
    if data is None:
        beside.unlink(missing_ok=True)
    return OnnxFacts(nodes, written, time.perf_counter() - started, total, data)


def _deployable(module: nn.Module) -> nn.Module:
    """Return a copy on the CPU in float32 and eval mode; the original's mode, device and flags stay as they are."""
    return copy.deepcopy(module).to("cpu").float().eval()


def _export(
    module: nn.Module, path: Path, shape: Sequence[int], max_batch: int, opset: int, input: Input, output: str
) -> None:
    import torch

    module = _deployable(module)
    for part in module.modules():
        if hasattr(part, "fused_attn"):  # timm decides this when a module is built; on a built one this is the switch
            part.fused_attn = False  # type: ignore[assignment]  # a plain flag, which nn.Module's types do not know
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    pixels = input == "uint8"
    example = torch.zeros(2, *shape, dtype=torch.uint8) if pixels else torch.zeros(2, shape[2], *shape[:2])
    # torch.export refuses a range of one size, and specialises to a batch of 1 when traced with it.
    batch = torch.export.Dim("batch", min=1, max=max(2, max_batch))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what torch's exporter (2.11) itself calls
            # LeViT, TinyViT and others keep their table of biases: as a constant in the graph, and in this copy.
            warnings.filterwarnings("ignore", "The tensor attribute", UserWarning)
            torch.onnx.export(
                module,
                (example,),
                path,
                dynamo=True,
                opset_version=opset,
                external_data=weights > EXTERNAL_ABOVE,
                dynamic_shapes=({0: batch},),
                input_names=[INPUT],
                output_names=[output],
                verbose=False,
            )
    except Exception as error:  # the exporter lets through whatever the module's forward or torch.export raises
        if (refused := refused_write(error)) is not None:
            raise refused from error
        raise ResultError(
            f"{type(module).__name__} cannot be exported to ONNX for inputs {list(example.shape)} "
            f"({first_line(error)}); the model must take these and must not depend on the batch size."
        ) from error


def first_line(error: BaseException) -> str:
    """Return the innermost reason in one line: exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _finish(path: Path, shape: Sequence[int], input: Input) -> tuple[int, int]:
    """Slim and check the file at ``path`` in place; return the number of its nodes, and the opset it really has.

    A ResultError is raised where the graph is not valid, not the classifier that was promised, or has operators that
    TensorRT does not know.
    """
    import onnx
    import onnxslim

    model = onnx.load(path, load_external_data=False)
    if len(list(path.parent.iterdir())) == 1:  # slimming serialises the model, which beyond 2 GB it cannot
        model = onnxslim.slim(model)
    for node in model.graph.node:
        del node.metadata_props[:]  # source paths of this machine, of no use to anyone else
    onnx.save(model, path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
        facts = graph_facts(path)
    except Exception as error:  # BundleError, ValidationError or InferenceError, which share no base
        raise ResultError(f"the exported ONNX graph is not what was promised ({first_line(error)}).") from error
    foreign = {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    if foreign:
        raise ResultError(f"the exported graph uses operators TensorRT does not know: {', '.join(sorted(foreign))}.")
    if (facts.size, facts.channels, facts.input, facts.fixed_batch) != (*shape[1:], input, None):
        raise ResultError(
            f"the exported graph takes {facts.images} in batches of {facts.fixed_batch or 'any size'}, not {input} "
            f"images of {shape[0]} pixels and {shape[2]} channel(s) in batches of any size."
        )
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return len(model.graph.node), opset
