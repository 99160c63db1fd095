"""A network as a program of torch.export, for targets that read those instead of an ONNX graph."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.artifact_records import OnnxArtifact
from vitcompress.core.errors import CompressError, ResultError
from vitcompress.core.files import refused_write
from vitcompress.exporters.bundled import GraphFacts, graph_facts
from vitcompress.exporters.onnx import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from vitcompress.exporters.targets.target import BuildOptions


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's warnings, log lines and standard error from the user; what its import does to logging goes."""
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], root.manager.disable
    logging.disable(logging.WARNING)
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # ExecuTorch's native code tells of each file of the system that it reads
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # some of it is written through Python
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        logging.disable(disabled)
        root.handlers[:] = handlers


@contextmanager
def building(title: str) -> Iterator[None]:
    """Keep a library quiet that builds; what it raises becomes a ResultError in which ``title`` is its name."""
    try:
        with quiet():
            yield
    except CompressError:
        raise
    except Exception as error:  # compilers of programs let through whatever their passes raise
        if (refused := refused_write(error)) is not None:
            raise refused from error
        raise ResultError(f"{title} cannot build this network ({first_line(error)})") from error


def network(graph: OnnxArtifact, options: BuildOptions) -> tuple[nn.Module, Tensor]:
    """Return the network behind an ONNX graph, and a batch of 2 empty images as the graph takes them.

    A ResultError is raised where only the graph is known.
    """
    import torch

    if options.module is None:
        raise ResultError("it is built of the network in torch, and only its ONNX graph is known here")
    module = options.module()
    for part in module.modules():
        if hasattr(part, "fused_attn"):  # timm's switch; the parts in the open, as in the ONNX graph
            part.fused_attn = False  # type: ignore[assignment]  # a plain flag, which nn.Module's types do not know
    images = graph_facts(options.root / graph.file.path).images
    return module, torch.zeros(2, *images.shape, dtype=getattr(torch, images.dtype))


def program(module: nn.Module, images: Tensor, max_batch: int) -> ExportedProgram:
    """Return a network traced for batches of 1 to ``max_batch``, which is 2 at least, like ``images``."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=max_batch)
    with torch.no_grad():
        return torch.export.export(module, (images,), dynamic_shapes=({0: batch},))


def tensor(images: NDArray[Any]) -> Tensor:
    """Return images as a tensor, without a copy where they are writable and in order."""
    import torch

    return torch.from_numpy(np.require(images, requirements=("C", "W")))


def in_words(interface: GraphFacts) -> dict[str, str]:
    """Return what a program ``takes`` and ``gives`` and the ``shape`` of an image, for the model card."""
    shape = ", ".join(map(str, interface.images.shape))
    words = "pixels" if interface.input == "uint8" else "normalised images"
    logits = "logits; line i of `labels.txt`, from 0, names logit i"
    return {
        "takes": f"{interface.images.dtype} `[batch, {shape}]`: {words}, prepared as `preprocess.json` says (by "
        "`prepare` in `infer.py`)",
        "gives": "embeddings of length 1" if interface.embeds else logits,
        "shape": shape,
    }
